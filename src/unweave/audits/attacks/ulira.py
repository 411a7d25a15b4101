"""U-LiRA (Hayes et al., 2024), https://arxiv.org/abs/2403.01218: one attack per example, from shadow models.

The game: was the target x trained on and then unlearned, or never seen? Shadow models come in antithetic
pairs: one trains on a half of the targets and unlearns it, the other does so with the other half. Each pair
gives every target one margin m after "unlearned" and one after "never", and the attack predicts "unlearned"
iff

    N(m; mu_u(x), sigma_u^2) > N(m; mu_n(x), sigma_n^2).

The means and deviations are those of all other pairs: a pair never takes part in its own score. Scoring the
observations that were fitted, as released code does, gives an accuracy of 0.56 where there is nothing to
find. Deviations are pooled over the targets with fewer than 32 other pairs, which is the fixed variance of
LiRA (Carlini et al., 2022, arXiv 2112.03570).

Ours: the antithetic pairs, and the worst decile by cross-fitting. Its targets are chosen on half of the pairs
and scored on the other half, so its value is 1/2 as well where there is nothing to find.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from jaxtyping import Bool, Float64

from unweave.audits.attack import Attack
from unweave.audits.attack_result import AttackResult, band, refuse_few, refuse_unlike, two_way_bootstrap
from unweave.audits.classifier.logits import RESOLUTION
from unweave.audits.rates import delong, tpr_at_fpr

FEWEST = 8
"""The fewest pairs: with fewer the fits of a target are noise."""
OWN_DEVIATION = 32
"""Other pairs from which each target has a deviation of its own."""
SWAPS = 100
TIE = 1e-9
"""Log-ratios closer to zero than this decide nothing: rounding must not."""
CANNOT = (
    "Whether this one model still knows a record: it is about the method on this data, with settings fixed "
    "before, and about attacks on the margin alone; a constant output defeats it."
)

PerPair = Float64[np.ndarray, "pair target"]


@dataclass(frozen=True)
class Shadows:
    """Margins of shadow models on the targets.

    Args:
        margins: The margin of each target by each model, in nats. Rows 2 i and 2 i + 1 are a pair.
        seen: Which targets each model trained on and then unlearned; the rows of a pair are complements.

    Raises:
        ValueError: If the models are not antithetic pairs, too few or one of them twice, or a margin is not
            finite.
    """

    margins: Float64[np.ndarray, "model target"]
    seen: Bool[np.ndarray, "model target"]

    def __post_init__(self) -> None:
        if self.margins.shape != self.seen.shape or len(self.seen) % 2:
            raise ValueError(
                "U-LiRA needs an even number of models and a margin for each entry of `seen`, found margins "
                f"{self.margins.shape} and seen {self.seen.shape}"
            )
        refuse_few("U-LiRA", 2 * FEWEST, len(self.seen))
        refuse_unlike("U-LiRA", self.margins, self.margins)
        if (self.seen[::2] == self.seen[1::2]).any():
            raise ValueError(
                "the two models of a pair must have seen complementary halves of the targets, found a target "
                "in both or in neither"
            )

        rows = self.margins[np.ptp(self.margins, axis=1) > 0]  # constant outputs may be equal
        if len(np.unique(rows, axis=0)) < len(rows):
            raise ValueError(
                "U-LiRA needs different models, found two with the same margins: a model must not be among "
                "its own shadows"
            )

    @property
    def sides(self) -> tuple[PerPair, PerPair]:
        """The margins after "unlearned" and after "never", one per pair and target."""
        first, second = self.margins[::2], self.margins[1::2]
        return np.where(self.seen[::2], first, second), np.where(self.seen[::2], second, first)


def ulira(
    unlearned: Shadows, retrained: Shadows, original: Shadows | None = None, *, fpr: float = 0.01
) -> dict[str, AttackResult]:
    """The attack on a method, by figure: "accuracy", "worst decile", "auc" and "tpr".

    Args:
        unlearned: The models after the method.
        retrained: The floor: models retrained without any target, by the same recipe.
        original: The ceiling: the models before the method.
        fpr: The false-positive rate of "tpr".
    """
    refuse_unlike("U-LiRA", unlearned.margins, retrained.margins)
    unlearned_figures = figures(*unlearned.sides, fpr)
    null = null_figures(*retrained.sides, fpr)
    ceiling = {} if original is None else figures(*original.sides, fpr)
    reach = intervals(*unlearned.sides, fpr)
    return {
        name: AttackResult(
            value, *reach[name], *level_and_band([each[name] for each in null]), CANNOT, ceiling.get(name)
        )
        for name, value in unlearned_figures.items()
    }


def level_and_band(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """The mean of a figure over random names of the sides, and its band: one naming has luck of its own."""
    return float(np.mean(values)), band(values)


def figures(unlearned: PerPair, unseen: PerPair, fpr: float) -> dict[str, float]:
    """The figures of the attack, each in [0, 1]."""
    scores = leave_one_pair_out(unlearned, unseen)
    accuracies = accuracy(*scores)
    area, _, _ = delong(scores[0].ravel(), scores[1].ravel())
    decile = [each.mean() for each in worst_decile(unlearned, unseen, accuracies)]
    tpr = tpr_at_fpr(scores[0].ravel(), scores[1].ravel(), fpr)[1].value
    return {
        "accuracy": float(accuracies.mean()),
        "worst decile": float(np.mean(decile)),
        "auc": area,
        "tpr": tpr,
    }


def leave_one_pair_out(unlearned: PerPair, unseen: PerPair) -> tuple[PerPair, PerPair]:
    """The log-ratio of each margin, fitted to all other pairs: of "unlearned" and of unseen margins."""
    fits = [others_fit(side) for side in (unlearned, unseen)]

    def log_ratio(margins: PerPair) -> PerPair:
        log_unlearned, log_unseen = (-np.log(sigma) - ((margins - mu) / sigma) ** 2 / 2 for mu, sigma in fits)
        ratio = log_unlearned - log_unseen
        return np.where(np.abs(ratio) < TIE, 0.0, ratio)

    return log_ratio(unlearned), log_ratio(unseen)


def others_fit(side: PerPair) -> tuple[PerPair, PerPair]:
    """The mean and the deviation of each target over all pairs but one, for each pair left out."""
    n = len(side) - 1
    deviations = side - side.mean(axis=0)  # sums of squares would lose digits otherwise
    total, squares = deviations.sum(axis=0) - deviations, (deviations**2).sum(axis=0) - deviations**2
    variance = (squares - total**2 / n) / (n - 1)
    if n < OWN_DEVIATION:
        variance = np.broadcast_to(variance.mean(axis=1, keepdims=True), side.shape)
    return total / n + side.mean(axis=0), np.sqrt(np.maximum(variance, RESOLUTION**2))


def accuracy(unlearned: PerPair, unseen: PerPair) -> PerPair:
    """The balanced accuracy of each pair on each target; a tie is half right."""
    return ((np.sign(unlearned) + 1) / 2 + (1 - np.sign(unseen)) / 2) / 2


def worst_decile(unlearned: PerPair, unseen: PerPair, accuracies: PerPair) -> list[np.ndarray]:
    """The accuracies on the tenth of the targets that the other half of the pairs finds easiest to attack.

    Each half chooses by fits of its own: a choice by fits that saw the scored pairs would favour their luck.
    """
    tenth, deciles = ceil(accuracies.shape[1] / 10), []
    for half in (0, 1):
        ease = accuracy(*leave_one_pair_out(unlearned[half::2], unseen[half::2])).mean(axis=0)
        targets = np.argsort(-ease, kind="stable")[:tenth]
        deciles.append(accuracies[1 - half :: 2][:, targets])
    return deciles


def null_figures(unlearned: PerPair, unseen: PerPair, fpr: float) -> list[dict[str, float]]:
    """The figures of retrained models under random names of their two sides, which mean nothing to them."""
    rng, results = np.random.default_rng(0), []
    for _ in range(SWAPS):
        swap = rng.random((len(unlearned), 1)) < 0.5
        results.append(figures(np.where(swap, unseen, unlearned), np.where(swap, unlearned, unseen), fpr))
    return results


def intervals(unlearned: PerPair, unseen: PerPair, fpr: float) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures over pairs and targets, for the fits and the worst decile as they are."""
    rng, scores = np.random.default_rng(0), leave_one_pair_out(unlearned, unseen)
    accuracies = accuracy(*scores)
    deciles = worst_decile(unlearned, unseen, accuracies)
    smaller = (min(map(len, deciles)), deciles[0].shape[1])

    def over(rows: np.ndarray, columns: np.ndarray, name: str) -> float:
        one, other = (each[np.ix_(rows, columns)].ravel() for each in scores)
        return delong(one, other)[0] if name == "auc" else tpr_at_fpr(one, other, fpr)[1].value

    return {
        "accuracy": two_way_bootstrap(
            accuracies.shape, lambda p, q: float(accuracies[np.ix_(p, q)].mean()), rng
        ),
        "worst decile": two_way_bootstrap(
            smaller, lambda p, q: float(np.mean([each[np.ix_(p, q)].mean() for each in deciles])), rng
        ),
        "auc": two_way_bootstrap(accuracies.shape, lambda p, q: over(p, q, "auc"), rng, 200),
        "tpr": two_way_bootstrap(accuracies.shape, lambda p, q: over(p, q, "tpr"), rng, 200),
    }


ATTACK = Attack(
    name="u-lira",
    paper="Hayes et al., 2024, arXiv 2403.01218",
    evidence="margins of antithetic pairs of shadow models, unlearned and retrained",
    tier=3,
    fewest=2 * FEWEST,
    function_cost="T trainings and T unlearnings; T = 64 is good",
    says="How often an attack on each record alone tells unlearned from never seen.",
    cannot=CANNOT,
    function="unweave.audits.attacks.ulira.ulira",
)
