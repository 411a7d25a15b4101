"""A file of prompts: one a line, or a table with a column `prompt`, as that of I2P."""

import csv
from pathlib import Path

COLUMN = "prompt"


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
        found = read_column(path) if path.suffix.lower() == ".csv" else path.read_text("utf-8").splitlines()
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    prompts = tuple(dict.fromkeys(text.strip() for text in found if text.strip()))
    if not prompts:
        raise ValueError(f"{path} has no prompts: expected one a line")
    return prompts


def read_column(path: Path) -> list[str]:
    """Reads the prompts of a table."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or ()
        if COLUMN not in columns:
            raise ValueError(f"{path} must have a column {COLUMN!r}, found {', '.join(columns) or 'none'}")
        return [row[COLUMN] or "" for row in rows]
