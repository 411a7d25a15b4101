"""What measurements of time share: rounds that begin with another name each, and options."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path


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
