"""Tables of texts as Markdown, LaTeX, or lines of plain text; hostile names are escaped."""

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
    title: str, notes: Sequence[str], header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int
) -> str:
    """A heading, sentences and a table whose first columns are words."""
    table = [[escape(cell) for cell in line] for line in [header, *lines]]
    table.insert(1, [":--" if i < words else "--:" for i in range(len(header))])
    rows = [f"| {' | '.join(line)} |" for line in table]
    return "\n".join([f"## {escape(title)}", "", "\n\n".join(map(escape, notes)), "", *rows])


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
    rows = [" & ".join(line) + r" \\" for line in [[_escape(cell, _LATEX) for cell in header], *body]]
    columns = "l" * words + "r" * (len(header) - words)
    # A line break in the title would end the comment.
    top = [f"% {' '.join(title.split())}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    return "\n".join([*top, rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}"])


def columns(header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int, width: int) -> Table:
    """A rich table whose first columns are words; intervals go below numbers if room is scarce.

    Nothing is ever cut, so a table of many columns may be wider than `width`.

    Args:
        header: The header of each column.
        lines: The lines of cells.
        words: The number of columns with words.
        width: columns to fill, characters.
    """
    # By default rich gives some columns more width than they need, and cuts the last ones.
    cells = list(zip(header, *lines, strict=True))
    widths = [max(map(len, column)) for column in cells]
    if sum(widths) + len(widths) - 1 > width:
        widths[words:] = map(longest_word, cells[words:])
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for i, title in enumerate(header):
        table.add_column(Text(title), justify="left" if i < words else "right", width=widths[i])
    return table


def text_lines(header: Sequence[str], lines: Sequence[Sequence[str]], *, words: int, width: int) -> list[str]:
    """The lines of a table of plain text, whose first columns are words."""
    table = columns(header, lines, words=words, width=width)
    for line in lines:
        table.add_row(*texts(line))
    return plain_lines(table)


def texts(line: Sequence[str]) -> list[Text]:
    """The cells of a line for a rich table, without markup."""
    return [Text(cell) for cell in line]


def wrap(sentences: Sequence[str], width: int) -> list[str]:
    """Wraps sentences into lines; each sentence starts a line."""
    return [line for sentence in sentences for line in textwrap.wrap(sentence, width)]


def longest_word(cells: Sequence[str]) -> int:
    """The smallest width of a column, in characters."""
    return max(len(word) for cell in cells for word in cell.split())


def breadth(table: Table) -> int:
    """The width of a table from `columns`, in characters."""
    return sum((column.width or 0) + 1 for column in table.columns)


def plain_lines(table: Table) -> list[str]:
    """The lines of a table from `columns`."""
    # A separate console keeps the colours and the size of the caller's terminal out of the text.
    console = Console(
        file=io.StringIO(), width=breadth(table), no_color=True, force_terminal=False, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def escape(text: str) -> str:
    """Escapes text for Markdown."""
    return _escape(text, _MARKDOWN)


def _maths(cell: str) -> str:
    """Converts signs for LaTeX: a hyphen to a minus, a missing number to an en dash."""
    return cell.replace("-", "$-$").replace("<", "$<$").replace("±", r"$\pm$").replace(DASH, "--")


def _escape(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
