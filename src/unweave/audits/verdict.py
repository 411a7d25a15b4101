"""PASS, FAIL or INCONCLUSIVE: is an unlearned model equivalent to models retrained without the forget set?

Each primary metric (UA, RA, TA, AUC; total variation on F) and each measured probe is tested at alpha .05 on
the differences paired by seed: the 90 % t interval of their mean against the margin that `calibrate` fixed
before.

- *equal*: the interval lies inside the margin (two one-sided tests; total variation has an upper side only);
- *different*: all of the interval lies outside the margin;
- *open*: it reaches or crosses an end of the margin.

PASS: every metric is equal, over at least 10 seeds, and the untouched original is known and different in some
metric. FAIL: some metric is different, or a model answers NaN. INCONCLUSIVE: the rest, with what is missing.
There is no correction for several metrics: since all must be equal, more metrics only make PASS rarer.

If the original is known and different in no metric, the forget set has no measurable influence. That is
INCONCLUSIVE before any FAIL except for NaN, because no difference then tells about forgetting. The reason
names any metric that still differs.

Differences smaller than a margin are invisible: if the original is less than `POWER` margins away in every
metric, a model that forgot only half could pass, so nothing passes. A PASS says how far away the original is.
If classes are forgotten whole, this must hold for one of the probes of the features (`Metric.of_features`):
one bias of the last layer can satisfy the other metrics, and can be reverted.

A FAIL begins with the metric furthest outside, in units of its margin. The faults:

- *under-forgetting*: UA or relearning below, AUC or a probe above that of retrained models: F looks known;
- *over-forgetting*: UA or relearning above, AUC or a probe below: F looks worse than unseen data;
- *damage*: RA or TA below: the model lost retained knowledge;
- *unlike retraining*: RA or TA above: no harm to users, but unlike retraining;
- *other answers than retraining*: total variation on F above its limit, UA, AUC and probes not different: the
  right level, but answers to single examples differ more than those of two retrained models. Under- and
  over-forgetting imply it, so it is then not named.

If both under- and over-forgetting occur, only the one further outside is named: in a broken model UA and AUC
may point in opposite directions.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from unweave.audits.equivalence import Equivalence, equivalences
from unweave.audits.margins import RETRAINS, Margins
from unweave.audits.metrics import Finding, Metric, Values
from unweave.audits.score import Score, score

__all__ = ["Judgement", "Verdict", "judge"]

SEEDS = 10
POWER = 2.0
"""The least distance of the original in some metric, in margins: then half of it is still outside."""
NO_INFLUENCE = (
    "the forget set has no measurable influence: even the untouched original is not shown to differ from "
    "retraining"
)
LEVEL: frozenset[Finding] = frozenset({"under-forgetting", "over-forgetting"})


class Verdict(StrEnum):
    """The outcome of an audit."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Judgement:
    """A verdict, its reason, and the figures behind it.

    Args:
        verdict: PASS, FAIL or INCONCLUSIVE.
        reason: One or two sentences that begin with the verdict.
        scores: Every measured metric.
        tests: The tested metrics; empty if nothing could be tested.
    """

    verdict: Verdict
    reason: str
    scores: dict[str, Score]
    tests: dict[str, Equivalence]


def as_verdict(judgement: Judgement, verdict: Verdict, reason: str) -> Judgement:
    """The same figures with another verdict."""
    return replace(judgement, verdict=verdict, reason=f"{verdict}: {reason}")


