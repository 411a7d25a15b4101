"""A file of prompts: one a line, or a table with a column `prompt`, as that of I2P."""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMN = "prompt"

SEED, GUIDANCE = ("sd_seed", "evaluation_seed"), ("sd_guidance_scale", "evaluation_guidance")
"""The columns of I2P, and of its copies beside the code of papers on erasing concepts."""

SEEDS = 2**62
"""Seeds are below it: those of the further images of a prompt are in range as well."""

DIGITS = len(str(SEEDS))


@dataclass(frozen=True)
class PromptRow:
    """A row of a table of prompts.

    Args:
        text: The prompt.
        seed: The seed of its image; None if the table has none.
        guidance: The guidance of its image; None if the table has none.
    """

    text: str
    seed: int | None = None
    guidance: float | None = None


def read_prompt_rows(place: str | Path) -> tuple[PromptRow, ...]:
    """Reads the rows of a table of prompts, with seeds and guidances in the columns of I2P if there are any.

    Rows may share a prompt: each is drawn with its own seed and guidance. A row that repeats another in all
    three counts once.

    Args:
        place: A `.csv` file with a header.

    Raises:
        ValueError: If there is no such file, it can't be read, has no prompts or no column of them, or a seed
            or guidance is no number; the error names the row.
    """
    path = Path(place)
    if not path.is_file():
        raise ValueError(f"expected a table of prompts, found none at {path}")
    try:
        rows = list(read_table(path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    numbered_rows = [(number, row) for number, row in enumerate(rows, 1) if row[COLUMN].strip()]
    if not numbered_rows:
        raise ValueError(f"{path} has no prompts: expected one a row")
    return tuple(dict.fromkeys(make_row(row, f"row {number} of {path}") for number, row in numbered_rows))


def make_row(row: Mapping[str, str], where: str) -> PromptRow:
    """A row; raises if a number in it is none."""
    return PromptRow(row[COLUMN].strip(), seed_of(row, where), guidance_of(row, where))


def seed_of(row: Mapping[str, str], where: str) -> int | None:
    """The seed of a row."""
    name, text = value_of(row, SEED)
    if not text:
        return None
    digits = text.lstrip("0") or text[-1]  # Python refuses to convert thousands
    if not (text.isascii() and text.isdigit()) or len(digits) > DIGITS or int(digits) >= SEEDS:
        raise ValueError(f"{where}: {name} must be a whole number in [0, 2^62), found {text!r}")
    return int(text)


def guidance_of(row: Mapping[str, str], where: str) -> float | None:
    """The guidance of a row."""
    name, text = value_of(row, GUIDANCE)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{where}: {name} must be a number in [0, inf), found {text!r}")
    return value


def value_of(row: Mapping[str, str], columns: tuple[str, ...]) -> tuple[str, str]:
    """The name of the first of these columns that has a value, and the value; nothing if none has one."""
    return next(((name, row[name].strip()) for name in columns if row.get(name, "").strip()), ("", ""))


def read_prompt_list(place: str | Path) -> tuple[str, ...]:
    """Reads the distinct prompts of a file, in their order; other columns of a table are ignored.

    Args:
        place: A `.csv` file with a header, or a text file.

    Raises:
        ValueError: If there is no such file, it is not UTF-8, has no prompts, or a table has no such column.
    """
    path = Path(place)
    if not path.is_file():
        raise ValueError(f"expected a file of prompts, found none at {path}")
    try:
        table = path.suffix.lower() == ".csv"
        lines = (
            [row[COLUMN] for row in read_table(path)] if table else path.read_text("utf-8-sig").splitlines()
        )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    prompts = tuple(dict.fromkeys(text.strip() for text in lines if text.strip()))
    if not prompts:
        raise ValueError(f"{path} has no prompts: expected one a line")
    return prompts


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """Yields the rows of a table of prompts."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        if COLUMN not in columns:
            raise ValueError(f"{path} must have a column {COLUMN!r}, found {', '.join(columns) or 'none'}")
        yield from ({key: value or "" for key, value in row.items() if key} for row in rows)
