"""The folder of a run, with its record and the page of the record."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unweave.bench.workers import Listener
from unweave.cli.inputs import out
from unweave.cli.terminal import progress
from unweave.record import record
from unweave.report import html


@contextmanager
def claim_folder(what: str, place: Path, facts: out.Facts, *, quiet: bool) -> Iterator[Listener]:
    """Claims a folder for the body, which writes a record there; then writes the page of the record."""
    start = f"Running {what} in {place}"
    with out.open_folder(place, facts), progress.show_progress(start, quiet=quiet) as listener:
        yield listener
        html.write(record.load(place), place / html.FILE)
