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
    found = record["qualification"]
    return [
        by_stratum(found, record["stages"]),
        agreement_by("stratum", "Judged without retraining", found["agreement"]),
        agreement_by("model", "Judged without retraining", found["agreement"]),
    ]


def by_stratum(found: Mapping[str, Any], stages: Mapping[str, Any]) -> Grid:
    """A line per stratum: its requests, the method's largest cost, and the verdicts from retrained models."""
    requests = found["requests"]
    lines = []
    for stratum in dict.fromkeys(each["stratum"] for each in requests.values()):
        names = [name for name, each in requests.items() if each["stratum"] == stratum]
        own = [requests[name] for name in names]
        cost = number(max(stages[name]["methods"][found["method"]]["cost"] for name in names))
        sizes = sorted({each["about"]["size"] for each in own})
        size = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        counts = Counter(each["verdict"] for each in own)
        lines.append([stratum, str(len(own)), size, cost, *(str(counts[verdict]) for verdict in VERDICTS)])
    return ["Stratum", "Requests", "Records", "Cost, retrains", *VERDICTS], lines


def agreement_by(key: str, title: str, agreement: Rows) -> Grid:
    """How verdicts without retrained models compare with those from them, by stratum or by kind of model."""
    header = [title, "Models", "Decided", "Same", "Open", "False PASS", "False FAIL"]
    lines = []
    for name in dict.fromkeys(row[key] for row in agreement):
        found = tally([row for row in agreement if row[key] == name])
        counts = (found.models, found.decided, found.same, found.open, found.false_pass, found.false_fail)
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


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What the tables mean, and which strata are missing."""
    return [agreement_sentence(found["agreement"]), *skipped_sentences(found)]


def agreement_sentence(agreement: Rows) -> str:
    """How often verdicts without retrained models agree with those from them, and are wrong."""
    requests = sum({row["stratum"]: row["requests"] for row in agreement}.values())
    found = tally(agreement)
    return (
        f"Of {found.models} models of {requests} requests, {found.decided} pass or fail by their own "
        f"retrained models. Judged by the other requests alone, {found.same} of these have the same verdict "
        f"and {found.open} are INCONCLUSIVE; {found.false_pass} of all pass and {found.false_fail} fail "
        "that do not by their retrained models."
    )


def skipped_sentences(found: Mapping[str, Any]) -> list[str]:
    """A sentence per stratum without requests."""
    return [f"No requests of {why}." for why in found["skipped"].values()]


def audit_sentences(found: Mapping[str, Any]) -> list[str]:
    """What a verdict without references rests on."""
    about, like = found["about"], found["like"]
    own = [row for row in found["agreement"] if row["stratum"] == found["stratum"]]
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
        f"{found['requests']} requests of the stratum {found['stratum']}, the nearest by {', '.join(facts)}.",
        f"The worth of such a verdict, measured on that stratum in the qualification {found['digest'][:12]}: "
        f"{agreement_sentence(own)}",
    ]
