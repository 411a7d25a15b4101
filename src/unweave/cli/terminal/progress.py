"""The progress of a run: a bar on a terminal, plain lines elsewhere, nothing with --quiet.

It goes to the standard error, separate from the result.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from unweave.bench.workers import Listener, Progress
from unweave.cli.terminal.show import escape_controls


@contextmanager
def show_progress(start: str, *, quiet: bool) -> Iterator[Listener]:
    """A listener that shows progress as a bar or as lines.

    Args:
        start: The text before the first message.
        quiet: Show nothing.
    """
    if quiet:
        yield lambda progress: None
    elif sys.stderr.isatty():
        with make_bars() as bar:
            yield Bar(bar, start)
    else:
        print(escape_controls(start), file=sys.stderr, flush=True)
        yield print_line


def make_bars() -> Bars:
    """A bar that disappears at the end."""
    count_columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Bars(
        SpinnerColumn(),
        *count_columns,
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


class Bar:
    """A listener that moves a bar.

    Args:
        bar: The bars of a terminal.
        start: The text before the first message.
    """

    def __init__(self, bar: Bars, start: str) -> None:
        self.bar, self.task = bar, bar.add_task(escape_controls(start), total=None)

    def __call__(self, progress: Progress) -> None:
        """Moves the bar."""
        label = escape_controls(progress.label)
        self.bar.update(self.task, completed=progress.done, total=progress.total, description=label)


def print_line(progress: Progress) -> None:
    """Prints progress as a line."""
    width, label = len(str(progress.total)), escape_controls(progress.label)
    print(f"{progress.done:>{width}}/{progress.total}  {label}", file=sys.stderr, flush=True)
