"""Tuning: the same trials for every method, on seeds and data that no report shows."""

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.tiny import METHODS, Drift, tiny, with_drift
from for_each import for_each
from unweave.audits.classifier.deep_unlearn import indiscernibility
from unweave.audits.classifier.logits import loss
from unweave.audits.classifier.metrics import measure
from unweave.bench import search as searches
from unweave.bench import stage as stages
from unweave.bench import tune
from unweave.bench.bench import bench, with_best_settings
from unweave.bench.ranges import default_settings, distribution, flatten_tables, in_range, nest_paths
from unweave.bench.recipe import Recipe
from unweave.bench.search import SECOND, make_case, run_trial, search
from unweave.bench.stage import Stage
from unweave.bench.study import Study, evaluations, study_from
from unweave.bench.tune import as_toml, prepare, tune_stage
from unweave.bench.workers import run_serially
from unweave.data.in_memory import Resident
from unweave.descent.train import train_model
from unweave.errors import Failed
from unweave.methods import method_named
from unweave.methods.configure import configure, settings_of
from unweave.methods.lur import LUR
from unweave.space import Choice, Log, Rest, Tunable, Uniform, Whole
from unweave.split import Split

OTHERS = (
    "lur-match", "joint", "joint:recover", "lur-match:recover", "shrink-perturb:lur:recover",
    "redraw:finetune", "salun", "scissorhands", "msg", "ct", "amnesiac", "unsir", "neggrad+", "l1-sparse",
    "shrink", "ascent",
)  # fmt: skip


def drifting(folder: Path, drift: Drift) -> Stage:
    return Stage(with_drift(drift), folder)


