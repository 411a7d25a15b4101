"""Another family is a task, an exam, a family and one entry of the registry: here, regressions."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unweave
from unweave.audits.exam import Exam, Glance
from unweave.audits.margins import Margins, margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.verdict import Judgement, judge
from unweave.bench.bench import bench
from unweave.bench.recipe import parse
from unweave.data.datasets import load
from unweave.descent.descend import Descent
from unweave.families import DEFAULT_FAMILY, FAMILIES, family_of_stage, read_family
from unweave.families.family import Family
from unweave.methods.simple import FineTune
from unweave.split import Split
from unweave.tasks import Batch, evaluating

PACKAGE = Path(unweave.__file__).parent
HALF = 32


@dataclass(frozen=True)
class Completing:
    """The task: the mean of the lower half of a picture from its upper half; the digit is only a label."""

    family: ClassVar[str] = "regression"
    power: float = 2.0

    def draw(self, raw, generator) -> Batch:
        upper, lower = raw.inputs[0].split(HALF, dim=1)
        target = lower.mean(1, keepdim=True)
        return Batch(raw.ids, (upper,), target, target.flip(0))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().pow(self.power).mean(1)

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return self.loss(output, reference)

    def mislabel(self, batch: Batch, predict) -> Tensor:
        return batch.other


@dataclass(frozen=True)
class Errors(Exam[np.ndarray]):
    """The exam: one metric, the mean absolute error on the forget set."""

    split: Split
    metrics: ClassVar[Mapping[str, Metric[Any]]] = {
        "error": Metric(
            id="error",
            title="Error on F",
            unit="",
            direction="match",
            says="How far the answers are from the truth.",
            cannot="Whether the rest is known.",
            below="under-forgetting",
            above="over-forgetting",
            of_one=lambda found: float(np.abs(found).mean()),
            primary=True,
            floor=0.01,
            points=100.0,
        )
    }
    distance: ClassVar[str] = "error"
    suffix: ClassVar[str] = "npy"
    glances: ClassVar[Sequence[Glance]] = (Glance("error", "Error", 3),)

    @torch.no_grad()
    def answers(self, model: nn.Module) -> np.ndarray:
        source, ids = self.split.part("forget")
        (raw,) = source.stream([ids])
        batch = Completing().draw(raw, None)
        with evaluating(model):
            return (model(*batch.inputs) - batch.target).numpy()

    def fingerprint(self, outputs: np.ndarray) -> str:
        return hashlib.sha256(outputs.tobytes()).hexdigest()

    def save(self, outputs: np.ndarray, path: Path) -> None:
        np.save(path, outputs)

    def load(self, path: Path) -> np.ndarray:
        return np.load(path)

    def measure(self, outputs: np.ndarray, reference: np.ndarray | None = None) -> dict[str, float]:
        return {"error": float(np.abs(outputs).mean())}

    def measure_pair(self, outputs: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        return {}

    @property
    def sizes(self) -> dict[str, int]:
        return {"forget": len(self.split.forget)}

    def calibrate(self, outputs: Sequence[np.ndarray], probes: Sequence[Values]) -> Margins:
        own_values = [self.measure(each) for each in outputs]
        pairs: list[Values] = [{} for _ in combinations(outputs, 2)]
        return margins(own_values, pairs, sizes=self.sizes, metrics=self.metrics)

    def judge(
        self,
        values: Sequence[Values],
        references: Sequence[Values],
        margins: Margins | None,
        original: Sequence[Values],
        answers: Callable[[], Sequence[np.ndarray]],
    ) -> Judgement:
        return judge(values, references, margins, original=original, metrics=self.metrics)

    def score_trial(self, values: Values, retrained_values: Values, floor: float) -> dict[str, float]:
        return {"value": abs(values["error"] - retrained_values["error"])}

    def objectives(self, outputs: np.ndarray, values: Values, retrained_values: Values) -> dict[str, float]:
        return self.score_trial(values, retrained_values, 0.0)


@dataclass(frozen=True)
class Regression(Family):
    """The family, with one setting."""

    name: ClassVar[str] = Completing.family
    noun: ClassVar[str] = "regression"
    table: ClassVar[str | None] = "regression"
    metrics: ClassVar[Mapping[str, Metric[Any]]] = Errors.metrics
    power: float = 2.0

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        return nn.Sequential(nn.Linear(HALF, settings["hidden"]), nn.Tanh(), nn.Linear(settings["hidden"], 1))

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Completing:
        return Completing(self.power)

    def refuse_unfit(self, model, data, name, n_classes) -> None:
        pass

    def default_forget_set(self, data, seed: int) -> Tensor:
        return torch.arange(10)

    def exam(self, split: Split, *, device=None, searching: bool = False, cache=None) -> Errors:
        return Errors(split)


RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits", "limit": 300},
    "model": {"name": "two-layers", "settings": {"hidden": 8}},
    "regression": {"power": 1.5},
    "train": {"lr": 0.1, "steps": 20, "batch": 64},
    "seeds": [0],
    "calibration_seeds": [],
    "methods": {"finetune": {"how": {"steps": 4}}},
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one entry of the registry."""
    monkeypatch.setitem(FAMILIES, Regression.name, Regression())


