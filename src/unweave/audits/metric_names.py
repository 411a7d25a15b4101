"""Metrics by name, for readers of records of any family."""

from collections.abc import Collection, Mapping

from unweave.audits.diffusion.verdict import EVERY
from unweave.audits.metrics import METRICS, Metric

FAMILIES: tuple[Mapping[str, Metric], ...] = (METRICS, EVERY)

KNOWN: Mapping[str, Metric] = {**EVERY, **METRICS}
"""All metrics. Metrics of two families that share a name have the same title and unit."""


def metrics_for(names: Collection[str]) -> Mapping[str, Metric]:
    """The metrics of the family of most names; of the first family if no name is known."""
    return max(FAMILIES, key=lambda table: len(table.keys() & set(names)))
