r"""Judges a model without a retrained reference of its request, from like requests.

For each of K like requests, models were retrained. Their mean in a metric differs by an offset :math:`o_k`
from a first estimate that needs no retraining, such as the metric of models whose fold held these examples.
For a request that is drawn in the same way, the mean of its retrained models lies with confidence 1 - a in
the prediction interval

.. math:: e + \bar o \pm t_{K-1,\,1-a/2}\, s_o \sqrt{1 + 1/K},

with e the first estimate, and s_o the standard deviation of the offsets between requests. The difference of
an audited model has the same uncertainty, and is tested against the median margin of the like requests. With
few requests, or offsets that differ widely, the interval is wide and the outcome open.

This is weaker than an audit with references. Total variation on F is not tested, because it needs references
of the same request. A request that differs from the like ones in a property outside `About` can be misjudged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, log2, sqrt
from statistics import mean, median, stdev

from unweave.audits.equivalence import Equivalence, from_interval
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.audits.verdict import Judgement, Verdict, decide, score_metrics

FEWEST = 3
"""The fewest like requests for a verdict: with two, Student's factor is 6.3."""

TOLERANCE = {"size": 1.0, "class_mix": 0.1, "difficulty": 0.1, "entanglement": 0.1}
"""The largest distance from the range of the like requests: a factor of two in size, 0.1 in each share."""


@dataclass(frozen=True)
class About:
    """The properties of a request, by which it is compared with others.

    Args:
        size: The number of examples.
        whole: Whether it consists of whole classes; None if it also holds others.
        class_mix: Total variation between its classes and those of the training data, in [0, 1].
        difficulty: One minus the mean probability of the true class by models trained without the examples.
        entanglement: From 0, deep in their own classes, to 1, among others: (1 - silhouette) / 2 in the
            features of the original, as a mean.
    """

    size: int
    whole: bool | None
    class_mix: float
    difficulty: float
    entanglement: float

    def properties(self) -> dict[str, float]:
        """The properties by which requests are compared, in the units of `TOLERANCE`."""
        values = {**asdict(self), "size": log2(self.size)}
        return {name: values[name] / unit for name, unit in TOLERANCE.items()}


@dataclass(frozen=True)
class LikeRequest:
    """A request whose models were retrained.

    Args:
        stratum: The stratum that it was drawn from.
        about: Its properties.
        offsets: The mean of the retrained models minus the first estimate, by metric.
        margins: The margin of each of these metrics.
        spread: Half the width of the null band of each.
        verdict: The verdict on the method for this request.
    """

    stratum: str
    about: About
    offsets: Values
    margins: Values
    spread: Values
    verdict: str


@dataclass(frozen=True)
class Match:
    """The stratum that is nearest to a request.

    Args:
        stratum: Its name.
        like: Its requests.
        uncovered: Why they do not cover the request, in clauses; empty if they do.
    """

    stratum: str
    like: Sequence[LikeRequest]
    uncovered: Sequence[str]


def nearest_stratum(about: About, requests: Sequence[LikeRequest]) -> Match:
    """The nearest stratum among those that cover a request, or else among all."""
    if not requests:
        raise ValueError("expected at least one request with retrained models, found none: qualify again")
    strata: dict[tuple[str, bool | None], list[LikeRequest]] = {}
    for each in requests:  # a request of another kind, such as one with a rare class whole, is like no other
        strata.setdefault((each.stratum, each.about.whole), []).append(each)
    matches = [Match(name, like, list_uncovered(about, like)) for (name, _), like in strata.items()]
    return min(matches, key=lambda match: (len(match.uncovered) > 0, distance(about, match.like)))


def list_uncovered(about: About, like: Sequence[LikeRequest]) -> list[str]:
    """Why some requests do not cover another, in clauses; empty if they do."""
    clauses = []
    if len(like) < FEWEST:
        clauses.append(f"{len(like)} like requests, {FEWEST} needed")
    if any(each.about.whole is None or each.about.whole != about.whole for each in like):
        clauses.append(f"it holds {describe_classes(about.whole)}")
    for name, value in about.properties().items():
        like_values = [each.about.properties()[name] for each in like]
        if not min(like_values) - 1 <= value <= max(like_values) + 1:
            value_text = format_property(asdict(about)[name])
            range_text = format_range([asdict(each.about)[name] for each in like])
            clauses.append(f"its {name.replace('_', ' ')} is {value_text}, theirs {range_text}")
    return clauses


def describe_classes(whole: bool | None) -> str:
    """Whether a request holds whole classes, in words."""
    return {True: "whole classes", False: "no whole class", None: "a whole class and other examples"}[whole]


