"""`unweave bench` of a text-to-image recipe: a tiny model, and what is refused before any training."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from unweave.cli import main
from unweave.record import record

pytest.importorskip("diffusers")

from bench.test_text_to_image_models import short
from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.bench import text_to_image_models
from unweave.bench.text_to_image_concept import PromptCounts
from unweave.bench.text_to_image_recipe import method_tables, recipe_file
from unweave.cli.bench_runs import concepts
from unweave.cli.inputs.out import as_read_back
from unweave.cli.inputs.plan import extends
from unweave.descent.descend import Descent
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods.simple import FromScratch
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.scopes import PATTERNS

ONE_STEP = """
[methods.lur]
how = { lr = 1e-3, steps = 1, batch = 4, forget_batch = 4 }

[methods.uce]
"""
ATTACKER = Budget(
    guidances=(1.0,),
    seeds=10,
    draws=2,
    vector_steps=1,
    relearning=Descent(lr=1e-3, steps=1, batch=4, optimizer="adam"),
    looks=(1,),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a model, edits and attacks of a moment, given twice."""
    folder, source = tmp_path_factory.mktemp("bench"), short(steps=2)
    drawings, sampler = replace(source.drawings, limit=360), Sampler("dpm", steps=1, guidance=3.0)
    source = replace(source, drawings=drawings, sampler=sampler)
    family = TextToImageFamily(sampler, images=20, attacks=1, attacker=ATTACKER)
    counts = PromptCounts(trained=1, paraphrased=1, combined=0, neighbours=1, others=0)
    recipe, run = folder / "mine.toml", folder / "run"
    recipe.write_text(recipe_file("digits").read_text().split("[methods.lur]", maxsplit=1)[0] + ONE_STEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_to_image_models, "RECOGNISED_COPIES", 1)
        patch.setattr(concepts, "text_to_image_recipe", lambda place: source)
        patch.setattr(concepts, "TextToImageFamily", lambda sampler: family)
        patch.setattr(concepts, "PromptCounts", lambda: counts)
        command = ["bench", str(recipe), "--concept", "three", "--jobs", "1", "--quiet", "--out", str(run)]
        assert main(command) == 0
        times = {path: path.stat().st_mtime_ns for path in run.rglob("cells/**/*")}
        assert main(command) == 0
        assert {path: path.stat().st_mtime_ns for path in run.rglob("cells/**/*")} == times
    return run


def test_a_second_run_goes_on_and_every_model_is_compared(place: Path):
    (stage,) = record.load(place)["stages"].values()
    assert stage["methods"].keys() == {"original", "lur", "uce"} and stage["family"] == "text-to-image"
    assert stage["sheets"].keys() == {"lur", "uce", "original", "retrained"}
    assert stage["data"]["concept"] == {"object": "three"}
    assert "1 seed, 10 needed" in stage["methods"]["lur"]["reason"]
    attacks = CONCEPT_ATTACKS.keys() - {"dropped", "dropped_same"}
    assert attacks <= stage["methods"]["lur"]["scores"].keys()


def test_original_and_reference_are_kept_as_pipelines(place: Path):
    names = {path.name for path in (place / "pipelines" / "seed-0").iterdir()}
    assert names == {"original", "without-three"}
    assert all((place / "pipelines" / "seed-0" / name / "model_index.json").exists() for name in names)


def test_the_page_begins_with_the_concept_then_pictures_then_attacks(place: Path):
    page = (place / "report.html").read_text()
    order = ["Erased: object = three", "Gradients, % of a retraining", "What they draw", "Attacks that bring"]
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    assert page.count('<img class="sheet"') == 4
    data = record.load(place)["stages"]["object-three"]["data"]
    assert f"{data['forget']} of {data['forget'] + data['retain']} training images" in page


