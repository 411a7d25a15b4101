"""Estimates from models trained in advance, each without some of the examples.

The idea of aggregating over shards is that of SISA (Bourtoule et al., 2021),
https://arxiv.org/abs/1912.03817, which answers with such models; here they only give the target of a whole
model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.choices import refuse_unknown_choices
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import restart
from unweave.descent.objective import nll
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.targets.estimators.estimator import EstimatedLogits, refuse_other_than_classifiers
from unweave.targets.estimators.held_out import ModelLogits, logits, logits_at, shift_to_level
from unweave.targets.estimators.proxies import Level


@dataclass(frozen=True)
class Shards:
    """Estimates each example by the model trained on all folds of the training data without its own.

    The models do not depend on the request and can be trained before it; their whole cost is charged all the
    same. They have seen other examples of the forget set, so each of them knows a class that is forgotten
    whole.

    Args:
        parts: The number of folds, at least two; with two, each model is trained on half of the data.
        level: The confidence of the estimate: the model's "own", or that of the original on "held-out" data.
        how: The training of each model.
    """

    parts: int = 2
    level: Level = "held-out"
    how: Descent = Descent(lr=0.1, epochs=3, schedule="cosine", warmup=0.15, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        if self.parts < 2:
            raise ValueError(f"parts must be at least 2, found {self.parts}")

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate."""
        refuse_other_than_classifiers(problem)
        if problem.split.forgotten_classes:
            raise ValueError(
                f"shards have seen other records of the forgotten classes {problem.split.forgotten_classes}: "
                "use a proxy"
            )
        folds, models = problem.remember(repr(self), self.train)
        forget_ids = [fold[problem.split.is_forget[fold]] for fold in folds]
        rows = [
            self.answers(problem, model, ids)
            for model, ids in zip(models, forget_ids, strict=True)
            if len(ids)
        ]
        return EstimatedLogits(torch.cat(rows)[torch.cat(forget_ids).argsort()])

    def answers(self, problem: Problem, model: nn.Module, ids: Int[Tensor, " n"]) -> Float[Tensor, "n class"]:
        """The estimate of a model for training examples that it has not seen."""
        outputs = logits_at(problem, model, problem.split.train, ids)
        if self.level == "own":
            return outputs
        return shift_to_level(problem, ModelLogits(outputs, logits(problem, model, "calibration")))

    def train(self, problem: Problem) -> tuple[Sequence[Int[Tensor, " fold"]], Sequence[nn.Module]]:
        """Trains one model per fold without that fold; returns the folds and the models."""
        order = torch.randperm(len(problem.split.train), generator=problem.generator)
        folds = [fold.sort().values for fold in order.chunk(self.parts)]
        return folds, [self.train_without(problem, fold) for fold in folds]

    def train_without(self, problem: Problem, fold: Int[Tensor, " fold"]) -> nn.Module:
        """Trains the problem's own model from fresh weights on all but a fold, and returns a frozen copy."""
        split = problem.split
        retain_split = Split(split.train, fold, split.held_out, calibration=split.calibration.tolist())
        fold_problem = Problem(
            problem.task,
            problem.model,
            retain_split,
            problem.generator,
            problem.build,
            problem.processes,
            problem.cost,
        )
        restart(fold_problem)
        descend(fold_problem, self.how, Phase([nll("retain")]))
        return frozen_copy(problem.model)