def tuned_so(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with other tuning."""
    return dataclasses.replace(recipe, tuning=dataclasses.replace(recipe.tuning, **changes))


def run_search(stage: Stage, drift: Drift, trials: int = 6) -> list:
    cases = [make_case(stage, seed) for seed in stage.recipe.tuning.seeds]
    return search(drift, drift.space(10), trials, cases)


def test_a_search_begins_with_the_methods_own_settings_and_finds_better_ones(tmp_path) -> None:
    log = run_search(drifting(tmp_path, Drift()), Drift())
    assert [trial["number"] for trial in log] == list(range(6))
    assert log[0]["settings"] == {"by": 0.5, "fate": "go"}
    best = study_from(log)
    values = [trial["value"] for trial in log if trial["value"] is not None]
    assert best.value == min(values) <= log[0]["value"]
    assert best.best in [trial["settings"] for trial in log]


@pytest.mark.parametrize(("begin", "first"), [("defaults", 0.05), ("recipe", 0.02)])
def test_a_search_begins_with_the_defaults_unless_the_recipe_is_asked_for(begin, first, tmp_path) -> None:
    recipe = tuned_so(tiny(methods={"neggrad+": {"how": {"lr": 0.02}}}), begin=begin, trials=1)
    method = recipe.methods["neggrad+"]
    assert isinstance(method, Tunable) and first in (0.02, recipe.default_method("neggrad+").how.lr)
    stage = Stage(recipe, tmp_path)
    study = tune.study((stage,), "neggrad+", 1)
    assert study.trials[0]["settings"]["how.lr"] == first


def test_a_search_is_the_same_whatever_an_earlier_one_has_left_in_the_recipe(tmp_path) -> None:
    logs = []
    for lr in (0.02, 0.3):
        recipe = tuned_so(tiny(methods={"neggrad+": {"how": {"lr": lr}}}), trials=3)
        study = tune.study((Stage(recipe, tmp_path / str(lr)),), "neggrad+", 3)
        logs.append([(trial["settings"], trial["value"]) for trial in study.trials])
    assert logs[0] == logs[1]


def test_a_search_at_a_larger_budget_begins_with_the_best_of_the_smaller_one(tmp_path) -> None:
    recipe = tuned_so(tiny(), budgets=(0.2, 0.4), trials=3)
    small, large = Stage(recipe, tmp_path).split_by_budget()
    small_search = tune.study((small,), "finetune", 3)
    large_search = tune.study((large,), "finetune", 3, smaller=small_search)
    first_trial, first, second, *_ = large_search.trials
    assert first_trial == {**small_search.best_trial, "budget": 0.2} and len(large_search.trials) == 4
    assert first["settings"] == small_search.trials[0]["settings"], "the defaults come first at every budget"
    assert second["settings"]["how.lr"] == small_search.best["how.lr"]
    assert second["settings"]["how.steps"] == 2 * small_search.best["how.steps"]
    assert large_search.value <= small_search.value
    failed_search = tune.study((large,), "finetune", 3, smaller=dataclasses.replace(small_search, trials=[]))
    assert len(failed_search.trials) == 3, "a search whose trials all failed leaves nothing"


def test_a_method_as_long_as_its_budget_begins_with_the_settings_alone_of_the_smaller_one(tmp_path) -> None:
    recipe = tuned_so(tiny(), budgets=(0.2, 0.4), trials=2, seeds=(1000,))
    small, large = Stage(recipe, tmp_path).split_by_budget()
    small_search = tune.study((small,), "short-retrain", 2)
    large_search = tune.study((large,), "short-retrain", 2, smaller=small_search)
    assert [trial["gradient_evaluations"] for trial in large_search.trials] == [16, 16], "none of 8 steps"
    assert large_search.trials[1]["settings"]["how.lr"] == small_search.best["how.lr"]


def test_settings_that_a_larger_budget_does_not_allow_are_drawn_anew() -> None:
    trial = {"budget": 0.1, "settings": {"how.steps": 40, "recover.budget": 100, "forget": "gone", "lr": 0.3}}
    space = {
        "how.steps": Whole(10, 60),
        "recover.budget": Choice((300,)),
        "forget": Choice(("ascent",)),
        "lr": Log(0.1, 1),
    }
    assert tune.stretch(trial, 0.3, space) == {"recover.budget": 300, "lr": 0.3}


def test_a_value_is_the_mean_gap_the_excess_of_total_variation_and_the_auc(tmp_path) -> None:
    stage, drift = drifting(tmp_path, Drift()), Drift()
    assert make_case(stage, 1000).floor > 0
    case_ = dataclasses.replace(make_case(stage, 1000), floor=0.1)
    trial = run_trial(drift, {"by": 0.0}, [case_])
    forget = stage.exam(1000).answers(case_.original).logits["forget"]
    shares = [torch.tensor(each).softmax(-1) for each in (forget, case_.retrained.logits["forget"])]
    tv = float((shares[0] - shares[1]).abs().sum(-1).mean() / 2)
    parts = trial["parts"]
    assert parts["tv"] == pytest.approx(tv, rel=1e-5)
    assert parts["excess"] == pytest.approx(tv - 0.1, rel=1e-5) and tv > 0.1
    assert trial["value"] == pytest.approx(parts["gap"] + 25 * parts["excess"] + 25 * parts["auc"])
    trial_within = run_trial(drift, {"by": 0.0}, [dataclasses.replace(case_, floor=1.0)])
    assert trial_within["parts"]["excess"] == 0 and trial_within["parts"]["tv"] == parts["tv"]
    own_auc = stage.exam(1000).answers(case_.original)
    auc_distance = abs(measure(own_auc, on="calibration")["auc"] - case_.retrained_metrics["auc"])
    assert parts["auc"] == pytest.approx(auc_distance)
    assert trial["failed"] is None and trial["gradient_evaluations"] == 0


def test_the_same_search_twice_tries_the_same(tmp_path) -> None:
    first, second = (run_search(drifting(tmp_path, Drift()), Drift()) for _ in range(2))
    assert [(t["settings"], t["value"]) for t in first] == [(t["settings"], t["value"]) for t in second]


def test_a_hopeless_trial_is_given_up_and_marked(tmp_path) -> None:
    stage = drifting(tmp_path, Drift())
    cases, reports = [make_case(stage, seed) for seed in stage.recipe.tuning.seeds], []

    def hopeless(value: float, step: int) -> bool:
        reports.append((value, step))
        return True

    pruned_trial = run_trial(Drift(), {"by": 0.2}, cases, hopeless)
    assert (pruned_trial["value"], pruned_trial["parts"]) == (None, {})
    assert pruned_trial["pruned"] and pruned_trial["failed"] is None
    assert reports == [(run_trial(Drift(), {"by": 0.2}, cases[:1])["value"], 0)], "after the first seed"
    trial = run_trial(Drift(), {"by": 0.2}, cases[:1], hopeless)
    assert trial["value"] is not None and not trial["pruned"], "after the last there is nothing to spare"


def test_no_trial_is_given_up_before_five_went_through_and_later_the_worse_ones_are(tmp_path) -> None:
    log = run_search(drifting(tmp_path, Drift()), Drift(), 14)
    numbers = [trial["number"] for trial in log if trial["pruned"]]
    assert numbers and min(numbers) >= 5
    assert all((trial["value"] is None) == trial["pruned"] for trial in log)


def test_a_stopped_search_goes_on_and_finds_the_same(tmp_path, monkeypatch) -> None:
    original_trial = searches.run_trial
    calls: list[int] = []

    def stops(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original_trial(*arguments)

    def tuned_in(folder: str) -> list:
        (study,) = tune_stage(
            drifting(tmp_path / folder, Drift()), ["finetune"], 4, run_serially, lambda progress: None
        ).values()
        return [{**trial, "seconds": None} for trial in study.trials]

    log = tuned_in("whole")
    monkeypatch.setattr(searches, "run_trial", stops)
    with pytest.raises(KeyboardInterrupt):
        tuned_in("stopped")
    assert tuned_in("stopped") == log and len(calls) == 4 + 1


def test_from_a_hundred_trials_on_the_benchmarks_four_objectives_are_minimised(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(searches, "MANY", 8)
    monkeypatch.setattr(searches, "POPULATION", 3)
    stage = drifting(tmp_path, Drift())
    log, second_log = run_search(stage, Drift(), 8), run_search(stage, Drift(), 8)
    assert [trial["settings"] for trial in log] == [trial["settings"] for trial in second_log]
    assert not any(trial["pruned"] for trial in log) and log[0]["settings"]["by"] == 0.5
    for trial in log:
        assert trial["objectives"].keys() == {"ra", "ua", "ta", "discernibility"}
        assert trial["value"] == pytest.approx(np.linalg.norm(list(trial["objectives"].values())))
    assert study_from(log).value == min(trial["value"] for trial in log)
    case_ = make_case(stage, 1000)
    evidence = stage.exam(1000).answers(case_.original)
    distances = run_trial(Drift(), {"by": 0.0}, [case_], many=True)["objectives"]
    ours = measure(evidence, on="calibration")
    for name in ("ra", "ua", "ta"):
        assert distances[name] == pytest.approx(abs(ours[name] - case_.retrained_metrics[name]) / 100 / 3)
    losses = [loss(evidence.logits[part], evidence.labels[part]) for part in ("forget", "calibration")]
    assert distances["discernibility"] == pytest.approx(1 - indiscernibility(*losses))


def test_machines_share_the_trials_of_one_database_and_each_has_its_own_folder(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'trials.sqlite'}"
    stages_ = [Stage(with_drift(Drift()), tmp_path / name, storage=url) for name in ("one", "two")]
    first, second = (tune.study((each,), "finetune", 2) for each in stages_)
    assert first == second and all(trial["seconds"] > 0 for trial in first.trials), "the second made none"
    assert not list(tmp_path.rglob("*.journal"))


@pytest.mark.parametrize("against", ["proxy", "retrain"])
def test_no_trial_sees_the_test_part(tmp_path, monkeypatch, against) -> None:
    stage = Stage(tuned_so(with_drift(Drift()), against=against), tmp_path)
    log = run_search(stage, Drift(), 3)
    split = stage.split()
    held_out = split.held_out
    assert isinstance(held_out, Resident)
    inputs = held_out.inputs.clone()
    inputs[split.test] = float("nan")
    blind_split = Split(split.train, split.forget, dataclasses.replace(held_out, inputs=inputs),
                        calibration=split.calibration.tolist())  # fmt: skip
    monkeypatch.setattr(stages, "make_split", lambda *_, **__: blind_split)
    monkeypatch.setattr(stages, "_splits", {})
    monkeypatch.setattr(stages, "_exams", {})
    second_log = run_search(stage, Drift(), 3)
    assert all(stage.split(seed).held_out is blind_split.held_out for seed in stage.recipe.tuning.seeds)
    assert [trial["value"] for trial in second_log] == [trial["value"] for trial in log]
    assert all(trial["failed"] is None for trial in log)
    with pytest.raises(Failed, match="NaN"):  # who looks at the test part finds nothing there
        stage.exam().answers(make_case(stage, 1000).original)


def test_against_retrain_a_tuning_seed_is_the_request_trained_anew(tmp_path) -> None:
    stage = Stage(tuned_so(tiny(), against="retrain"), tmp_path)
    assert stage.split(1000).digest() == stage.split().digest()


def test_a_proxy_is_drawn_from_what_the_request_retains(tmp_path) -> None:
    stage = Stage(tiny(), tmp_path)
    request, proxies = stage.split(), [stage.split(seed) for seed in (1000, 1001)]
    for each in proxies:
        assert each.digest("mixed") == request.digest("mixed"), "the original is one of everything"
        assert torch.equal(each.test, request.test) and torch.equal(each.calibration, request.calibration)
        assert len(each.forget) == len(request.forget)
        assert not set(each.forget.tolist()) & set(request.forget.tolist())
    assert not torch.equal(proxies[0].forget, proxies[1].forget)


@pytest.mark.parametrize("against", ["proxy", "retrain"])
def test_a_stratum_keeps_classes_labels_and_the_request_apart(tmp_path, against) -> None:
    stage = Stage(tuned_so(tiny(), limit=150, against=against), tmp_path)
    request, practice = stage.split(), stage.split(1000)
    inputs, part = request.train.source.inputs, practice.train.source.inputs
    positions = [int((inputs == row).all(dim=1).nonzero()[0, 0]) for row in part]
    assert len(positions) == len(practice.train) == 150 and positions == sorted(positions)
    assert torch.equal(practice.train.labels, request.train.labels[positions]), "wrong labels as well"
    counts = [each.labels.bincount(minlength=10) for each in (request.train, practice.train)]
    assert (counts[0] / 2 - counts[1]).abs().max() <= 1
    assert torch.equal(practice.calibration, request.calibration) and torch.equal(practice.test, request.test)
    overlap = {positions[position] for position in practice.forget.tolist()} & set(request.forget.tolist())
    if against == "proxy":
        assert len(practice.forget) == 15 and not overlap
    else:
        assert overlap == set(positions) & set(request.forget.tolist()) and len(overlap) == len(
            practice.forget
        )


def test_a_stratum_without_anything_of_the_request_is_refused(tmp_path) -> None:
    data = {"name": "digits", "limit": 300, "forget": "ids", "ids": [3]}
    stage = Stage(tuned_so(tiny(data=data), limit=12, against="retrain"), tmp_path)
    with pytest.raises(ValueError, match="tuning.limit = 12 keeps nothing of the 1 examples to forget"):
        stage.split(1000)
    assert len(Stage(tuned_so(tiny(data=data), limit=12), tmp_path).split(1000).forget) == 1


def test_steps_alone_grow_with_the_data() -> None:
    settings = {
        "how.steps": 7,
        "recover.budget": 40,
        "forget.proxy.how.steps": 1,
        "how.lr": 0.1,
        "how.epochs": 4,
    }
    scaled_settings = settings | {"how.steps": 21, "recover.budget": 120, "forget.proxy.how.steps": 3}
    assert Study(settings, 1.0, [], scale=3.0).settings == scaled_settings
    assert Study(settings, 1.0, [], scale=0.01).settings["how.steps"] == 1, "some stay some"
    text = as_toml({"lur": Study(settings, 1.0, [{}], scale=3.0)}, (7,))
    assert "how.steps = 21" in text and "value 1.00, with 3 times the steps" in text


def test_settings_of_a_stratum_are_used_on_all_the_data(tmp_path) -> None:
    train = {"lr": 0.2, "epochs": 4, "batch": 30}
    recipe = tuned_so(tiny(train=train, seeds=[0], calibration_seeds=[]), limit=150, seeds=(1000,))
    stage = bench([recipe], tmp_path, methods=["finetune"], jobs=1, tune=3)["stages"]["tiny"]
    # 270 and 135 retained examples in batches of 30: 9 and 5 steps in each of 4 epochs
    assert (stage["tuned"]["limit"], stage["tuned"]["scale"]) == (150, 36 / 20)
    best = study_from(stage["search"]["finetune"]).best
    assert best["how.steps"] <= 10, "within half of a retraining of the stratum"
    settings = stage["recipe"]["methods"]["finetune"]["how"]
    assert settings["steps"] == round(1.8 * best["how.steps"]) and settings["lr"] == best["how.lr"]
    assert stage["data"]["retain"] == 270
    second = bench([recipe], tmp_path / "b", methods=["finetune"], jobs=1, tuned=tmp_path / "tuning")
    assert second["stages"]["tiny"]["recipe"] == stage["recipe"]


def test_no_model_is_retrained_for_the_request_itself_while_tuning_on_proxies(tmp_path, monkeypatch) -> None:
    recipe, trainings = with_drift(Drift()), []
    original_train = train_model

    def remembered(how, build, split, part, seed, **more):
        trainings.append((part, seed, split.digest("retain")))
        return original_train(how, build, split, part, seed, **more)

    monkeypatch.setattr(stages, "train_model", remembered)
    stage = Stage(recipe, tmp_path)
    tune_stage(stage, ["finetune"], 1, run_serially, lambda progress: None)
    request = stage.split().digest("retain")
    assert trainings and all(seed % SECOND in recipe.tuning.seeds for _, seed, _ in trainings)
    assert request not in [digest for part, _, digest in trainings if part == "retain"]


def test_a_proxy_of_a_class_is_another_one_and_consecutive_seeds_take_consecutive_ones(tmp_path) -> None:
    data = {"name": "digits", "limit": 300, "forget": "class", "label": 3}
    stage = Stage(tiny(data=data), tmp_path)
    classes = [stage.split(seed).forgotten_classes for seed in range(2000, 2009)]
    assert sorted(classes) == [(label,) for label in range(10) if label != 3]
    assert (classes[0][0] - classes[1][0]) % 10 in (8, 9)


def test_a_proxy_of_classes_is_as_many_others(tmp_path) -> None:
    data = {"name": "digits", "limit": 300}
    labels = Stage(tiny(data=data), tmp_path).split().train.labels
    ids = [place for place, label in enumerate(labels.tolist()) if label in (3, 4)]
    stage = Stage(tiny(data={**data, "forget": "ids", "ids": ids}), tmp_path)
    class_pairs = [stage.split(seed).forgotten_classes for seed in range(2000, 2004)]
    assert sorted(label for pair in class_pairs for label in pair) == [0, 1, 2, 5, 6, 7, 8, 9]
    part = Stage(tiny(data={**data, "forget": "ids", "ids": ids[1:]}), tmp_path).split(2000)
    assert len(part.forget) == len(ids) - 1 and part.forgotten_classes == ()
    large_ids = [place for place, label in enumerate(labels.tolist()) if label > 3]
    stage = Stage(tiny(data={**data, "forget": "ids", "ids": large_ids}), tmp_path)
    with pytest.raises(ValueError, match="6 to forget and 4 to retain: tune against 'retrain'"):
        stage.split(2000)


def test_a_proxy_of_ids_is_random(tmp_path) -> None:
    stage = Stage(tiny(data={"name": "digits", "limit": 300, "forget": "ids", "ids": [3, 4, 5]}), tmp_path)
    ids = stage.split(1000).forget.tolist()
    assert len(ids) == 3 and not {3, 4, 5} & set(ids)


def test_what_stays_must_hold_a_proxy(tmp_path) -> None:
    data = {"name": "digits", "limit": 300, "fraction": 0.6}
    stage = Stage(tiny(data=data), tmp_path)
    with pytest.raises(ValueError, match="180 examples to forget and 120 to retain: tune against 'retrain'"):
        tune_stage(stage, ["finetune"], 1, run_serially, lambda progress: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("fate", "reason"), [("stop", "never works"), ("nan", "NaN")])
def test_a_method_that_fails_is_logged_and_keeps_its_own_settings(tmp_path, fate: str, reason: str) -> None:
    log = run_search(drifting(tmp_path, Drift(fate=fate)), Drift(fate=fate), 2)
    assert all(trial["value"] is None and reason in trial["failed"] for trial in log)
    study = study_from(log)
    assert study.best == {} and np.isnan(study.value)
    recipe = with_drift(Drift(fate=fate))
    assert with_best_settings(recipe, {"finetune": study}) == recipe


def test_all_methods_of_a_stage_are_searched_on_the_same_cases(tmp_path, monkeypatch) -> None:
    stage, seeds = Stage(tiny(), tmp_path), []
    monkeypatch.setattr(tune, "make_case", lambda *case: seeds.append(case[1]) or make_case(*case))
    for name in ("neggrad+", "finetune"):
        tune.study((stage,), name, 1)
    assert seeds == list(stage.recipe.tuning.seeds)


def test_every_method_gets_as_many_trials_and_a_search_is_read_again(tmp_path, monkeypatch) -> None:
    recipe = tuned_so(tiny(), seeds=(1000,))
    names = ("lur", "lur:recover", "finetune", "short-retrain", "original", "retrain")
    progress: list = []
    studies = tune_stage(Stage(recipe, tmp_path), names, 2, run_serially, progress.append)
    assert list(studies) == ["lur", "lur:recover", "finetune", "short-retrain"]
    assert {len(study.trials) for study in studies.values()} == {2}
    assert {trial["gradient_evaluations"] for trial in studies["short-retrain"].trials} == {20}
    monkeypatch.setattr(tune, "search", None)
    assert tune_stage(Stage(recipe, tmp_path), names, 2, run_serially, progress.append) == studies
    text = tomllib.loads((tmp_path / "tuning" / "tiny.toml").read_text())["methods"]
    for name in ("lur", "lur:recover"):
        assert configure(recipe.method(name), text[name]) == with_best_settings(recipe, studies).methods[name]


@pytest.mark.parametrize("number", ["SEARCHING_FORMAT", "MEASURING_FORMAT"])
def test_under_a_raised_number_a_search_is_made_again(tmp_path, monkeypatch, number) -> None:
    stage = drifting(tmp_path, Drift())
    study = tune.study((stage,), "finetune", 2, {})
    monkeypatch.setattr(tune, "search", lambda *_, **__: study.trials[:1])
    assert len(tune.study((stage,), "finetune", 2, {}).trials) == 2
    monkeypatch.setattr(tune, number, getattr(tune, number) + 1)
    assert len(tune.study((stage,), "finetune", 2, {}).trials) == 1


def test_tuned_settings_are_the_reported_ones_and_the_log_is_in_the_record(tmp_path) -> None:
    stage = bench([with_drift(Drift())], tmp_path, methods=["finetune"], jobs=1, tune=3)["stages"]["tiny"]
    assert stage["tuned"] == {"against": "proxy", "seeds": [1000, 1001], "budget": 0.5, "limit": None,
                              "scale": 1.0, "trials": 3, "retraining": 40}  # fmt: skip
    best = study_from(stage["search"]["finetune"])
    assert stage["methods"]["finetune"]["repr"] == repr(Drift(**best.best))
    assert stage["recipe"]["methods"]["finetune"] == dataclasses.asdict(Drift(**best.best))


def test_an_earlier_search_is_used_instead_of_a_new_one(tmp_path, monkeypatch) -> None:
    first = bench([with_drift(Drift())], tmp_path / "a", methods=["finetune"], jobs=1, tune=2)["stages"][
        "tiny"
    ]
    monkeypatch.setattr(tune, "search", None)
    folder = tmp_path / "a" / "tuning"
    second = bench([with_drift(Drift())], tmp_path / "b", methods=["finetune"], jobs=1, tuned=folder)[
        "stages"
    ]["tiny"]
    assert second["search"] == first["search"]
    assert second["methods"]["finetune"]["repr"] == first["methods"]["finetune"]["repr"]
    with pytest.raises(ValueError, match="has no searches for the stage 'tiny' of finetune: tune it first"):
        bench([tiny()], tmp_path / "c", methods=["finetune"], jobs=1, tuned=tmp_path)


def test_the_budget_is_known_before_anything_is_trained(tmp_path) -> None:
    for train in ({"steps": 40}, {"epochs": 1.6}):
        recipe = tiny(train={"lr": 0.2, "batch": 64, **train})
        stage = Stage(recipe, tmp_path)
        assert evaluations(recipe.train, stage.split(1000)) == prepare(stage, 1000)


def test_settings_in_toml_rebuild_the_method() -> None:
    best = {
        "how.lr": 0.0316,
        "how.max_norm": None,
        "how.steps": 12,
        "forget": "bounded",
        "where": None,
        "weight": 0.4,
    }
    text = as_toml({"lur": Study(best, 1.5, [{}] * 20), "ct": Study({}, float("nan"), [])}, (7, 8))
    assert "# tuned: best of 20 trials on seeds 7, 8, value 1.50" in text and "[methods.ct]" not in text
    assert configure(LUR(), tomllib.loads(text)["methods"]["lur"]) == configure(LUR(), nest_paths(best))


@for_each("name", [*METHODS, *OTHERS])
def test_settings_in_toml_do_not_depend_on_defaults(name) -> None:
    searched = tiny().method(name)
    path, value = next(iter(flatten_tables(settings_of(searched)).items()))
    text = as_toml({name: Study({path: value}, 1.0, [], method=searched)}, (1,))
    table = tomllib.loads(text)["methods"][name]
    assert configure(method_named(name), table) == searched
    assert flatten_tables(table).keys() == flatten_tables(settings_of(searched)).keys()


def test_names_with_other_signs_are_quoted_in_toml() -> None:
    text = as_toml({"neggrad+": Study({"how.lr": 0.1}, 1.0, [])}, (1,))
    assert tomllib.loads(text)["methods"]["neggrad+"] == {"how": {"lr": 0.1}}
    text = as_toml({"neggrad+:recover": Study({"neggrad+.how.lr": 0.1, "recover.budget": 9}, 1.0, [])}, (1,))
    settings = tomllib.loads(text)["methods"]["neggrad+:recover"]
    assert settings == {"neggrad+": {"how": {"lr": 0.1}}, "recover": {"budget": 9}}
    assert configure(tiny().method("neggrad+:recover"), settings).stages[0].how.lr == 0.1


def test_a_setting_without_a_value_survives_the_toml_of_a_search() -> None:
    values = {"recover.until": None, "recover.budget": 9, "lur.how.max_norm": None}
    settings = tomllib.loads(as_toml({"lur:recover": Study(values, 1.0, [])}, (1,)))["methods"]["lur:recover"]
    lur, recover = configure(method_named("lur:recover"), settings).stages
    assert recover.until is None and recover.budget == 9 and lur.how.max_norm is None


@for_each("choices", [Log(0.01, 0.4), Uniform(0.0, 0.3), Whole(1, 50), Choice(("a", None, 2))])
def test_what_is_drawn_from_a_range_lies_in_it(choices) -> None:
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = [study.ask({"x": distribution(choices)}).params["x"] for _ in range(40)]
    assert all(in_range(choices, value) for value in values) and len(set(values)) > 2
    assert not in_range(choices, 1e9) and not in_range(choices, "b")


def test_what_others_leave_of_a_budget_is_worked_out() -> None:
    assert Rest(100, {"a": 3, "b": 1}).remaining({"a": 20, "b": 7, "c": 9}) == 33
    assert Rest(100, {"a": 3}).remaining({"a": 40}) == 0


@pytest.mark.parametrize("name", ["lur:recover", "lur-exact:recover", "joint:recover", "salun:recover"])
def test_a_recovery_spends_what_the_stages_before_it_leave_of_the_budget(tmp_path, name) -> None:
    stage = Stage(tiny(), tmp_path)
    method = stage.recipe.method(name)
    assert isinstance(method, Tunable)
    log = search(method, method.space(60), 3, [make_case(stage, 1000)])
    assert all(trial["settings"]["recover.until"] is None for trial in log)
    assert {trial["gradient_evaluations"] for trial in log} == {60}


@for_each(
    ("kind", "values"),
    [(Log, (0.0, 1.0)), (Log, (2.0, 1.0)), (Uniform, (1.0, 1.0)), (Whole, (0, 3)), (Choice, ((),))],
)
def test_a_range_without_room_is_refused(kind, values) -> None:
    with pytest.raises(ValueError, match="found|needs"):
        kind(*values)


@for_each("name", [*METHODS, *OTHERS])
def test_every_tunable_method_names_fields_that_it_has_and_keeps_to_its_budget(name) -> None:
    method = tiny().method(name)
    assert isinstance(method, Tunable)
    space = method.space(200)
    ranges = {path: each for path, each in space.items() if not isinstance(each, Rest)}
    highest = {
        path: each.values[-1] if isinstance(each, Choice) else each.high for path, each in ranges.items()
    }
    highest |= {path: each.remaining(highest) for path, each in space.items() if isinstance(each, Rest)}
    configure(method, nest_paths(highest), name)
    assert set(default_settings(method, space)) <= set(space)
    steps = [value for path, value in highest.items() if path.endswith((".steps", "how.steps"))]
    assert sum(steps) <= 200
