"""The margins of classifiers, from the answers of models retrained without one forget set."""

from collections.abc import Sequence
from itertools import combinations

from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.metrics import METRICS, measure, measure_pair
from unweave.audits.classifier.probes import probe_size
from unweave.audits.margins import Margins, margins
from unweave.audits.metrics import Values


def calibrate(
    retrains: Sequence[Evidence], *, probes: Sequence[Values] | None = None, on: HeldOut = "test"
) -> Margins:
    """Computes margins from models retrained without one forget set, on seeds that are never reported.

    Args:
        retrains: The evidence of the models, at least two; a verdict needs 12.
        probes: The results of `unweave.audits.classifier.probes` per model; may be empty.
        on: The held-out part used as test set.
    """
    if len(retrains) < 2:
        raise ValueError(f"expected at least two retrained models to compare, found {len(retrains)}")
    if not all(each.finite for each in retrains):
        raise ValueError("a retrained model's logits contain NaN or infinity: retrain it")
    probes = [{}] * len(retrains) if probes is None else probes
    own_values = [{**measure(each, on=on), **extra} for each, extra in zip(retrains, probes, strict=True)]
    pairs = [measure_pair(first, second, on=on) for first, second in combinations(retrains, 2)]
    first = retrains[0].with_test(on)
    forget_size = len(first.labels["forget"])
    sizes = {part: int(first.is_kept(part).sum()) for part in ("retain", "test")}
    sizes |= {"forget": forget_size, "probe": probe_size(forget_size)}
    return margins(own_values, pairs, sizes=sizes, metrics=METRICS)
