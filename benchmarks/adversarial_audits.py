"""Audits of adversaries on one stage, whose retrained models and originals are trained once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from unweave.auditing import judge_answers
from unweave.audits.answers import Answers, collect_answer_pair, collect_answers, refuse_other_weights
from unweave.audits.attack import Examiner
from unweave.audits.attack_runs.plan import Plan, Request, plan_attacks
from unweave.audits.margins import RETRAINS
from unweave.audits.verdict import SEEDS, Judgement
from unweave.bench.stage import Stage
from unweave.methods.simple import FromScratch
from unweave.result import Result
from unweave.split import Split
from unweave.weights.cost import Cost

REPORTED, CALIBRATION, OWN = 4000, 4100, 4200
"""The first seeds of originals and references, of calibration models, and of the adversary's own models."""
ATTACKS = ("default", "all")

Found = Answers[Any]
Ask = Callable[[Tensor], Tensor]
"""Logits of inputs."""
Part = tuple[Tensor, Tensor]
"""Inputs and labels."""


@dataclass(frozen=True)
class Given:
    """What an adversary has of one seed.

    Args:
        place: The position of the seed, from 0.
        original: The model to hide.
        retrained: A retrained model of the adversary's own seed.
        retrain: Trains on the retain set and a share of the forget set.
        parts: Inputs and labels of forget, retain, calibration and test set, and of "unseen": the examples of
            the calibration set that the forget set is compared with.
    """

    place: int
    original: nn.Module
    retrained: nn.Module
    retrain: Callable[[float], nn.Module]
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class Adversary:
    """A way to pass with the knowledge.

    Args:
        trick: What it does, in one clause.
        make: Makes the model of one seed.
        unlock: Gets the knowledge out: what to ask instead of the model.
        classes_only: Whether it makes sense for a class alone.
    """

    trick: str
    make: Callable[[Given], nn.Module]
    unlock: Callable[[Any, Given], Ask] = lambda model, given: model
    classes_only: bool = False


@dataclass(frozen=True)
class Audits:
    """The audits of one stage: its retrained models and originals, trained once."""

    stage: Stage

    @cached_property
    def split(self) -> Split:
        """The data."""
        return self.stage.split()

    @cached_property
    def originals(self) -> list[nn.Module]:
        """One original per seed."""
        return [self.stage.load_or_train("mixed", REPORTED + i).model for i in range(SEEDS)]

    @cached_property
    def retrained(self) -> list[nn.Module]:
        """The references, and then the models for the margins."""
        seeds = [REPORTED + i for i in range(SEEDS)] + [CALIBRATION + i for i in range(RETRAINS)]
        return [self.stage.load_or_train("retain", seed).model for seed in seeds]

    @cached_property
    def answers(self) -> list[Found]:
        """What the retrained models answer."""
        return [collect_answers(model, self.stage.exam()) for model in self.retrained]

    @cached_property
    def before(self) -> list[Found]:
        """What the originals answer."""
        return [collect_answers(model, self.stage.exam()) for model in self.originals]

    @cached_property
    def examiner(self) -> Examiner:
        """What takes from models what attacks need, beside the first original."""
        exam, attacks = self.stage.exam(), plan("all").model_attacks
        cuts = exam.cuts(("forget", "retain", "calibration"))
        return Examiner(attacks, cuts, self.originals[0], exam.device, exam.forgotten_classes)

    @cached_property
    def examined(self) -> list[Found]:
        """The answers of the first original and of the retrained models, with what attacks need."""
        models = [self.originals[0], *self.retrained]
        answers = [self.before[0], *self.answers]
        return [replace(each, measurements=self.examiner(m)) for each, m in zip(answers, models, strict=True)]

    def given(self, place: int) -> Given:
        """What the adversary has of one seed."""
        cuts, split = self.stage.exam().cuts(("forget", "retain", "calibration")), self.split
        raws = {part: next(source.stream([order])) for part, (source, order) in cuts.items()}
        parts = {part: (raw.inputs[0], raw.label) for part, raw in raws.items()}
        inputs, labels = parts["calibration"]
        alike = torch.isin(labels, torch.tensor([*(split.forgotten_classes or range(split.n_classes))]))
        parts["unseen"] = inputs[alike], labels[alike]
        retrained_model = self.stage.load_or_train("retain", OWN + place).model
        return Given(place, self.originals[place], retrained_model, partial(self.retrain, OWN + place), parts)

    def retrain(self, seed: int, share: float) -> nn.Module:
        """A model trained on the retain set and the first of the forget set."""
        split, start = self.split, round(share * len(self.split.forget))
        request = Split(
            split.train, split.forget[start:], split.held_out, calibration=split.calibration.tolist()
        )
        return self.stage.train_on(request, "retain", seed).model

    def judge(self, answers: Sequence[Found]) -> Judgement:
        """The verdict of a benchmark: one model per seed."""
        exam, references, calibration = self.stage.exam(), self.answers[:SEEDS], self.answers[SEEDS:]
        margins = exam.calibrate(
            [each.outputs for each in calibration], [each.probes for each in calibration]
        )
        values, original = (
            [each.measure(exam, other) for each, other in zip(models, references, strict=True)]
            for models in (answers, self.before)
        )
        expected = [each.measure(exam) for each in references]
        return exam.judge(values, expected, margins, original, lambda: [each.outputs for each in self.before])

    def refusal(self, model: nn.Module) -> str | None:
        """Why an audit of the first model ends before any retraining; None if it goes on."""
        task = self.stage.recipe.family.task(self.split.n_classes)
        result = Result(
            model, FromScratch(self.stage.recipe.train), self.split, task, 0, self.originals[0], Cost()
        )
        try:
            collect_answer_pair(result, self.stage.exam())
            refuse_other_weights(result)
        except ValueError as error:
            return str(error)
        return None

    def audit(self, model: nn.Module, answers: Found) -> dict[str, tuple[str, list[str]]]:
        """By attacks, the reason of the audit of the first model, and which attacks find something."""
        outcomes, (before, *retrained) = {}, self.examined
        for attacks in ATTACKS:
            attack_plan = plan(attacks)
            try:
                ours = replace(
                    answers, measurements=replace(self.examiner, attacks=attack_plan.model_attacks)(model)
                )
            except ValueError as error:
                outcomes[attacks] = f"refused: {error}", []
                continue
            models = retrained[:SEEDS], retrained[SEEDS:]
            result = judge_answers(
                self.stage.exam(), answers.outputs, ours, before, *models, plan=attack_plan
            )
            results = result.record["stages"]["audit"]["attacks"]["results"]
            outcomes[attacks] = result.reason, sorted({row["attack"] for row in results if row["finding"]})
        return outcomes


def plan(attacks: str) -> Plan:
    """The attacks of a name, without a budget."""
    return plan_attacks(Request(attacks), retrained=SEEDS, has_models=True)