def format_property(value: float) -> str:
    """A size, or a share with two digits."""
    return f"{value}" if isinstance(value, int) else f"{value:.2f}"


def format_range(values: Sequence[float]) -> str:
    """The range of some sizes or shares."""
    low, high = format_property(min(values)), format_property(max(values))
    return low if low == high else f"{low} to {high}"


def distance(about: About, like: Sequence[LikeRequest]) -> float:
    """The distance of a request from the mean of others, in tolerances; infinite if the kinds differ."""
    if any(each.about.whole != about.whole for each in like):
        return inf
    value, like_properties = about.properties(), [each.about.properties() for each in like]
    return sum(abs(value[name] - mean(each[name] for each in like_properties)) for name in value)


def judge_by_like(
    values: Values,
    original: Values,
    expected: Values,
    match: Match,
    *,
    smallest: Values,
    metrics: Mapping[str, Metric],
    gate: bool = True,
) -> tuple[Judgement, Margins]:
    """Judges one model; returns the margins as well.

    Args:
        values: Its metrics.
        original: Those of the model before unlearning.
        expected: The first estimate of retrained models, by metric.
        match: The nearest stratum.
        smallest: The smallest margin of a metric: one example of this request.
        metrics: The metrics by name.
        gate: Whether a PASS also needs that the method passed most of the like requests and failed none.
    """
    forecast = forecast_margins(expected, match.like, smallest, metrics)
    scores = score_metrics([values], [], forecast, metrics)
    origin = f"no reference of this request was retrained; nearest stratum: {match.stratum}"
    if match.uncovered:
        problem = f"no stratum covers the request: {'; '.join(match.uncovered)}; {origin}"
        return Judgement(Verdict.INCONCLUSIVE, f"INCONCLUSIVE: {problem}", scores, {}), forecast
    tests, original_tests = (
        test_by_offsets(each, expected, match.like, forecast, metrics) for each in (values, original)
    )
    count = len(match.like)
    verdict, reason = decide(tests, original_tests, scores, metrics, over=(count, "like requests"))
    verdicts = [each.verdict for each in match.like]
    passes, failures = verdicts.count("PASS"), verdicts.count("FAIL")
    if verdict is Verdict.PASS and gate and (failures or passes <= count / 2):
        verdict = Verdict.INCONCLUSIVE
        reason = (
            f"the method passed {passes} and failed {failures} of the {count} like requests; else {reason}"
        )
    return Judgement(verdict, f"{verdict}: {reason}; {origin}, {count} requests", scores, tests), forecast


def test_by_offsets(
    values: Values,
    expected: Values,
    like: Sequence[LikeRequest],
    forecast: Margins,
    metrics: Mapping[str, Metric],
) -> dict[str, Equivalence]:
    """Tests each metric that has a margin by the prediction interval of its offset."""
    tests = {}
    for name, margin in forecast.margin.items():
        middle, reach = predict([each.offsets[name] for each in like], level=0.9)
        off = values[name] - expected[name] - middle
        tests[name] = from_interval(metrics[name], off, off - reach, off + reach, margin)
    return tests


def forecast_margins(
    expected: Values, like: Sequence[LikeRequest], smallest: Values, metrics: Mapping[str, Metric]
) -> Margins:
    """The margins of a request and the forecast of its retrained models, from like requests.

    The null band is where a retrained model may lie: the 95 % prediction interval of their mean, widened by
    the spread around it.
    """
    names = [name for name in metrics if name in expected and all(name in each.offsets for each in like)]
    margin, band, middle = {}, {}, {}
    for name in names:
        offset, reach = predict([each.offsets[name] for each in like], level=0.95)
        middle[name], wide = expected[name] + offset, reach + median(each.spread[name] for each in like)
        lower, upper = metrics[name].bounds
        band[name] = (max(lower, middle[name] - wide), min(upper, middle[name] + wide))
        margin[name] = max(median(each.margins[name] for each in like), smallest.get(name, 0.0))
    return Margins(margin, band, middle, float("nan"), 0)


def predict(offsets: Sequence[float], *, level: float) -> tuple[float, float]:
    """The mean, and half of the prediction interval of one more; infinite with fewer than two."""
    from scipy.special import stdtrit

    n = len(offsets)
    if n < 2:
        return mean(offsets), inf
    factor = float(stdtrit(n - 1, (1 + level) / 2))
    return mean(offsets), factor * stdev(offsets) * sqrt(1 + 1 / n)
