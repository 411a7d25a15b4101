"""The template of the page: its environment, and the filters that turn values of a record into text."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unweave.families import metric_named
from unweave.report.numbers import DASH, digits, finite, heading, number, probability
from unweave.report.ranks import Ranking
from unweave.report.rows import PEAK_MEMORY, Row, is_outside
from unweave.report.tables import ONE_SEED, aim, is_ordered_by_one_seed, search_sentences

MINUS = "\N{MINUS SIGN}"
DATA_WORDS = {
    "name": "Data",
    "digest": "Digest of the split",
    **{part: f"{part.capitalize()} set" for part in ("forget", "retain", "calibration", "test")},
}
"""The names of facts about data that a record's own key does not explain."""
MOST_CLASSES = 10
"""The number of classes of a request on the first screen."""


@cache
def load_templates() -> Environment:
    """The templates of this folder, each compiled once, with the filters and names that they use."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "num": _num,
        "signed": _num_with_sign,
        "plain": _plain,
        "reason": _reason,
        "aim": aim,
    }
    environment.filters |= {"searched": search_sentences, "flat": flatten, "by_one": is_ordered_by_one_seed}
    environment.filters |= {"heading": heading, "p": probability, "diagram": rank_diagram}
    environment.filters |= {"says": metric_meaning, "deleted": deletion_facts}
    environment.filters |= {"data_facts": data_facts}
    environment.globals |= {"digits": digits, "outside": is_outside, "DASH": DASH, "ONE_SEED": ONE_SEED}
    environment.globals |= {"PEAK_MEMORY": PEAK_MEMORY}
    return environment


def rank_diagram(ranking: Ranking) -> Markup:
    """The diagram of mean ranks; matplotlib escapes the names that it draws."""
    from unweave.report.diagram import critical_difference  # matplotlib takes time to import

    return Markup(critical_difference(ranking))


def _num(value: float | None, decimals: int = 2) -> str:
    return number(value, decimals).replace("-", MINUS)


def _num_with_sign(value: float | None, decimals: int = 2) -> str:
    text = _num(value, decimals)
    return f"+{text}" if value is not None and text[0].isdigit() and text.strip("0.") else text


def _plain(item: object) -> str:
    if isinstance(item, list | tuple):
        return ", ".join(map(_plain, item)) or "none"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, float):
        return f"{item:.4g}".replace("-", MINUS) if finite(item) is not None else DASH
    return DASH if item is None else str(item)


def _reason(row: Row) -> str:
    """The reason as a sentence; the error of a failed method is quoted verbatim."""
    if row.status == "FAILED":
        return row.reason
    return row.reason[:1].upper() + row.reason[1:].rstrip(".") + "." if row.reason else ""


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a text; `{"a": {"b": 1}}` is `[("a.b", "1")]`.

    A value with its interval is one text.
    """
    pairs: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item.keys() == {"value", "low", "high"}:
            estimate, low, high = map(_plain, item.values())
            pairs.append((f"{prefix}{key}", f"{estimate} [{low}, {high}]"))
        elif isinstance(item, Mapping) and item:
            pairs += flatten(item, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", _plain(item)))
    return pairs


def data_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts about the data of a stage, as pairs of a name in words and a text."""
    words = {key: DATA_WORDS.get(key, key[:1].upper() + key[1:].replace("_", " ")) for key in data}
    return flatten({words[key]: value for key, value in data.items()})


def metric_meaning(metric: str) -> str:
    """One sentence on the meaning of a metric; empty if this version does not know it."""
    entry = metric_named(metric)
    return "" if entry is None else entry.says


def deletion_facts(
    request: Mapping[str, Any], date: str | None, *, audited: bool = True
) -> list[tuple[str, str]]:
    """The forget set, the model, the request and the date, as pairs of a name and a text.

    Args:
        request: The request of a stage.
        date: The date of the record.
        audited: Whether the model was audited then.
    """
    ids, more = ", ".join(map(str, request["ids"])), request["examples"] - len(request["ids"])
    days = (
        {"deleted": request["date"], "audited": date if audited else None} if request["date"] else {"": date}
    )
    facts = {
        "Deleted": f"{request['examples']} of {request['of']} {request.get('unit', 'examples')}",
        "First ids": f"{ids} and {more} more" if more else ids,
        "Labels": _classes(request["classes"]),
        "Model": request["model"],
        "Request": request["asked"],
        "Date": ", ".join(f"{what} {day}".strip() for what, day in days.items() if day),
    }
    return [(name, text) for name, text in facts.items() if text]


def _classes(counts: Mapping[str, int]) -> str:
    """The number of examples of each label, the most frequent first."""
    pairs = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(pairs) - MOST_CLASSES} more" if len(pairs) > MOST_CLASSES else ""
    return ", ".join(f"{label}: {count}" for label, count in pairs[:MOST_CLASSES]) + more
