"""`unweave demo text-to-image`: a tiny model forgets an object, and the page shows it."""

from dataclasses import replace
from pathlib import Path

import pytest

from unweave.cli import main
from unweave.record import record

pytest.importorskip("diffusers")

from bench.test_text_to_image_models import short
from unweave.audits.diffusion.attacks import Budget
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.bench import text_to_image_models
from unweave.bench.text_to_image_concept import PromptCounts
from unweave.bench.text_to_image_recipe import text_to_image_recipe
from unweave.cli import demo_concepts
from unweave.descent.descend import Descent
from unweave.families.text_to_image import TextToImageFamily
from unweave.tasks.diffusion.sample import Sampler

WHOLE = demo_concepts.digits
ATTACKER = Budget(
    guidances=(1.0,),
    seeds=10,
    draws=2,
    vector_steps=1,
    relearning=Descent(lr=1e-3, steps=1, batch=4, optimizer="adam"),
    looks=(1,),
)


def tiny(quick: bool) -> demo_concepts.Demonstration:
    """The demo of one concept, with a model, edits and attacks of a moment."""
    shown, source = WHOLE(quick), short(steps=2)
    lur = shown.methods["lur"]
    return replace(
        shown,
        source=replace(source, drawings=replace(source.drawings, limit=360)),
        family=replace(
            shown.family, sampler=Sampler("dpm", steps=1, guidance=3.0), attacks=1, attacker=ATTACKER
        ),
        counts=PromptCounts(trained=1, paraphrased=1, combined=0, neighbours=1, others=0),
        concepts=shown.concepts[:1],
        methods={"lur": replace(lur, how=replace(lur.how, steps=1, batch=4, forget_batch=4))},
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo of a tiny model."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_to_image_models, "RECOGNISED_COPIES", 1)
        patch.setattr(demo_concepts, "digits", tiny)
        assert main(["demo", "text-to-image", "--jobs", "1", "--quiet", "--out", str(folder)]) == 0
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("cells/**/*")}
        assert main(["demo", "text-to-image", "--jobs", "1", "--quiet", "--out", str(folder)]) == 0
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("cells/**/*")} == before
    return folder


def test_a_second_run_goes_on_and_every_model_is_compared(place: Path):
    (stage,) = record.load(place)["stages"].values()
    assert stage["methods"].keys() == {"original", "lur"} and stage["family"] == "text-to-image"
    assert stage["sheets"].keys() == {"lur", "original", "retrained"}
    assert stage["data"]["concept"] == {"object": "three"}
    assert "1 seed, 10 needed" in stage["methods"]["lur"]["reason"]
    attacks = CONCEPT_ATTACKS.keys() - {"dropped", "dropped_same"}
    assert attacks <= stage["methods"]["lur"]["scores"].keys()


def test_original_and_reference_are_kept_as_pipelines(place: Path):
    found = {path.name for path in (place / "pipelines" / "seed-0").iterdir()}
    assert found == {"original", "without-three"}
    assert all((place / "pipelines" / "seed-0" / name / "model_index.json").exists() for name in found)


def test_the_page_begins_with_the_concept_then_pictures_then_attacks(place: Path):
    page = (place / "report.html").read_text()
    order = ["Erased: object = three", "Gradients, % of a retraining", "What they draw", "Attacks that bring"]
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    assert page.count('<img class="sheet"') == 3
    trained = record.load(place)["stages"]["object-three"]["data"]
    assert f"{trained['forget']} of {trained['forget'] + trained['retain']} training images" in page


def test_a_quick_run_says_that_its_training_is_shortened():
    whole, quick = WHOLE(False), WHOLE(True)
    assert whole.source == text_to_image_recipe("digits") and not whole.partial
    assert quick.partial and quick.source.train.steps == demo_concepts.QUICK_STEPS < whole.source.train.steps
    assert quick.concepts == whole.concepts[:1] == (("object", "three"),) and not quick.family.attacks
    assert whole.concepts[1] == ("colour", "red") and whole.family.attacks


def test_a_method_spends_at_most_a_tenth_of_a_retraining():
    train = text_to_image_recipe("digits").train
    prices = {"lur": 3, "salun": 2, "esd": 1, "sa": 2}  # gradients of a step
    for name, price in prices.items():
        how = demo_concepts.SETTINGS[name]["how"]
        assert price * how["steps"] <= train.steps / 10, name
    assert WHOLE(False).methods.keys() == {*prices, "uce"} <= TextToImageFamily().methods.keys()


def test_only_the_cpu_and_one_seed_are_taken(refused):
    refused("has one seed, found --seeds 2", "demo", "text-to-image", "--seeds", "2")
