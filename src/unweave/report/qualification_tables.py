"""A qualification as tables and sentences, for every form of a report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
Rows = Sequence[Mapping[str, Any]]
Grid = tuple[list[str], list[list[str]]]


def grids(found: Mapping[str, Any]) -> list[Grid]:
    """The header and the lines of each table: verdicts by stratum, then agreement by stratum and by model."""
    return [
        by_stratum(found),
        agreement_by("stratum", "Judged without retraining", found["agreement"]),
        agreement_by("model", "Judged without retraining", found["agreement"]),
    ]


def by_stratum(found: Mapping[str, Any]) -> Grid:
    """A line per stratum: the size of its requests, and the verdicts on the method from retrained models."""
    requests = found["requests"].values()
    lines = []
    for stratum in dict.fromkeys(each["stratum"] for each in requests):
        own = [each for each in requests if each["stratum"] == stratum]
        sizes = sorted({each["about"]["size"] for each in own})
        size = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        counts = Counter(each["verdict"] for each in own)
        lines.append([stratum, str(len(own)), size, *(str(counts[verdict]) for verdict in VERDICTS)])
    return ["Stratum", "Requests", "Records", *VERDICTS], lines


def agreement_by(key: str, title: str, agreement: Rows) -> Grid:
    """How verdicts without retrained models compare with those from them, by stratum or by kind of model."""
    header = [title, "Models", "Same", "PASS, not FAIL", "FAIL, not PASS", "Other"]
    lines = []
    for name in dict.fromkeys(row[key] for row in agreement):
        counts = tally([row for row in agreement if row[key] == name])
        lines.append([name, *(str(n) for n in counts)])
    return header, lines


def tally(agreement: Rows) -> tuple[int, int, int, int, int]:
    """The numbers of models, of equal verdicts, of false PASSes, of false FAILs, and of the others."""
    pairs: Counter[str] = Counter()
    for row in agreement:
        pairs.update(row["pairs"])
    n, same = pairs.total(), sum(pairs[f"{verdict}/{verdict}"] for verdict in VERDICTS)
    passes, fails = pairs["PASS/FAIL"], pairs["FAIL/PASS"]
    return n, same, passes, fails, n - same - passes - fails


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What the tables mean, and which strata are missing."""
    return [agreement_sentence(found["agreement"]), *skipped_sentences(found)]


def agreement_sentence(agreement: Rows) -> str:
    """How often verdicts without retrained models agree, and how often they are the opposite."""
    requests = sum({row["stratum"]: row["requests"] for row in agreement}.values())
    n, same, passes, fails, _ = tally(agreement)
    return (
        f"Judged by the other requests alone, {same} of the {n} models of {requests} requests have the "
        f"verdict that their own retrained models give; {passes} PASS instead of FAIL, {fails} FAIL instead "
        "of PASS; the others are INCONCLUSIVE in one of both ways."
    )


def skipped_sentences(found: Mapping[str, Any]) -> list[str]:
    """A sentence per stratum without requests."""
    return [f"No requests of {why}." for why in found["skipped"].values()]


def audit_sentences(found: Mapping[str, Any]) -> list[str]:
    """What a verdict without references rests on."""
    about = found["about"]
    own = [row for row in found["agreement"] if row["stratum"] == found["stratum"]]
    facts = [
        f"{title} {cell(about[name])} (theirs {cell_range([each[name] for each in found['like']])})"
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


def cell(value: float) -> str:
    """A size, or a share."""
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def cell_range(values: list[float]) -> str:
    """The range of some sizes or shares."""
    low, high = cell(min(values)), cell(max(values))
    return low if low == high else f"{low} to {high}"
