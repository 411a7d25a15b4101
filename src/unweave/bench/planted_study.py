"""Runs methods on a recipe with planted examples, and measures what is left of them.

Originals train on everything, references without the known planted examples, and a third kind without any
planted example. All are trained once and stored; methods run again.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unweave.audits.attacks.backdoor import PoisonAnswers, backdoor
from unweave.audits.attacks.canaries import CanaryScores, canaries, canary_scores, input_gradients
from unweave.audits.classifier.collect import Cut, logits_of
from unweave.audits.planted_evidence import PlantedReport
from unweave.bench.recipe import Recipe
from unweave.bench.split_data import load_sources, plant
from unweave.bench.stage import Stage
from unweave.data.in_memory import Resident
from unweave.data.planted import Planted, largest_value, stamp_source
from unweave.descent.timing import run_and_time
from unweave.errors import Failed
from unweave.split import Split
from unweave.tasks import evaluating
from unweave.weights.cost import Cost

REFERENCES = ("original", "retrained", "unplanted")
"""The kinds of models that no method makes: trained on everything, without the known part, without any."""

Listener = Callable[[str], None]
"""Hears the name of each kind of models, or method, before it runs."""


@dataclass(frozen=True)
class PlantedStudy:
    """Models of a recipe with planted examples.

    Args:
        recipe: The data, the model and the training; the settings of methods.
        folder: Where trained models are stored.
        device: The device of the models.

    Raises:
        ValueError: If the recipe plants nothing.
    """

    recipe: Recipe
    folder: Path
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.recipe.data.plant.kind == "none":
            raise ValueError(
                f"expected a recipe with planted examples, found none in {self.recipe.name!r}: set data.plant"
            )

    @cached_property
    def stage(self) -> Stage:
        """The stage of the recipe, whose forget set is the known part."""
        return Stage(self.recipe, self.folder, self.device)

    @cached_property
    def clean_data(self) -> Resident:
        """The training data before anything is planted."""
        train, _ = load_sources(self.recipe.data, self.recipe.family, self.device)
        assert isinstance(train, Resident), "data sets that have a name are in memory"
        return train

    @cached_property
    def planted_data(self) -> Planted:
        """The training data with the planted examples."""
        return plant(self.recipe.data, self.clean_data)

    @cached_property
    def unplanted_split(self) -> Split:
        """The split whose forget set is everything that is planted, known or not."""
        split = self.stage.split()
        return Split(
            split.train, self.planted_data.places, split.held_out, calibration=split.calibration.tolist()
        )

    def references(self, kind: str) -> list[nn.Module]:
        """The models of one of `REFERENCES`, one for each seed."""
        stage, seeds = self.stage, self.recipe.seeds
        if kind == "unplanted":
            models = [stage.train_on(self.unplanted_split, "retain", seed) for seed in seeds]
        else:
            part = "mixed" if kind == "original" else "retain"
            models = [stage.load_or_train(part, seed) for seed in seeds]
        return [each.model.eval() for each in models]

    def unlearn(self, method: str, originals: Sequence[nn.Module]) -> tuple[list[nn.Module], Cost]:
        """A method on the original of each seed, and its whole cost."""
        models, costs = [], []
        for seed, original in zip(self.recipe.seeds, originals, strict=True):
            problem = self.stage.problem(original, seed, {})
            costs.append(run_and_time(problem, self.recipe.method(method)))
            models.append(problem.model.eval())
        total = Cost(
            gradients=sum(each.gradients for each in costs), seconds=sum(each.seconds for each in costs)
        )
        return models, total

    def examine(self, models: Sequence[nn.Module]) -> list[PoisonAnswers] | list[CanaryScores]:
        """What each model shows."""
        if self.recipe.data.plant.kind == "canaries":
            return [self.score_canaries(each) for each in models]
        return [self.answer(each) for each in models]

    def compare(self, answers: Sequence[Any], reference_answers: dict[str, Any]) -> PlantedReport:
        """What models showed, beside what each kind of reference showed."""
        judge = canaries if self.recipe.data.plant.kind == "canaries" else backdoor
        return judge(answers, **reference_answers)

    def score_canaries(self, model: nn.Module) -> CanaryScores:
        """The scores of the known canaries, from the gradients at their clean inputs and true labels."""
        planted_data, positions = self.planted_data, self.planted_data.known
        assert planted_data.noise is not None
        (raw,) = self.clean_data.stream([positions])
        assert isinstance(raw.inputs, tuple)
        gradients = input_gradients(model, raw.inputs[0], raw.label)
        return canary_scores(gradients, planted_data.noise[: len(positions)], self.recipe.data.plant.sigma)

    def answer(self, model: nn.Module) -> PoisonAnswers:
        """The answers to held-out examples of the test set, affected and clean."""
        with evaluating(model):
            affected_logits, clean_logits = (
                logits_of(model, cut, self.device) for cut in (self.affected_cut, self.test_cut)
            )
        truth = self.affected_cut[0].labels[self.affected_cut[1]]
        return PoisonAnswers(
            affected_logits,
            self.taught_labels(truth),
            truth.numpy(),
            clean_logits,
            self.test_cut[0].labels[self.test_cut[1]].numpy(),
        )

    @property
    def test_cut(self) -> Cut:
        """The held-out examples of the test set."""
        return self.stage.split().part("test")

    @cached_property
    def affected_cut(self) -> Cut:
        """The examples of the test set that the poison is about: with the trigger, or of the two classes."""
        how, (source, order) = self.recipe.data.plant, self.test_cut
        labels = source.labels[order]
        if how.kind == "swap":
            return source, order[torch.isin(labels, torch.tensor(how.classes))]
        assert isinstance(source, Resident), "data sets that have a name are in memory"
        return stamp_source(source, how.size, largest_value(self.clean_data)), order[labels != how.target]

    def taught_labels(self, truth: torch.Tensor) -> np.ndarray:
        """The label that the poison teaches for examples of these true labels."""
        how = self.recipe.data.plant
        labels = sum(how.classes) - truth if how.kind == "swap" else torch.full_like(truth, how.target)
        return labels.numpy()


def run_study(study: PlantedStudy, methods: Sequence[str], listener: Listener) -> dict[str, Any]:
    """Examines the three kinds of references and every method; a failed method keeps its row.

    Args:
        study: The models.
        methods: The names of methods or pipelines.
        listener: Hears what is done.
    """
    models: dict[str, list[nn.Module]] = {}
    for kind in REFERENCES:
        listener(kind)
        models[kind] = study.references(kind)
    reference_answers = {kind: study.examine(each) for kind, each in models.items()}
    reports = {kind: study.compare(answers, reference_answers) for kind, answers in reference_answers.items()}
    rows: dict[str, Any] = {kind: figure_rows(report) for kind, report in reports.items()}
    for name in methods:
        listener(name)
        rows[name] = method_row(study, name, models["original"], reference_answers)
    check = reports["original"].check
    return {
        "recipe": study.recipe.table(),
        "seeds": list(study.recipe.seeds),
        "planted": len(study.planted_data.places),
        "known": study.planted_data.n_known,
        "data": study.stage.split().digest(),
        "valid": check.is_valid,
        "control": check.says,
        "rows": rows,
    }


def method_row(
    study: PlantedStudy, name: str, originals: Sequence[nn.Module], reference_answers: dict[str, Any]
) -> dict[str, Any]:
    """The row of one method, or why it failed."""
    try:
        models, cost = study.unlearn(name, originals)
    except (ValueError, Failed) as error:
        return {"failed": str(error)}
    return {**figure_rows(study.compare(study.examine(models), reference_answers)), "cost": asdict(cost)}


def figure_rows(report: PlantedReport) -> dict[str, Any]:
    """The figures of one kind of models."""
    return {"failed": None, "figures": {name: asdict(each) for name, each in report.results.items()}}


def summarize(result: dict[str, Any]) -> list[str]:
    """The control, and a line per kind of models and method."""
    names = list(result["rows"]["original"]["figures"])
    verdict = "The control holds" if result["valid"] else "The audit is INVALID"
    lines = [f"{verdict}: {result['control']}.", f"{'':<18}{''.join(f'{name:>28}' for name in names)}"]
    for name, row in result["rows"].items():
        if row["failed"] is not None:
            lines.append(f"{name:<18}FAILED: {row['failed']}")
            continue
        cells = [row["figures"][each] for each in names]
        text = "".join(f"{c['value']:>9.3f} [{c['low']:.3f}, {c['high']:.3f}]".rjust(28) for c in cells)
        lines.append(f"{name:<18}{text}")
    return lines
