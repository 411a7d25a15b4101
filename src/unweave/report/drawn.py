"""A table of texts as Markdown, as LaTeX, or as lines of plain text; none breaks on a hostile name."""

import io
from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from unweave.report.numbers import DASH

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": "$<$", ">": "$>$", "|": "$|$"} | {character: f"\\{character}" for character in "&%$#_{}"}
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_[]|~"}
_MARKDOWN |= {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}


def markdown(
    title: str, said: Sequence[str], header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int
) -> str:
    """A heading, sentences and a table whose first columns are words."""
    table = [[escaped(cell) for cell in line] for line in [header, *lines]]
    table.insert(1, [":--" if i < words else "--:" for i in range(len(header))])
    drawn = [f"| {' | '.join(line)} |" for line in table]
    return "\n".join([f"## {escaped(title)}", "", "\n\n".join(map(escaped, said)), "", *drawn])


def tabular(
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    words: int,
    bold: Collection[int] = (),
) -> str:
    """A booktabs tabular whose first columns are words, some lines with a bold name."""
    body = [
        [_escape(cell, _LATEX) for cell in line[:words]] + [_maths(cell) for cell in line[words:]]
        for line in lines
    ]
    for i in bold:
        body[i][0] = rf"\textbf{{{body[i][0]}}}"
    drawn = [" & ".join(line) + r" \\" for line in [[_escape(cell, _LATEX) for cell in header], *body]]
    columns = "l" * words + "r" * (len(header) - words)
    # A line break in the title would end the comment.
    top = [f"% {' '.join(title.split())}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*top, drawn[0], r"\midrule", *drawn[1:], r"\bottomrule", r"\end{tabular}"])


def plain(table: Table, width: int) -> list[str]:
    """The lines of a rich table, so many columns wide."""
    # A console of its own: neither colours nor the size of the caller's terminal get into the text.
    console = Console(
        file=io.StringIO(), width=width, no_color=True, force_terminal=False, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def escaped(text: str) -> str:
    """Text as Markdown shows it."""
    return _escape(text, _MARKDOWN)


def _maths(cell: str) -> str:
    """A number's signs as LaTeX sets them: a minus for a hyphen, an en dash where there is no number."""
    return cell.replace("-", "$-$").replace("<", "$<$").replace("±", r"$\pm$").replace(DASH, "--")


def _escape(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
