"""A qualification as tables and sentences, for every form of a report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unweave.audits.like_requests import format_property, format_range
from unweave.report.numbers import number

VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
Rows = Sequence[Mapping[str, Any]]
Grid = tuple[list[str], list[list[str]]]


def qualification_of(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The tables and sentences of a record's qualification for the template of the page; None without."""
    if "qualification" not in record:
        return None
    return {"tables": grids(record), "sentences": sentences(record["qualification"])}


def grids(record: Mapping[str, Any]) -> list[Grid]:
    """The header and the lines of each table: verdicts by stratum, then agreement by stratum and by model."""
    qualification = record["qualification"]
    return [
        by_stratum(qualification, record["stages"]),
        agreement_by("stratum", "Judged without retraining", qualification["agreement"]),
        agreement_by("model", "Judged without retraining", qualification["agreement"]),
    ]


def by_stratum(qualification: Mapping[str, Any], stages: Mapping[str, Any]) -> Grid:
    """A line per stratum: its requests, the method's largest cost, and the verdicts from retrained models."""
    requests = qualification["requests"]
    lines = []
    for stratum in dict.fromkeys(each["stratum"] for each in requests.values()):
        names = [name for name, each in requests.items() if each["stratum"] == stratum]
        group = [requests[name] for name in names]
        cost = number(max(stages[name]["methods"][qualification["method"]]["cost"] for name in names))
        sizes = sorted({each["about"]["size"] for each in group})
        size = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        counts = Counter(each["verdict"] for each in group)
        lines.append([stratum, str(len(group)), size, cost, *(str(counts[verdict]) for verdict in VERDICTS)])
    return ["Stratum", "Requests", "Records", "Cost, retrains", *VERDICTS], lines


def agreement_by(key: str, title: str, agreement: Rows) -> Grid:
    """How verdicts without retrained models compare with those from them, by stratum or by kind of model."""
    header = [title, "Models", "Decided", "Same", "Open", "False PASS", "False FAIL"]
    lines = []
    for name in dict.fromkeys(row[key] for row in agreement):
        total = tally([row for row in agreement if row[key] == name])
        counts = (total.models, total.decided, total.same, total.open, total.false_pass, total.false_fail)
        lines.append([name, *map(str, counts)])
    return header, lines


@dataclass(frozen=True)
class Tally:
    """Numbers of models that were judged with and without the retrained models of their request.

    Args:
        models: All of them.
        decided: Those that the retrained models give a PASS or a FAIL.
        same: Those of the decided that have the same verdict without.
        open: Those of the decided that are INCONCLUSIVE without.
        false_pass: Those that pass without alone.
        false_fail: Those that fail without alone.
    """

    models: int
    decided: int
    same: int
    open: int
    false_pass: int
    false_fail: int


def tally(agreement: Rows) -> Tally:
    """Counts the models of some rows."""
    pairs: Counter[str] = Counter()
    for row in agreement:
        pairs.update(row["pairs"])
    return Tally(
        models=pairs.total(),
        decided=pairs.total() - sum(pairs[f"{verdict}/INCONCLUSIVE"] for verdict in VERDICTS),
        same=pairs["PASS/PASS"] + pairs["FAIL/FAIL"],
        open=pairs["INCONCLUSIVE/PASS"] + pairs["INCONCLUSIVE/FAIL"],
        false_pass=pairs["PASS/FAIL"] + pairs["PASS/INCONCLUSIVE"],
        false_fail=pairs["FAIL/PASS"] + pairs["FAIL/INCONCLUSIVE"],
    )


def sentences(qualification: Mapping[str, Any]) -> list[str]:
    """What the tables mean, and which strata are missing."""
    return [agreement_sentence(qualification["agreement"]), *skipped_sentences(qualification)]


def agreement_sentence(agreement: Rows) -> str:
    """How often verdicts without retrained models agree with those from them, and are wrong."""
    requests = sum({row["stratum"]: row["requests"] for row in agreement}.values())
    total = tally(agreement)
    return (
        f"Of {total.models} models of {requests} requests, {total.decided} pass or fail by their own "
        f"retrained models. Judged by the other requests alone, {total.same} of these have the same verdict "
        f"and {total.open} are INCONCLUSIVE; {total.false_pass} of all pass and {total.false_fail} fail "
        "that do not by their retrained models."
    )


def skipped_sentences(qualification: Mapping[str, Any]) -> list[str]:
    """A sentence per stratum without requests."""
    return [f"No requests of {why}." for why in qualification["skipped"].values()]


def audit_sentences(basis: Mapping[str, Any]) -> list[str]:
    """What a verdict without references rests on."""
    about, like = basis["about"], basis["like"]
    stratum_rows = [row for row in basis["agreement"] if row["stratum"] == basis["stratum"]]
    facts = [
        f"{title} {format_property(about[name])} (theirs {format_range([each[name] for each in like])})"
        for name, title in (
            ("size", "records"),
            ("class_mix", "distance of its class mix"),
            ("difficulty", "difficulty"),
            ("entanglement", "entanglement"),
        )
    ]
    return [
        "No reference of this request was retrained: its retrained models' figures are predicted from "
        f"{basis['requests']} requests of the stratum {basis['stratum']}, the nearest by {', '.join(facts)}.",
        f"The worth of such a verdict, measured on that stratum in the qualification {basis['digest'][:12]}: "
        f"{agreement_sentence(stratum_rows)}",
    ]
