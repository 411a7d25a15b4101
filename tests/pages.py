"""README, CONTRIBUTING and docs, taken apart: blocks of code, text, tables, headings, figures."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *("README.md", "CONTRIBUTING.md"),
    *(page.relative_to(ROOT).as_posix() for page in sorted((ROOT / "docs").rglob("*.md"))),
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w-]+\.(?:py|toml))\n")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
RECORD = re.compile(r"records/([\w.-]*\w)")

UNIT = r"%|points?\b|times\b|x\b|ms\b|seconds?\b|minutes?\b|MiB\b|GiB\b"
FIGURE = re.compile(rf"(?<![\w.])(?:\d+\.\d+|\d+(?= ?(?:{UNIT})))")
DEFINED = re.compile(
    r"Python 3\.\d+|Apache-2\.0|arXiv \d+\.\d+|doi \S+|95 % (?:interval|quantile)|1\.5 x the"
)
"""Numbers that name something or that the code defines: none of them was measured."""


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        language: What the fence says.
        code: The text.
        place: Page and line, for messages.
    """

    language: str
    code: str
    place: str

    @property
    def file(self) -> str | None:
        """The file that the first line says this is."""
        match = FILE.match(self.code)
        return match[1] if match else None

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a block for the shell, each as words."""
        return [shlex.split(command) for line in self.code.splitlines() for command in line.split("&&")]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    content = text(page)
    lines = [content.count("\n", 0, match.start()) + 1 for match in FENCE.finditer(content)]
    match = zip(FENCE.findall(content), lines, strict=True)
    return [Block(language, code, f"{page}, line {line}") for (language, code), line in match]


def prose(page: str) -> str:
    """The text of a page without its blocks."""
    return FENCE.sub("", text(page))


def code_in(page: str) -> list[list[str]]:
    """The code within the text of a page, each as words."""
    return [match.split() for match in re.findall(r"`([^`\n]+)`", prose(page))]


def sections(page: str) -> list[str]:
    """The text below each heading, with the heading."""
    return re.split(r"^#+ ", prose(page), flags=re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The names under which the headings of a page can be linked to."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def figures(section: str) -> list[str]:
    """The numbers that look measured: not in code, no address, no definition."""
    plain = re.sub(r"^ {4}.*$|`[^`]*`|\]\([^)]*\)", "", section, flags=re.MULTILINE)
    return FIGURE.findall(DEFINED.sub("", plain))


def table(page: str, header: str) -> Mapping[str, list[str]]:
    """The rows of the table under a header, by each name in code in their first cell."""
    lines = text(page).splitlines()
    body = lines[lines.index(header) + 2 :]
    end = next((i for i, line in enumerate(body) if not line.startswith("|")), len(body))
    cells = [line.strip("| ").split(" | ") for line in body[:end]]
    return {name: row for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


TRAINING = re.compile(r"(?<=for _ in range\()\d+(?=\):)")
"""The number of epochs or steps of a loop that trains."""


REFERENCES = re.compile(r"(?<=seeds=range\()10(?=\))")
"""The number of models that an audit in Python retrains, beside twelve that fix the margins."""


def shorten_training(code: str, *, audited: bool) -> str:
    """The code of a page or an example with few steps, and with two references if no test reads its audit."""
    shorter = TRAINING.sub(lambda match: str(max(1, int(match[0]) // 30)), code)
    return shorter if audited else REFERENCES.sub("2", shorter)
