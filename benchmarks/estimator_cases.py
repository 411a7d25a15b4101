"""The cases of `estimators.py`: the models of one seed, and how far answers lie from the retrained one's."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from rows import Row
from torch import nn

from unweave.audits.classifier.distance import ranks
from unweave.audits.classifier.logits import Labels, Logits, confidence, margin, probabilities
from unweave.audits.classifier.metrics import METRICS, measure
from unweave.audits.metrics import mean_gap
from unweave.bench.search import SECOND
from unweave.bench.stage import Memory, Stage
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.train import TrainedModel
from unweave.problem import Problem
from unweave.targets.estimators.held_out import logits, match_table, spread

REACHED = 0.3
"""The budget at which the joint loss descends to an estimate."""
DESCENT = 0.3
"""The gradient evaluations of that descent, relative to retraining."""


@dataclass(frozen=True)
class Case:
    """One seed of a stage.

    Args:
        stage: The stage.
        seed: Of its models.
        memory: Trained proxies, which several estimators share; each is charged for them.
    """

    stage: Stage
    seed: int
    memory: Memory = field(default_factory=dict)

    @cached_property
    def original(self) -> nn.Module:
        """What was trained on all data."""
        return self.stage.load_or_train("mixed", self.seed).model

    @cached_property
    def retrained(self) -> TrainedModel:
        """What an estimate is compared with."""
        return self.stage.load_or_train("retain", self.seed)

    @cached_property
    def second(self) -> nn.Module:
        """Another retrained model."""
        return self.stage.load_or_train("retain", SECOND + self.seed).model

    def problem(self) -> Problem:
        """The request to forget."""
        return self.stage.problem(self.original, self.seed, self.memory)

    def lasting(self, share: float, price: int = 1) -> Descent:
        """The recipe's training for a share of its gradient evaluations, at a number of them per step."""
        steps = max(1, round(share * self.retrained.cost.gradients / price))
        return replace(self.stage.recipe.train, epochs=None, steps=steps)

    def answers(self, model: nn.Module) -> Logits:
        """What a model says of the forget part."""
        return logits(self.problem(), model, "forget").numpy()

    def figures(self, answers: Logits) -> Row:
        """How far answers on the forget part lie from those of the retrained model, and of the second one.

        The first began at the weights that the original began at, and so may resemble it, and all that
        begins with it, more than a retrained model must; the second began elsewhere.
        """
        split = self.stage.split()
        labels = split.train.labels[split.forget].numpy()
        elsewhere = distances(answers, self.answers(self.second), labels)
        return {
            **distances(answers, self.answers(self.retrained.model), labels),
            "tv_elsewhere": elsewhere["tv"],
            "rank_elsewhere": elsewhere["rank"],
        }

    def gap(self, answers: Logits) -> Row:
        """How near the joint loss comes to the retrained model when it descends to the answers."""
        problem = self.problem()
        table = match_table(spread(problem, torch.from_numpy(answers)))
        descend(problem, self.lasting(DESCENT, price=2), Phase([nll("retain"), table]))
        return self.standing(problem.model)

    def standing(self, model: nn.Module) -> Row:
        """The mean gap of a model, and its total variation on the forget part."""
        exam = self.stage.exam()
        reference = exam.answers(self.retrained.model)
        values = measure(exam.answers(model), reference)
        return {"gap": mean_gap(values, measure(reference, None), METRICS), "reached_tv": values["tv"]}


def distances(answers: Logits, target: Logits, labels: Labels) -> Row:
    """Per-example distances, means over examples: total variation, divergence, order, and level."""
    p, q = probabilities(answers), probabilities(target)
    orders = [ranks(margin(each, labels)) for each in (answers, target)]
    levels = [confidence(each, labels).mean() for each in (answers, target)]
    log = np.log(np.maximum(p, 1e-300))
    return {
        "tv": float(np.abs(p - q).sum(1).mean() / 2),
        "kl": float((q * (np.log(np.maximum(q, 1e-300)) - log)).sum(1).mean()),
        "rank": float(np.corrcoef(np.stack(orders))[0, 1]),
        "level": float(100 * abs(levels[0] - levels[1])),
    }