def test_a_recipe_has_the_settings_of_its_file():
    request = concepts.read_concept_bench("digits", ["three", "red"], attacks="new-token")
    tables = tomllib.loads(recipe_file("digits").read_text())["methods"]
    assert method_tables("digits") == tables and request.methods.keys() == tables.keys()
    assert request.methods["lur"].how.steps == tables["lur"]["how"]["steps"]
    assert request.concepts == (("object", "three"), ("colour", "red"))
    assert request.family.attacks and request.family.attacker.names == ("new-token",)
    assert not concepts.read_concept_bench("digits", ["three"]).family.attacks


REFUSED = (
    ("name one to erase with --concept", ["digits"]),
    ("unknown concept .threee.*three", ["digits", "--concept", "threee"]),
    ("each concept can be erased once", ["digits", "--concept", "red", "--concept", "red"]),
    ("--seeds does not go with .*its one seed by --seed", ["digits", "--concept", "red", "--seeds", "2"]),
    ("--tune does not go with", ["digits", "--concept", "red", "--tune", "3"]),
    ("--class does not go with", ["digits", "--concept", "red", "--class", "3"]),
    ("unknown text-to-image recipe 'digits-clean'", ["digits-clean", "--concept", "red"]),
    ("unknown text-to-image recipe 'digts'.*digits", ["digts", "--concept", "red"]),
    ("one text-to-image recipe, found digits, garments", ["digits", "garments", "--concept", "red"]),
    ("found the model .: erase a concept from it by unweave forget", [".", "--concept", "red"]),
    ("run unweave bench digits --concept red", ["digits", "digits-clean"]),
    ("need no folder: leave .*images out", ["digits", "--concept", "red", "--data", "images"]),
    ("unknown attack", ["digits", "--concept", "red", "--attacks", "rmia"]),
    ("unknown method .nothing", ["digits", "--concept", "red", "--methods", "nothing"]),
    ("leave retrain out", ["digits", "--concept", "red", "--methods", "lur,retrain"]),
    ("methods.lur.forget = 'uniform' is for models of", ["uniform.toml", "--concept", "red"]),
    ("is not TOML", ["broken.toml", "--concept", "red"]),
    ("needs 20 held-out images", ["few.toml", "--concept", "red"]),
    ("no such file", ["missing.toml", "--concept", "red"]),
)


def test_what_does_not_fit_is_refused_before_any_training(
    refused, subtests: pytest.Subtests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    recipe_text = recipe_file("digits").read_text()
    Path("uniform.toml").write_text(recipe_text.replace('forget = "away"', 'forget = "uniform"'))
    Path("broken.toml").write_text("[drawings")
    Path("few.toml").write_text(recipe_text.replace("copies = 4", "copies = 1\nlimit = 50"))
    for message, arguments in REFUSED:
        with subtests.test(message):
            refused(message, "bench", *arguments)
            assert not Path("unweave-bench").exists()


def test_other_settings_are_another_run_and_more_concepts_the_same(tmp_path: Path):
    path, recipe_text = tmp_path / "mine.toml", recipe_file("digits").read_text()
    facts = []
    for steps in (43, 42):
        path.write_text(recipe_text.replace("steps = 43", f"steps = {steps}"))
        facts.append(concepts.read_concept_bench(str(path), ["three"]).facts(["lur"], 0))
    more = concepts.read_concept_bench(str(path), ["red", "three"]).facts(["lur", "uce"], 0)
    first, second, more = (as_read_back(each) for each in (*facts, more))
    assert extends(more, second) and not extends(second, more) and not extends(second, first)


def test_a_short_retraining_is_a_tenth_of_the_training_of_the_recipe():
    comparison = concepts.read_concept_bench("garments", ["coat"], data="images")
    method = comparison.recipe("object-coat", 0).method("short-retrain")
    assert isinstance(method, FromScratch)
    assert method.how == replace(comparison.source.train, steps=comparison.source.train.steps // 10)


def test_erased_attention_is_the_scope_of_that_name():
    assert method_tables("digits")["esd"]["where"] == PATTERNS["cross-attention"]
    assert method_tables("garments") == method_tables("digits")
