"""A stage whose original is given: what its cells and its searches depend on, and what they practise on."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import projects
from unweave.bench.search import SECOND
from unweave.bench.study import evaluations
from unweave.bench.tune import tune_stage
from unweave.bench.workers import run_serially
from unweave.cli.project import place
from unweave.cli.project import stage as given
from unweave.cli.project.place import Place
from unweave.cli.project.stage import UserModelStage, stage_of
from unweave.descent.descend import Descent
from unweave.errors import Failed
from unweave.methods.simple import FromScratch

READ = """
def load():
    model = Net()
    model.load_state_dict(torch.load(__file__ + ".pt", weights_only=True))
    return given(model=model)
"""


@pytest.fixture
def reading(tmp_path: Path) -> Path:
    """A project whose original lies in a file."""
    path = Path(projects.project(tmp_path / "mine", READ))
    write(path, 0.0)
    return path


def write(path: Path, bias: float) -> None:
    """Writes an original's weights."""
    first, last = nn.Linear(8, 32), nn.Linear(32, 3)
    nn.init.constant_(last.bias, bias)
    state = {"first": first.state_dict(), "last": last.state_dict()}
    torch.save({f"{name}.{key}": each for name in state for key, each in state[name].items()}, f"{path}.pt")


def stage(path: Path, forget: tuple[int, ...] = (1, 2, 3)) -> UserModelStage:
    """The stage in a new process."""
    for cached_loader in (place.load_project, place.load_split, place.weights_digest, place.load_proxy_split):
        cached_loader.cache_clear()
    return stage_of(Place(str(path), None, None), forget, path.parent / "run", "cpu")


def test_other_weights_are_another_original_and_the_retrained_models_stay(reading):
    first = stage(reading)
    facts, model = first.facts(), first.load_or_train("retain", 0).model
    write(reading, 1.0)
    second = stage(reading)
    assert second.facts() != facts and second.facts()["sha256"] == facts["sha256"]
    stored_model = second.load_or_train("retain", 0).model
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), stored_model.parameters(), strict=True))
    assert len(list((reading.parent / "run" / "models").iterdir())) == 1


def test_under_a_raised_number_a_retrained_model_is_made_again(reading, monkeypatch):
    stage(reading).load_or_train("retain", 0)
    monkeypatch.setattr(given, "TRAINING_FORMAT", given.TRAINING_FORMAT + 1)
    stage(reading).load_or_train("retain", 0)
    assert len(list((reading.parent / "run" / "models").iterdir())) == 2


def tuned_stage(path: Path, forget: tuple[int, ...] = (1, 2, 3), **changes: object) -> UserModelStage:
    """The stage with other tuning."""
    user_stage = stage(path, forget)
    tuning = dataclasses.replace(user_stage.recipe.tuning, **changes)
    return dataclasses.replace(user_stage, recipe=dataclasses.replace(user_stage.recipe, tuning=tuning))


def of_class(path: Path, *labels: int) -> tuple[int, ...]:
    """The positions of all of some classes."""
    train = stage(path).split().train.labels
    return tuple(place for place, label in enumerate(train.tolist()) if label in labels)


def test_no_model_is_retrained_for_the_request_itself_while_tuning_on_proxies(reading, monkeypatch):
    user_stage, retrainings = stage(reading), []
    project = place.load_project(user_stage.place, "cpu")

    def remembered(split, seed):
        retrainings.append((split.digest("retain"), seed))
        return project.retrain(split, seed)

    monkeypatch.setattr(given, "load_project", lambda *_: dataclasses.replace(project, retrain=remembered))
    studies = tune_stage(
        user_stage.with_retraining_cost(), ["finetune"], 1, run_serially, lambda progress: None
    )
    assert studies["finetune"].best
    assert user_stage.split().digest("retain") not in [digest for digest, _ in retrainings]
    assert sorted(seed for _, seed in retrainings) == [1000, 1001, SECOND + 1000, SECOND + 1001]
    assert not set(user_stage.split(1000).forget.tolist()) & {1, 2, 3}
    digests = [user_stage.split(seed).digest("mixed") for seed in (None, 1000)]
    assert digests[0] == digests[1], "the original has seen the proxy too"


def test_the_steps_of_ones_own_training_are_what_a_budget_is_a_part_of(reading):
    user_stage = stage(reading)
    assert evaluations(user_stage.with_retraining_cost().recipe.train, user_stage.split()) == 25 * 3
    assert user_stage.with_retraining_cost(user_stage.folder / "tuning") == user_stage.with_retraining_cost()
    (user_stage.folder / "tuning" / "project" / "retraining.json").write_text("{}")
    with pytest.raises(ValueError, match="does not hold the cost of a retraining: tune it again"):
        user_stage.with_retraining_cost(user_stage.folder / "tuning")
    with pytest.raises(ValueError, match="nowhere has no searches for the stage 'project'"):
        user_stage.with_retraining_cost(Path("nowhere"))


def test_what_is_forgotten_is_a_class_or_positions(reading):
    data = stage(reading, of_class(reading, 2)).recipe.data
    assert (data.forget, data.label) == ("class", 2)
    part = of_class(reading, 2)[1:]
    data = stage(reading, part).recipe.data
    assert (data.forget, data.ids) == ("ids", part)
    assert stage(reading, of_class(reading, 2)).split(1000).forgotten_classes in ((0,), (1,))
    assert stage(reading, part).split(1000).forgotten_classes == ()


def test_a_search_begins_with_the_methods_as_they_are_set(reading):
    user_stage, short_retrain = stage(reading).with_retraining_cost(), FromScratch(Descent(lr=0.3, steps=3))
    recipe = dataclasses.replace(user_stage.recipe, methods={"short-retrain": short_retrain})
    user_stage = dataclasses.replace(user_stage, recipe=recipe)
    studies = tune_stage(user_stage, ["short-retrain"], 1, run_serially, lambda progress: None)
    assert studies["short-retrain"].trials[0]["settings"]["how.lr"] == 0.3


def test_proxies_of_an_original_that_has_forgotten_before_are_refused(reading, monkeypatch):
    project = dataclasses.replace(place.load_project(stage(reading).place, "cpu"), forgotten_classes=(2,))
    monkeypatch.setattr(given, "load_project", lambda *_: project)
    with pytest.raises(ValueError, match="would learn class 2.*tune --against retrain"):
        tuned_stage(reading).refuse_unsearchable()
    tuned_stage(reading, against="retrain").refuse_unsearchable()


def test_an_original_of_all_the_data_is_not_compared_on_a_part(reading):
    with pytest.raises(ValueError, match="limit = 60: remove it"):
        tuned_stage(reading, limit=60).refuse_unsearchable()


ITSELF = """
again, ours = train, train(Records(90, 0), 0)


def load():
    return given(model=ours)


def train(dataset, seed):
    ours.load_state_dict(again(dataset, seed).state_dict())
    return copy.deepcopy(ours)
"""


def test_a_training_of_the_original_itself_is_refused(tmp_path):
    path = Path(projects.project(tmp_path / "mine", f"import copy\n{ITSELF}"))
    with pytest.raises(Failed, match=r"must leave the model alone that load\(\) returned, and changed"):
        stage(path).load_or_train("retain", 0)
    assert not (path.parent / "run" / "models").exists()
