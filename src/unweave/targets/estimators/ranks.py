"""Estimates from ranks: which examples are hard, and how hard they are, from two sources.

**How hard* comes from the margins of the original on held-out data. *Which* comes from the ranks of the
original or of a proxy.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.choices import refuse_unknown_choices
from unweave.problem import Problem
from unweave.targets.estimators.estimator import EstimatedLogits, refuse_other_than_classifiers
from unweave.targets.estimators.held_out import ModelLogits, logits
from unweave.targets.estimators.proxy import Proxy
from unweave.targets.estimators.quantiles import at_ranks, margins, quantiles
from unweave.tasks.classifier import differ, margin


@dataclass(frozen=True)
class Ranks:
    """Sets each true-class margin to the held-out margin of equal rank.

    The other classes share the rest as in the proxy's output. If the original ranks and there is no proxy,
    they share it as in the original's output on held-out examples of the same label.

    Args:
        by: The model that ranks: "proxy", "original" (see `quantiles`), or "chosen": the better predictor of
            the two by `is_memorised`, with labels from `strange_labels`.
        proxy: How to train the proxy. With "original" none is trained.
    """

    by: Literal["proxy", "original", "chosen"] = "chosen"
    proxy: Proxy = Proxy()

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)

    def __call__(self, problem: Problem) -> EstimatedLogits:
        """The estimate."""
        refuse_other_than_classifiers(problem)
        match self.by:
            case "original":
                return place_margins(problem, confusion(problem), quantiles(problem, problem.original))
            case "proxy":
                proxy = self.proxy(problem)
                return place_margins(problem, logits(problem, proxy, "forget"), quantiles(problem, proxy))
            case "chosen":
                return self.choose_ranks(problem, self.proxy(problem))

    def choose_ranks(self, problem: Problem, proxy: nn.Module) -> EstimatedLogits:
        """The estimate from the ranks of the better predictor."""
        if problem.split.forgotten_classes:
            return place_margins(problem, logits(problem, proxy, "forget"), quantiles(problem, proxy))
        by, calibration = ModelLogits.of(problem, proxy), logits(problem, problem.original, "calibration")
        labels, noisy_labels = label_of(problem), strange_labels(problem, by)
        level = margin(calibration, noisy_labels)
        proxy_margins, original_margins = (
            margin(by.forget, labels),
            margins(problem, problem.original, "forget"),
        )
        ranks = (
            proxy_margins
            if is_memorised(
                spearman(proxy_margins, original_margins),
                spearman(margin(by.calibration, noisy_labels), level),
            )
            else original_margins
        )
        return set_margins(by.forget, labels, at_ranks(ranks, level))


def label_of(problem: Problem) -> Int[Tensor, " forget"]:
    """The labels of the forget examples."""
    return problem.split.train.labels[problem.split.forget]


def place_margins(
    problem: Problem, rows: Float[Tensor, "forget class"], margins: Float[Tensor, " n"]
) -> EstimatedLogits:
    """The rows with true-class margins from a table with one margin per training example."""
    return set_margins(rows, label_of(problem), margins[problem.split.forget])


def set_margins(
    rows: Float[Tensor, "forget class"], labels: Int[Tensor, " forget"], margins: Float[Tensor, " forget"]
) -> EstimatedLogits:
    """The rows, with each true-class logit changed so that its margin is the wanted one."""
    return EstimatedLogits(rows.scatter_add(1, labels[:, None], (margins - margin(rows, labels))[:, None]))


def confusion(problem: Problem) -> Float[Tensor, "forget class"]:
    """The original's mean log-probabilities on held-out examples of the label of each forget example."""
    split = problem.split
    log_probabilities = logits(problem, problem.original, "calibration").log_softmax(1)
    labels = split.held_out.labels[split.calibration]
    is_label = (labels == torch.arange(log_probabilities.shape[1])[:, None]).to(log_probabilities.dtype)
    mean = (is_label @ log_probabilities) / is_label.sum(1, keepdim=True).clamp(min=1)
    return mean[label_of(problem)]


def strange_labels(problem: Problem, proxy: ModelLogits) -> Int[Tensor, " held"]:
    """The calibration labels, with noise so that the proxy errs on them as often as on the forget set.

    Held-out labels are often cleaner than noisy training labels, and then the proxy errs more on the forget
    set. So some held-out labels are replaced by a uniform other class to make up for the difference.
    """
    split = problem.split
    held_labels = split.held_out.labels[split.calibration]
    errs, errs_held = (
        float((table.argmax(1) != labels).float().mean())
        for table, labels in ((proxy.forget, label_of(problem)), (proxy.calibration, held_labels))
    )
    share = max(0.0, errs - errs_held) / max(1 - errs_held, 1e-9)
    generator = torch.Generator().manual_seed(problem.generator.initial_seed())
    positions = torch.randperm(len(held_labels), generator=generator)[: round(share * len(held_labels))]
    draw = torch.rand(len(positions), generator=generator)
    return held_labels.index_copy(
        0, positions, differ(held_labels[positions], proxy.calibration.shape[1], draw)
    )


def is_memorised(forget: float, calibration: float) -> bool:
    r"""Whether the original has memorised the forget set, so that its ranks do not show what is hard.

    A proxy, the original and a retrained model are three readings of how hard examples are. On held-out data
    original and retrained model are alike, so the rank correlation c of proxy and original there is about
    that of a proxy and a retrained model anywhere. If proxy and original err for reasons of their own, their
    correlation f on the forget examples is the product of what each has with the retrained model. So the
    original's is about f / c, and the proxy is the better predictor if :math:`c > f / c`.

    It needs only ranks of the original on the forget set, and no retrained model.

    Args:
        forget: Spearman's correlation f of proxy and original on the forget set.
        calibration: The same correlation, c, on the calibration set.
    """
    return forget < max(calibration, 0.0) ** 2


def spearman(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Spearman's rank correlation, ties in order of occurrence; 0 for fewer than two values."""
    x, y = (each.argsort(stable=True).argsort().double() - (len(each) - 1) / 2 for each in (a, b))
    return float(x @ y / (x.norm() * y.norm())) if len(a) > 1 else 0.0
