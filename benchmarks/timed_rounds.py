"""What measurements of time share: rounds that begin with another name each, options, and the record."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rows import write_json


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Yields all names once a round; each round begins with another one, since a machine's speed drifts."""
    for i in range(rounds):
        first = i % len(names)
        yield from (*names[first:], *names[:first])


def make_parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with the number of rounds and the file of the record."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--record", type=Path, help="the file that gets all figures as JSON")
    return parser


def write_record(place: Path | None, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON if there is a place for it."""
    if place is not None:
        write_json(place, record)