def judge(
    values: Sequence[Values],
    references: Sequence[Values],
    margins: Margins | None,
    *,
    original: Sequence[Values] | None = None,
    seeds_needed: int = SEEDS,
    metrics: Mapping[str, Metric],
) -> Judgement:
    """Judges a method from the metrics of its models and of models retrained on the same seeds.

    Args:
        values: The metrics of the unlearned model, per seed.
        references: The metrics of the retrained model, per seed in the same order; empty without.
        margins: The margins from `calibrate`; None without.
        original: The metrics of the model before unlearning, per seed; without them nothing passes.
        seeds_needed: The fewest paired seeds for PASS or FAIL; NaN always fails.
        metrics: The metrics by name, for classifiers or generators (`unweave.audits.diffusion.metrics`).
    """
    if not values:
        raise ValueError("expected the metrics of at least one model, found none")
    for name, models in (("retrained", references), ("original", original)):
        if models and len(models) != len(values):
            raise ValueError(f"expected {len(values)} {name} models, one per seed, found {len(models)}")
    scores = score_metrics(values, references, margins, metrics)
    nan_count = sum(any(np.isnan(value) for value in each.values()) for each in values)
    if nan_count:
        reason = f"FAIL: NaN: the answers of {nan_count} of {len(values)} models contain NaN or infinity"
        return Judgement(Verdict.FAIL, reason, scores, {})
    lacking = "; ".join(_list_missing(len(values), len(references), margins, seeds_needed))
    if lacking or margins is None:
        return Judgement(Verdict.INCONCLUSIVE, f"INCONCLUSIVE: no verdict: {lacking}", scores, {})
    tests = equivalences(values, references, margins.margin, metrics=metrics)
    original_tests = equivalences(original, references, margins.margin, metrics=metrics) if original else None
    verdict, reason = decide(tests, original_tests, scores, metrics, over=(len(values), "seeds"))
    return Judgement(verdict, f"{verdict}: {reason}", scores, tests)


def _list_missing(n: int, n_references: int, margins: Margins | None, seeds_needed: int) -> Iterator[str]:
    if n_references == 0:
        yield "no retrained model to compare with"
    if n < seeds_needed:
        yield f"{n} {'seed' if n == 1 else 'seeds'}, {seeds_needed} needed"
    retrains = 0 if margins is None else margins.n
    if retrains < RETRAINS:
        yield f"{retrains} calibration retrains, {RETRAINS} needed"


def decide(
    tests: Mapping[str, Equivalence],
    original_tests: Mapping[str, Equivalence] | None,
    scores: Mapping[str, Score],
    metrics: Mapping[str, Metric],
    *,
    over: tuple[int, str],
) -> tuple[Verdict, str]:
    """The verdict of the tests, and its reason without the verdict.

    Args:
        tests: The test of each metric.
        original_tests: Those of the untouched original; None if it is unknown.
        scores: Every measured metric.
        metrics: The metrics by name.
        over: The number of replicates that the intervals come from, and their name.
    """
    n, replicates = over
    if original_tests is not None:  # a metric that was not put to the model says nothing about it
        original_tests = {name: test for name, test in original_tests.items() if name in tests}
    faults = "; ".join(_faults(tests, scores, metrics))
    if original_tests is not None and not any(test.finding for test in original_tests.values()):
        return Verdict.INCONCLUSIVE, f"{NO_INFLUENCE}. All the same, {faults}" if faults else NO_INFLUENCE
    if faults:
        return Verdict.FAIL, faults
    if original_tests is None:
        return (
            Verdict.INCONCLUSIVE,
            "without the original the audit can't tell whether there was anything to forget",
        )
    weak = _explain_low_power(original_tests, metrics)
    if weak:
        return Verdict.INCONCLUSIVE, weak
    unclear = [_open_clause(metrics[name], test) for name, test in tests.items() if test.outcome == "open"]
    if unclear:
        return Verdict.INCONCLUSIVE, f"more {replicates} are needed: {'; '.join(unclear)}"
    names = _join_words([metrics[name].title for name in tests])
    equal = f"{names} equal retrained models' within the margins, over {n} {replicates}"
    return Verdict.PASS, f"{equal}; {_power(original_tests, metrics)}"


