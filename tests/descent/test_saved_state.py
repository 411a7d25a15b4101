"""An interrupted training goes on from the state that it kept, and ends in the bits of one that was not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import every_family
from bench.tiny import tiny
from unweave.bench.stage import Stage
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.train import STATE, TrainedModel, train_model
from unweave.split import Split
from unweave.tasks import Task
from unweave.weights.state_folder import States

STEPS, EVERY = 23, 5
SETTINGS = {
    "momentum": Descent(lr=0.1, steps=STEPS, batch=16, weight_decay=0.01, max_norm=0.5),
    "average and schedule": Descent(
        lr=0.01, steps=STEPS, batch=16, optimizer="adam", ema=0.9, schedule="cosine", warmup=0.2
    ),
    "rows and columns": Descent(lr=0.1, steps=STEPS, batch=16, optimizer="adafactor"),
    "dropout": Descent(lr=0.1, steps=STEPS, batch=16, dropout="same"),
}


class Interrupted(Exception):
    """Ctrl-C."""


def classifier() -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    return nn.Sequential(*layers)


def images() -> Split:
    """Images that are cropped and mirrored at random."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (60, 3, 4, 4), generator=generator).byte()
    labels = torch.randint(3, (60,), generator=generator)
    train = Resident(pixels[:40], labels[:40], crop=1, flip=True)
    return Split(train, list(range(8)), Resident(pixels[40:], labels[40:]))


def counting(build: Callable[[], nn.Module], passes: list[int], *, until: int | None = None):
    """Models that note their forward passes, and are interrupted in one of them."""

    def note(module: nn.Module, inputs: object) -> None:
        if len(passes) == until:
            raise Interrupted
        passes.append(1)

    def make() -> nn.Module:
        model = build()
        model.register_forward_pre_hook(note)
        return model

    return make


def train_saved(
    how: Descent, build: Callable[[], nn.Module], split: Split, cache: Path | None, task: Task | None = None
) -> TrainedModel:
    return train_model(how, build, split, "mixed", 3, task=task, cache=cache, save_every=EVERY)


def same(one: TrainedModel, other: TrainedModel) -> bool:
    left, right = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(left[name], right[name]) for name in right)


@pytest.mark.parametrize("until", [EVERY, 17])
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_ends_in_the_same_bits(setting: str, until: int, tmp_path: Path) -> None:
    how, split = SETTINGS[setting], images()
    full = train_saved(how, classifier, split, None)
    with pytest.raises(Interrupted):
        train_saved(how, counting(classifier, [], until=until), split, tmp_path)
    passes: list[int] = []
    resumed = train_saved(how, counting(classifier, passes), split, tmp_path)
    assert same(resumed, full) and len(passes) == STEPS - until // EVERY * EVERY
    assert replace(resumed.cost, seconds=0) == replace(full.cost, seconds=0)
    assert not list(tmp_path.rglob(STATE))


def test_a_denoiser_interrupted_twice(tmp_path: Path) -> None:
    how, split, task = (
        SETTINGS["average and schedule"],
        every_family.split("denoiser"),
        every_family.task("denoiser"),
    )
    full = train_saved(how, every_family.Denoiser, split, None, task)
    for until in (8, 9):
        with pytest.raises(Interrupted):
            train_saved(how, counting(every_family.Denoiser, [], until=until), split, tmp_path, task)
    assert same(train_saved(how, every_family.Denoiser, split, tmp_path, task), full)


def test_a_state_of_other_settings_or_data_is_not_used(tmp_path: Path) -> None:
    how, split = SETTINGS["momentum"], images()
    with pytest.raises(Interrupted):
        train_saved(how, counting(classifier, [], until=17), split, tmp_path)
    smaller_split = Split(Resident(split.train.inputs[1:], split.train.labels[1:]), [0], split.held_out)
    for settings, data in ((replace(how, lr=0.2), split), (how, smaller_split)):
        passes: list[int] = []
        model = train_saved(settings, counting(classifier, passes), data, tmp_path)
        assert len(passes) == STEPS and same(model, train_saved(settings, classifier, data, None))
    assert len(list(tmp_path.rglob(STATE))) == 1


def test_nothing_is_written_unless_it_is_asked_for(tmp_path: Path) -> None:
    make = counting(classifier, [], until=17)
    with pytest.raises(Interrupted):
        train_model(SETTINGS["momentum"], make, images(), "mixed", 3, cache=tmp_path)
    assert not list(tmp_path.rglob(STATE))


def test_a_recipe_says_how_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int | None] = []
    monkeypatch.setattr(States, "write", lambda self, number, step, *rest: steps.append(step))
    Stage(replace(tiny(), save_every=15), tmp_path).load_or_train("retain", 0)
    assert steps == [15, 30, None]