def test_another_family_is_unlearned_and_audited_by_its_own_exam() -> None:
    train, test = load("digits", limit=200)
    split, family = Split(train, torch.arange(20), test), Regression()
    model = family.build("two-layers", 10, {"hidden": 8})
    method = FineTune(Descent(lr=0.1, steps=3))
    result = unweave.unlearn(model, split, method, task=family.task(10))
    audit = unweave.audit(result)
    assert isinstance(audit.exam, Errors) and audit.verdict == "INCONCLUSIVE"
    assert audit.scores.keys() == {"error"} and audit.scores["error"].value > 0
    assert "Error on F" in str(audit) and audit.record["stages"]["audit"]["family"] == "regression"
    with pytest.raises(ValueError, match="for models of the family classifier, found regression"):
        unweave.unlearn(model, split, unweave.METHODS["scrub"], task=family.task(10))


def test_a_recipe_of_another_family_runs_from_its_own_table(tmp_path: Path) -> None:
    recipe = parse(RECIPE)
    assert recipe.family == Regression(power=1.5) and recipe.table()["generation"] is None
    assert parse(recipe.table()) == recipe
    stage = bench([recipe], tmp_path, methods=("finetune",), jobs=1)["stages"]["tiny"]
    assert stage["family"] == "regression" and stage["recipe"]["regression"] == {"power": 1.5}
    assert stage["methods"].keys() == {"finetune", "original"}
    assert stage["methods"]["finetune"]["scores"].keys() == stage["reference"]["scores"].keys() == {"error"}
    assert list((tmp_path / "cells").rglob("finetune.npy"))


def test_a_stage_is_of_the_family_that_it_names_and_an_earlier_one_of_that_with_most_of_its_metrics() -> None:
    def stage(*metrics: str, **fields: str) -> dict[str, Any]:
        return {**fields, "reference": {"scores": {}}, "methods": {"lur": {"scores": dict.fromkeys(metrics)}}}

    assert family_of_stage(stage("error", family="diffusion")) is FAMILIES["diffusion"]
    assert family_of_stage(stage("ua", "ra", "kid")) is FAMILIES["diffusion"]
    assert family_of_stage(stage("error")) is FAMILIES["regression"]
    assert family_of_stage(stage("ua", "ra", "ta", family="regression")) is FAMILIES["regression"]
    assert family_of_stage(stage("ua", "ra", "ta", family="unknown")) is DEFAULT_FAMILY


def test_a_task_of_an_unknown_family_takes_no_other_familys_exam() -> None:
    train, test = load("digits", limit=200)
    method, split = FineTune(Descent(lr=0.1, steps=1)), Split(train, torch.arange(20), test)
    model = Regression().build("two-layers", 10, {"hidden": 8})
    result = unweave.unlearn(model, split, method, task=Nameless())
    with pytest.raises(ValueError, match=r"text-to-image, regression.*found unnamed: pass exam="):
        unweave.audit(result)


@dataclass(frozen=True)
class Nameless(Completing):
    family: ClassVar[str] = "unnamed"


def test_a_model_is_of_one_family() -> None:
    for table in ({}, {"generation": None}, {"generation": "none"}):
        assert read_family(table) is DEFAULT_FAMILY
    with pytest.raises(ValueError, match="one family, found the tables generation and regression"):
        read_family({"generation": {}, "regression": {}})
    with pytest.raises(ValueError, match=r"unknown key 'pover' in regression .did you mean 'power'"):
        parse({**RECIPE, "regression": {"pover": 2.0}})


def test_no_other_file_asks_which_family_a_model_is_of() -> None:
    words = "ClassifierFamily|DiffusionFamily|ClassifierExam|DiffusionExam|Classifier|Diffusion"
    pattern = re.compile(rf"isinstance\([^()]*(\([^()]*\))?[^()]*\b({words})\b")
    family_folders = ("tasks", "families", "audits/classifier", "audits/diffusion")
    files = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")]
    other_files = [name for name in files if not name.startswith(family_folders)]
    assert len(other_files) > 150
    assert [
        name for name in other_files if pattern.search((PACKAGE / name).read_text(encoding="utf-8"))
    ] == []
