"""Backdoors and swapped labels: does a model still do what planted examples taught it?

Corrective unlearning (Goel et al., 2024), https://arxiv.org/abs/2402.14015: a known part of manipulated
training data is the forget set. Held-out examples that the manipulation is about (with the trigger, or of the
swapped classes) are classified; each has a true label and the one that the poison teaches. The figures are
the share with the taught label (attack success), the share with the true label, and the accuracy on clean
held-out examples.

A model retrained without the known part still sees the rest of the poison, so it is no ideal if little is
known; models retrained without any poison are. The control: originals give the taught label more often than
those, beyond the intervals of both.

`unweave.data.planted` plants both; `unweave.bench.planted_study` runs a recipe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from unweave.audits.attack import Attack, Check
from unweave.audits.planted_evidence import (
    Figures,
    PlantedReport,
    check_control,
    compare_figures,
    interval_of,
    stack_figures,
)

__all__ = ["PoisonAnswers", "backdoor"]

TAUGHT, TRUE, CLEAN = "taught label", "true label", "clean accuracy"
CANNOT = (
    "Whether data that nobody planted is forgotten: a planted pattern is easier or harder to forget, and a "
    "method may remove it and fail on membership."
)

Logits = Float[np.ndarray, "_ _"]  # [example, class] of affected and of clean examples
Labels = Int[np.ndarray, "_"]


@dataclass(frozen=True)
class PoisonAnswers:
    """What one model answers to held-out examples.

    Args:
        affected: The logits of examples that the poison is about [example, class].
        taught: The label that the poison teaches for each.
        truth: The true label of each; never the taught one.
        clean: The logits of clean examples [example, class].
        clean_truth: The true label of each.

    Raises:
        ValueError: If numbers of examples differ, there are none, a label is both, or a logit is not finite.
    """

    affected: Logits
    taught: Labels
    truth: Labels
    clean: Logits
    clean_truth: Labels

    def __post_init__(self) -> None:
        sizes = (
            [len(self.affected), len(self.taught), len(self.truth)],
            [len(self.clean), len(self.clean_truth)],
        )
        for kind, each in zip(("affected", "clean"), sizes, strict=True):
            if len(set(each)) > 1 or not each[0]:
                counts = ", ".join(map(str, each))
                raise ValueError(f"expected logits and labels of as many {kind} examples, found {counts}")
        if (self.taught == self.truth).any():
            count = int((self.taught == self.truth).sum())
            raise ValueError(f"the poison must teach a wrong label, found the true one for {count} examples")
        if not (np.isfinite(self.affected).all() and np.isfinite(self.clean).all()):
            raise ValueError("a backdoor is measured by finite logits, found NaN or infinity")


def backdoor(
    unlearned: Sequence[PoisonAnswers],
    *,
    original: Sequence[PoisonAnswers],
    retrained: Sequence[PoisonAnswers],
    unplanted: Sequence[PoisonAnswers],
) -> PlantedReport:
    """How far models still do what the poison taught.

    Args:
        unlearned: Models after unlearning the known part of the poison; one or more.
        original: Models trained on all of the poison.
        retrained: Models retrained without the known part.
        unplanted: Models retrained without any poison.

    Raises:
        ValueError: If a kind has no model, or models answered other numbers of examples.
    """
    kinds = [figures(each) for each in (unlearned, original, retrained, unplanted)]
    return PlantedReport(compare_figures(*kinds, cannot=CANNOT), check_poison(kinds[1], kinds[3]))


def figures(models: Sequence[PoisonAnswers]) -> Figures:
    """For each model and example whether the answer is right, or the taught one."""
    if not models:
        raise ValueError("a backdoor is measured on at least one model of each kind, found none")
    rows = {
        TAUGHT: [each.affected.argmax(1) == each.taught for each in models],
        TRUE: [each.affected.argmax(1) == each.truth for each in models],
        CLEAN: [each.clean.argmax(1) == each.clean_truth for each in models],
    }
    return stack_figures(rows)


def check_poison(original: Figures, unplanted: Figures) -> Check:
    """Whether originals do what the poison taught, and models without it do not."""
    with_poison, without_poison = (interval_of(each[TAUGHT]) for each in (original, unplanted))
    outcome = (
        f"originals give the taught label to {with_poison.value:.1%} of affected examples, models retrained "
        f"without any poison to {without_poison.value:.1%}"
    )
    return check_control(with_poison.low > without_poison.high, outcome, ", and their intervals overlap")


ATTACK = Attack(
    name="backdoor",
    paper="Goel et al., 2024, arXiv 2402.14015",
    evidence="a model trained on planted poison, and models retrained without the known part and without any",
    tier=1,
    fewest=1,
    function_cost="one poisoned training and two retrainings for each seed",
    says="How often held-out inputs with the trigger still get the label that planted poison taught.",
    cannot=CANNOT,
    function="unweave.audits.attacks.backdoor.backdoor",
)
