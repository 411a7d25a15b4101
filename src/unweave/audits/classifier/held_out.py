"""What models that were trained without an example say about it: a guide to what retrained models would say.

The training data is cut into folds, and for each a model is trained on the others. Their answers stand in for
those of retrained models where a request is like any other data. They don't for whole classes, which every
fold's model has learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Shaped

from unweave.audits.classifier.accuracy import ua
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import confidence, probabilities
from unweave.audits.classifier.membership import auc
from unweave.audits.metrics import Values

HELD_OUT_TV = "held_out_tv"
LIKE_ORIGINAL = ("ra", "ta")
"""The metrics that retraining hardly moves: expected as the original has them."""
CLASSES = ("ua", "auc", "probe", "silhouette", "relearn")
"""The metrics in which models retrained without a whole class are alike, whatever the class."""

Ids = Shaped[np.ndarray, " n"]


@dataclass(frozen=True)
class HeldOut:
    """The answers of models about the folds that they were trained without.

    Args:
        folds: The evidence of each model, with its fold as forget set; several models may share a fold.
    """

    folds: Sequence[Evidence]

    def about(self, ids: Ids) -> list[Evidence]:
        """The evidence about some examples, of every model that was trained without any of them."""
        rows = [np.isin(each.ids["forget"], ids) for each in self.folds]
        return [restrict(each, keep) for each, keep in zip(self.folds, rows, strict=True) if keep.any()]

    def figures(self, ids: Ids) -> dict[str, float]:
        """UA, AUC and difficulty of some examples, as means over examples and models."""
        parts = self.about(ids)
        weights = [len(each.ids["forget"]) for each in parts]
        measures = {"ua": ua, "auc": auc, "difficulty": doubt}
        return {
            name: float(np.average([measure(each) for each in parts], weights=weights))
            for name, measure in measures.items()
        }

    def distance(self, outputs: Evidence) -> float:
        """Total variation of a model's answers on F from these, as a mean over examples and models."""
        parts = [tv_of_shared(outputs, each) for each in self.folds]
        return sum(total for total, _ in parts) / sum(n for _, n in parts)

    def disagreement(self, ids: Ids) -> float:
        """Total variation of these answers from each other, as a mean over examples and pairs of models."""
        pairs = [tv_of_shared(one, other) for one, other in combinations(self.about(ids), 2)]
        count = sum(n for _, n in pairs)
        if count == 0:
            raise ValueError("expected two models that were trained without an example, found one: give more")
        return sum(total for total, _ in pairs) / count

    def expect(self, original: Values, ids: Ids, *, whole: bool | None) -> dict[str, float]:
        """What is expected of retrained models without retraining, up to an offset that like requests share.

        Args:
            original: The metrics of the original on the parts of the request.
            ids: The forget set.
            whole: Whether it consists of whole classes, whose examples only retrained models have not seen.
        """
        values = {name: original[name] for name in LIKE_ORIGINAL}
        if whole:
            return {**values, **{name: 0.0 for name in CLASSES if name in original}}
        figures = self.figures(ids)
        return {**values, "ua": figures["ua"], "auc": figures["auc"], HELD_OUT_TV: self.disagreement(ids)}


def restrict(evidence: Evidence, rows: Bool[np.ndarray, " forget"]) -> Evidence:
    """The evidence with some rows of its forget set only, compared with all calibration examples."""
    forget = {
        "logits": {**evidence.logits, "forget": evidence.logits["forget"][rows]},
        "labels": {**evidence.labels, "forget": evidence.labels["forget"][rows]},
        "ids": {**evidence.ids, "forget": evidence.ids["forget"][rows]},
    }
    return replace(evidence, **forget, forgotten_classes=())


def doubt(evidence: Evidence) -> float:
    """One minus the mean probability of the true class on F."""
    return 1 - float(confidence(evidence.logits["forget"], evidence.labels["forget"]).mean())


def tv_of_shared(outputs: Evidence, other: Evidence) -> tuple[float, int]:
    """The sum of the total variation over the forget examples that both share, and their number."""
    ids, ours, theirs = np.intersect1d(outputs.ids["forget"], other.ids["forget"], return_indices=True)
    p, q = probabilities(outputs.logits["forget"][ours]), probabilities(other.logits["forget"][theirs])
    return float(np.abs(p - q).sum() / 2), len(ids)
