"""A table of texts as Markdown, as LaTeX, or as lines of plain text; none breaks on a hostile name."""

import io
import textwrap
from collections.abc import Collection, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unweave.report.numbers import DASH

_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {"<": "$<$", ">": "$>$", "|": "$|$"} | {character: f"\\{character}" for character in "&%$#_{}"}
_MARKDOWN = {character: f"\\{character}" for character in "\\`*_[]|~"}
_MARKDOWN |= {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " ", "\r": " "}


def markdown(
    title: str, said: Sequence[str], header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int
) -> str:
    """A heading, sentences and a table whose first columns are words."""
    table = [[escape(cell) for cell in line] for line in [header, *lines]]
    table.insert(1, [":--" if i < words else "--:" for i in range(len(header))])
    drawn = [f"| {' | '.join(line)} |" for line in table]
    return "\n".join([f"## {escape(title)}", "", "\n\n".join(map(escape, said)), "", *drawn])


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


def columns(header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int, width: int) -> Table:
    """The columns of a rich table, the first of them words; intervals stand below numbers if room is scarce.

    Nothing is ever cut, so a table of many columns may be wider than asked for.

    Args:
        header: of the columns.
        lines: of cells.
        words: how many columns hold words.
        width: columns to fill, characters.
    """
    # Left to itself, rich gives some columns more than they need, and cuts the last ones.
    cells = list(zip(header, *lines, strict=True))
    widths = [max(map(len, column)) for column in cells]
    if sum(widths) + len(widths) - 1 > width:
        widths[words:] = map(longest_word, cells[words:])
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for i, title in enumerate(header):
        table.add_column(Text(title), justify="left" if i < words else "right", width=widths[i])
    return table


def texts(line: Sequence[str]) -> list[Text]:
    """The cells of a line as a rich table takes them, whatever they hold."""
    return [Text(cell) for cell in line]


def wrap(sentences: Sequence[str], width: int) -> list[str]:
    """Sentences as lines, each beginning with one."""
    return [line for sentence in sentences for line in textwrap.wrap(sentence, width)]


def longest_word(cells: Sequence[str]) -> int:
    """How wide a column must be at least, in characters."""
    return max(len(word) for cell in cells for word in cell.split())


def breadth(table: Table) -> int:
    """How many characters wide `columns` made a table."""
    return sum((column.width or 0) + 1 for column in table.columns)


def plain_lines(table: Table) -> list[str]:
    """The lines of a table that `columns` made."""
    # A console of its own: neither colours nor the size of the caller's terminal get into the text.
    console = Console(
        file=io.StringIO(), width=breadth(table), no_color=True, force_terminal=False, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def escape(text: str) -> str:
    """Text as Markdown shows it."""
    return _escape(text, _MARKDOWN)


def _maths(cell: str) -> str:
    """A number's signs as LaTeX sets them: a minus for a hyphen, an en dash where there is no number."""
    return cell.replace("-", "$-$").replace("<", "$<$").replace("±", r"$\pm$").replace(DASH, "--")


def _escape(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
