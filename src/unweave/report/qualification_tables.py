"""A qualification as tables and sentences, for every form of a report."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE")
Grid = tuple[list[str], list[list[str]]]


def grids(found: Mapping[str, Any]) -> list[Grid]:
    """The header and the lines of both tables: verdicts by stratum, and agreement by kind of model."""
    return [by_stratum(found), by_model(found["agreement"])]


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


def by_model(agreement: Mapping[str, Any]) -> Grid:
    """A line per kind of model: how verdicts without retrained models compare with those from them."""
    header = ["Without retraining", "Models", "Same", "PASS, not FAIL", "FAIL, not PASS", "Other"]
    lines = []
    for kind, row in agreement.items():
        wrong = [row["pairs"].get(pair, 0) for pair in ("PASS/FAIL", "FAIL/PASS")]
        rest = row["models"] - row["same"] - sum(wrong)
        lines.append([kind, *(str(n) for n in (row["models"], row["same"], *wrong, rest))])
    return header, lines


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What the tables mean, and which strata are missing."""
    return [agreement_sentence(found["agreement"]), *skipped_sentences(found)]


def agreement_sentence(agreement: Mapping[str, Any]) -> str:
    """How often verdicts without retrained models agree, and how often they are the opposite."""
    rows = agreement.values()
    n, same = (sum(row[key] for row in rows) for key in ("models", "same"))
    opposite = sum(row["pairs"].get(pair, 0) for row in rows for pair in ("PASS/FAIL", "FAIL/PASS"))
    return (
        f"Judged by the other requests alone, {same} of {n} models have the verdict that their own retrained "
        f"models give, and {opposite} the opposite one; the others are INCONCLUSIVE in one of both ways."
    )


def skipped_sentences(found: Mapping[str, Any]) -> list[str]:
    """A sentence per stratum without requests."""
    return [f"No requests of {why}." for why in found["skipped"].values()]


def audit_sentences(found: Mapping[str, Any]) -> list[str]:
    """What a verdict without references rests on."""
    about = found["about"]
    like = found["like"]
    facts = [
        f"{title} {cell(about[name])} (theirs {cell_range([each[name] for each in like])})"
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
        f"In the qualification {found['digest'][:12]}: {agreement_sentence(found['agreement'])}",
    ]


def cell(value: float) -> str:
    """A size, or a share."""
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def cell_range(values: list[float]) -> str:
    """The range of some sizes or shares."""
    low, high = cell(min(values)), cell(max(values))
    return low if low == high else f"{low} to {high}"
