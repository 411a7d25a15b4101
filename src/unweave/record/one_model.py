"""The record of one model, audited or not yet: a stage of one method, in plain values."""

from collections.abc import Mapping, Sequence
from typing import Any

from unweave.record import record

UNKNOWN: Mapping[str, Any] = {"seconds": None, "gradient_evaluations": None, "cost": None, "trace": {}}
"""The cost of a given model."""

POINTS = 50
"""The number of points of a curve of losses."""

MOST_IDS = 5
"""The number of ids of a request in a record; few, because a record should not reveal who was deleted."""


def one_model(
    methods: Mapping[str, Mapping[str, Any]],
    request: Mapping[str, Any],
    data: Mapping[str, Any],
    *,
    family: str | None = None,
    seeds: Sequence[int] = (),
    reference: Mapping[str, Any] | None = None,
    margins: Mapping[str, float] | None = None,
    floor: float | None = None,
    sheets: Mapping[str, str] | None = None,
    attacks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of one model.

    Args:
        methods: The row of the model, and of the untouched original if there is one, by name.
        request: The row of the request.
        data: The sizes of the parts of the data.
        family: The family of the model, if its task names one.
        seeds: The seed of the method, if known.
        reference: The row of the retrained models.
        margins: The margin of each metric; None without.
        floor: The mean gap of two retrained models.
        sheets: Pictures of the answers, by model.
        attacks: The attacks of the audit, and what they found; None without.
    """
    stage = {
        **({} if family is None else {"family": family}),
        "recipe": {},
        "seeds": list(seeds),
        "request": dict(request),
        "data": dict(data),
        "margins": margins,
        "reference": reference or {"scores": {}, "null_band": {}},
        "methods": dict(methods),
        "floor": floor,
        **({"sheets": dict(sheets)} if sheets else {}),
        **({"attacks": dict(attacks)} if attacks else {}),
    }
    return {"schema": record.SCHEMA, "environment": record.environment(), "stages": {"audit": stage}}


def add_request(
    whole_record: Mapping[str, Any], facts: Mapping[str, Any], data: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Adds facts about the request that only the caller knows.

    Args:
        whole_record: The record from `one_model`.
        facts: The user's name of the model, the request as given, and the date of the deletion.
        data: Replaces the sizes of the parts of the data, for a request without images.
    """
    (stage,) = whole_record["stages"].values()
    about = {**stage, "request": {**stage["request"], **facts}}
    about |= {} if data is None else {"data": dict(data)}
    return {**whole_record, "stages": dict.fromkeys(whole_record["stages"], about)}


def request_row(ids: Sequence[Any], labels: Sequence[int], *, of: int, model: str) -> dict[str, Any]:
    """The row of a request: the number of examples, their first ids, their classes, and the model."""
    counts = {str(label): labels.count(label) for label in sorted(set(labels))}
    facts = {"examples": len(labels), "of": of, "ids": list(ids[:MOST_IDS]), "classes": counts}
    return {**facts, "model": model, "asked": None, "date": None}


def trace_rows(traces: Mapping[str, Any], losses: Mapping[str, list[float]]) -> dict[str, Any]:
    """The traces of probes and the losses, thinned to about `POINTS` rows of step, value and reliability.

    Args:
        traces: The rows of the probes.
        losses: The loss of every term at every step.
    """
    steps = {name: range(0, len(each), max(1, len(each) // POINTS)) for name, each in losses.items()}
    return {**traces, **{name: [(i, losses[name][i], None) for i in steps[name]] for name in losses}}
