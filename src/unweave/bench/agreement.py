"""Counts how often the verdict from other requests agrees with the verdict from retrained models.

Each model of a proxy request is judged twice: against ten models retrained without the request, as in an
audit, and by the other proxy requests alone. The models are those of the method and two whose verdict is
known: the untouched original, and one more retrained model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.held_out import HELD_OUT_TV, HeldOut
from unweave.audits.like_requests import LikeRequest, judge_by_like, nearest_stratum
from unweave.audits.margins import Margins
from unweave.audits.metrics import Metric, Values
from unweave.bench.cache import append_suffix
from unweave.bench.cell import REFERENCE, cell_path, read_answers
from unweave.bench.stage import Stage
from unweave.bench.stage_record import read_values


@dataclass(frozen=True)
class Proxy:
    """A proxy request with retrained models.

    Args:
        stage: Its stage, with all cells.
        like: Its summary, by which other requests are judged.
        expected: The metrics that its retrained models should have, predicted without them.
        held_out: The answers of models that were trained without folds.
        margins: Its own margins, from retrained models.
    """

    stage: Stage
    like: LikeRequest
    expected: Values
    held_out: HeldOut
    margins: Margins


def count_agreement(proxies: Sequence[Proxy], method: str, control: int) -> list[dict[str, Any]]:
    """Counts the pairs of verdicts, by other requests and by retrained models: a row per stratum and model.

    Args:
        proxies: The requests.
        method: The name of the method.
        control: The seed of the retrained model that is judged as a control.
    """
    pairs: dict[tuple[str, str], Counter[str]] = {}
    for proxy in proxies:
        requests = [each.like for each in proxies if each is not proxy]
        for model, name, seed in list_subjects(proxy.stage, method, control):
            by_others = judge_by_others(proxy, name, seed, requests, gate=model == method)
            counts = pairs.setdefault((proxy.like.stratum, model), Counter())
            counts[f"{by_others}/{judge_by_own(proxy, name, seed)}"] += 1
    strata = Counter(each.like.stratum for each in proxies)
    return [
        {
            "stratum": stratum,
            "model": model,
            "requests": strata[stratum],
            "pairs": dict(sorted(counts.items())),
        }
        for (stratum, model), counts in pairs.items()
    ]


def list_subjects(stage: Stage, method: str, control: int) -> list[tuple[str, str, int]]:
    """The models of a request that are judged: the kind of each, and the name and seed of its cell."""
    seeds = stage.recipe.seeds
    paths = {seed: append_suffix(cell_path(stage, seed, method), "values.json") for seed in seeds}
    subjects = [(method, method, seed) for seed, path in paths.items() if path.exists()]  # it did not fail
    return [*subjects, ("original", "original", seeds[0]), ("retrained", REFERENCE, control)]


def judge_by_own(proxy: Proxy, name: str, seed: int) -> str:
    """The verdict on one model from the retrained models of its request."""
    stage, exam = proxy.stage, proxy.stage.exam()
    seeds = stage.recipe.seeds
    references = [read_evidence(stage, each, REFERENCE) for each in seeds]

    def measure(name: str, seed: int) -> list[dict[str, float]]:
        values, answers = read_values(stage, seed, name), read_evidence(stage, seed, name)
        return [{**values, **exam.measure_pair(answers, each)} for each in references]

    expected = [read_values(stage, each, REFERENCE) for each in seeds]
    model_values, original_values = measure(name, seed), measure("original", seeds[0])
    return str(exam.judge(model_values, expected, proxy.margins, original_values, list).verdict)


def judge_by_others(
    proxy: Proxy, name: str, seed: int, requests: Sequence[LikeRequest], *, gate: bool
) -> str:
    """The verdict on one model from other requests alone."""
    stage, exam, expected = proxy.stage, proxy.stage.exam(), proxy.expected
    model_values = measure_alone(stage, seed, name, proxy.held_out, expected)
    original_values = measure_alone(stage, stage.recipe.seeds[0], "original", proxy.held_out, expected)
    smallest = smallest_margins(exam.sizes, exam.metrics)
    judgement, _ = judge_by_like(
        model_values, original_values, expected, nearest_stratum(proxy.like.about, requests),
        smallest=smallest, metrics=exam.metrics, gate=gate,
    )  # fmt: skip
    return str(judgement.verdict)


def measure_alone(
    stage: Stage, seed: int, name: str, held_out: HeldOut, expected: Values
) -> dict[str, float]:
    """The metrics of one model of a stage that are tested without a reference."""
    values = dict(read_values(stage, seed, name))
    if HELD_OUT_TV in expected:
        values[HELD_OUT_TV] = held_out.distance(read_evidence(stage, seed, name))
    return {metric: values[metric] for metric in expected}


def read_evidence(stage: Stage, seed: int, name: str) -> Evidence:
    """Reads the answers of the model of a cell."""
    return read_answers(stage.exam(), cell_path(stage, seed, name))


def smallest_margins(sizes: Mapping[str, int], metrics: Mapping[str, Metric[Any]]) -> dict[str, float]:
    """One example of a request, in the unit of each metric that counts examples."""
    return {
        name: metric.bounds[1] / sizes[metric.counts] for name, metric in metrics.items() if metric.counts
    }
