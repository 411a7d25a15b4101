"""The output of the verbs: a verdict in one line, then aligned tables; or one JSON object."""

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unweave.families import metric_named
from unweave.record.record import to_json_values
from unweave.report import frontier, table_formats, tables
from unweave.report.numbers import digits, heading, number

T = TypeVar("T")

TESTED = (
    "A figure with a margin is tested: it must be shown to lie within the margin. The others are only shown."
)
"""The legend of a verdict's table."""

WIDTH = 100
"""The number of columns without a terminal."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a cursor, change colours or the direction of text, or that no terminal can show."""


def console(least: int = 0) -> Console:
    """The console for results, at least `least` characters wide; a terminal breaks longer lines."""
    terminal = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    terminal.width = max(terminal.width, least)
    return terminal


def escape_controls(content: T) -> T:
    """Escapes control characters as Python does, in a text or in every text of tables and lists.

    Names and messages may come from an untrusted record, recipe or folder.
    """
    result: object = content
    if isinstance(content, str):
        result = CONTROL.sub(lambda control: control[0].encode("unicode_escape").decode(), content)
    elif isinstance(content, Mapping):
        result = {escape_controls(key): escape_controls(value) for key, value in content.items()}
    elif isinstance(content, list):
        result = [escape_controls(each) for each in content]
    return cast(T, result)


def print_lines(*lines: str) -> None:
    """Prints lines without breaks, so that a path or a command can be copied."""
    for line in lines:
        console().print(Text(escape_controls(line)), soft_wrap=True)


def print_sentences(*sentences: str) -> None:
    """Prints sentences, which a terminal breaks between words."""
    for sentence in sentences:
        console().print(Text(escape_controls(sentence)), soft_wrap=not sys.stdout.isatty())


def print_json(content: Mapping[str, Any]) -> None:
    """Prints one JSON object; numbers that are not finite become null."""
    print(json.dumps(to_json_values(content), indent=1, allow_nan=False))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[int] = (0,)
) -> None:
    """Prints a table; some columns hold words, the others numbers."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place, name in enumerate(header):
        justify = "left" if place in words else "right"
        grid.add_column(
            Text(escape_controls(name)), justify=justify, no_wrap=place not in words, overflow="fold"
        )
    for row in rows:
        grid.add_row(*(Text(escape_controls(cell)) for cell in row))
    console().print(grid)


def print_verdict(
    stage: Mapping[str, Any], row: Mapping[str, Any], original: Mapping[str, Any] | None = None
) -> None:
    """Prints the verdict on one model, then its figures with those of the original and the references."""
    print_sentences(row["reason"], "")
    original_scores = {} if original is None else original["scores"]
    rows = [
        figure_line(
            metric,
            score,
            stage["margins"] or {},
            [original_scores.get(metric, {}).get("value")] if original_scores else [],
        )
        for metric, score in row["scores"].items()
    ]
    header = [
        "Figure",
        "Unit",
        *(["Before"] if original_scores else []),
        "Model",
        "Expected" if "qualified" in stage else "Retrained",
        "Difference",
        "Margin",
    ]
    print_table([*header, "Aim"], rows, words=(0, 1, len(header)))
    print_sentences("", TESTED)


def figure_line(
    metric: str,
    score: Mapping[str, Any],
    margins: Mapping[str, float | None],
    original_values: Sequence[float | None] = (),
) -> list[str]:
    """One line of a verdict's table; the value of the original, if known, comes first."""
    aim = {"match": "equal", "lower": "low", "higher": "high"}[score["direction"]]
    entry = metric_named(metric)
    assert entry is not None
    gap = None if entry.needs_reference else score["gap"]  # the margin applies to the value itself
    numbers = [*original_values, score["value"], score["reference"], gap, margins.get(metric)]
    return [heading(metric), entry.unit, *(number(each, digits(metric)) for each in numbers), aim]


def print_stages(record: Mapping[str, Any]) -> None:
    """Prints the verdict of every stage, then their tables."""
    record = escape_controls(record)
    if not sys.stdout.isatty():
        print(tables.text(record, width=WIDTH))
        return
    for name, each in record.get("frontier", {}).items():
        print_lines(*frontier.text(name, each, width=console().width))
    for name, stage in record["stages"].items():
        console().print(Text(name, style="bold"))
        print_sentences(*tables.sentences(stage), "")
        grid = tables.terminal(stage, width=console().width)
        console(table_formats.breadth(grid)).print(grid)
        print_lines(*tables.attacked_methods_text(stage, console().width))
        print_lines("")
    console().print(Text(tables.legend(record, width=console().width), style="dim"))
