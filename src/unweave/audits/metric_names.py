"""Metrics by name for whoever reads a record: it may be of any family."""

from collections.abc import Collection, Mapping

from unweave.audits.diffusion.verdict import EVERY
from unweave.audits.metrics import METRICS, Metric

FAMILIES: tuple[Mapping[str, Metric], ...] = (METRICS, EVERY)

KNOWN: Mapping[str, Metric] = {**EVERY, **METRICS}
"""All of them. Metrics of two families that share a name have the same title and unit."""


def metrics_for(names: Collection[str]) -> Mapping[str, Metric]:
    """The metrics of the family that most of the names are from; of the first family if none is known."""
    return max(FAMILIES, key=lambda table: len(table.keys() & set(names)))