def _explain_low_power(tests: Mapping[str, Equivalence], metrics: Mapping[str, Metric]) -> str | None:
    """Why the metrics could miss a fault here, judging by the original; None if they could not."""
    if _furthest(tests)[1] < POWER:
        return f"{_power(tests, metrics)}: a model that forgot half could pass, {POWER:g} margins are needed"
    features = {name: test for name, test in tests.items() if metrics[name].of_features}
    if features and not any(test.finding and test.margins >= POWER for test in features.values()):
        distances = [f"{test.margins:.1f} in the {metrics[name].title}" for name, test in features.items()]
        return (
            f"the untouched original is not shown to be {POWER:g} margins out in its features "
            f"({_join_words(distances)}): a class that the last layer only hides could pass"
        )
    return None


def _power(tests: Mapping[str, Equivalence], metrics: Mapping[str, Metric]) -> str:
    """The clause on the distance of the original, which shows the power of the margins."""
    name, distance = _furthest(tests)
    return f"the untouched original is {distance:.1f} margins out ({metrics[name].title})"


def _furthest(tests: Mapping[str, Equivalence]) -> tuple[str, float]:
    """The metric in which the original differs most, and by how many margins."""
    name = max((name for name in tests if tests[name].finding), key=lambda name: tests[name].margins)
    return name, tests[name].margins


def score_metrics(
    values: Sequence[Values],
    references: Sequence[Values],
    margins: Margins | None,
    metrics: Mapping[str, Metric],
) -> dict[str, Score]:
    """The score of each metric; without references, beside what the margins expect.

    Raises:
        ValueError: If one of the models lacks a metric that another one has.
    """
    for name in dict.fromkeys(name for each in values for name in each):
        lacking = [number for number, each in enumerate(values, 1) if name not in each]
        if lacking:
            where = f"model {lacking[0]} of {len(values)}"
            raise ValueError(f"expected the metrics of every model, found no {name} of {where}: measure it")
    band = margins.null_band if margins else {}
    expected = margins.expected if margins else {}
    means = {
        name: float(np.mean([each[name] for each in references]))
        for name in values[0]
        if references and all(name in each for each in references)
    }
    return {
        name: score(
            [each[name] for each in values],
            means.get(name, expected.get(name)),
            direction=metrics[name].direction,
            null_band=band.get(name),
            bounds=metrics[name].bounds,
        )
        for name in values[0]
    }


def _faults(
    tests: Mapping[str, Equivalence], scores: Mapping[str, Score], metrics: Mapping[str, Metric]
) -> Iterator[str]:
    """One clause per kind of fault, from its clearest metric; the worst first."""
    findings = {test.finding for test in tests.values()}
    excluded: set[Finding] = {"other answers than retraining"} if findings & LEVEL else set()
    for name, test in sorted(tests.items(), key=lambda item: -item[1].margins):
        if test.finding and test.finding not in excluded:
            excluded |= LEVEL if test.finding in LEVEL else {test.finding}
            yield f"{test.finding}: {_comparison(metrics[name], test, scores[name])}"


def _comparison(metric: Metric, test: Equivalence, result: Score) -> str:
    value, margin = _number(metric, result.value, test), _number(metric, test.margin, test)
    reference = "?" if result.reference is None else _number(metric, result.reference, test)
    if metric.needs_reference:
        return f"{metric.title} {value} against {reference} between two retrained models (at most {margin})"
    return f"{metric.title} {value} against {reference} of the retrained models (margin {margin})"


def _open_clause(metric: Metric, test: Equivalence) -> str:
    low, high, margin = (_number(metric, each, test) for each in (test.low, test.high, test.margin))
    if metric.needs_reference:
        return f"{metric.title} may be {low} to {high}, at most {margin} is allowed"
    return f"{metric.title} may differ from the retrained models' by {low} to {high}, the margin is {margin}"


def _number(metric: Metric, value: float, test: Equivalence) -> str:
    decimals = 3 if not metric.unit else 1 if test.margin >= 1 else 2
    return f"{value:.{decimals}f}"


def _join_words(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
