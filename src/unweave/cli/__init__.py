"""The command line: one file per verb.

Exit codes: 0 done, 1 FAIL or INCONCLUSIVE from `audit`, 2 bad input and nothing was written, 3 the run
itself failed, 130 interrupted. An error is one line on the standard error.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

import torch
from cyclopts import App, CycloptsError, Parameter
from safetensors import SafetensorError

from unweave import __version__
from unweave.cli import attacks, audit, bench, check, demo, forget, methods, process_group, qualify, report
from unweave.cli.terminal.show import escape_controls
from unweave.errors import Failed

DONE, NOT_PASSED, BAD_INPUT, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
REFUSALS = (
    CycloptsError,
    ValueError,
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    ImportError,  # an extra is not installed; the message names it
)
"""The errors that mean bad input."""

app = App(
    name="unweave",
    help="Make a trained model forget some of its data, and compare it with models retrained without it.",
    help_epilogue="Exit codes: 0 done; 1 audit: FAIL or INCONCLUSIVE; 2 bad input, and nothing was written; "
    "3 the run failed; 130 interrupted.",
    version=__version__,
    default_parameter=Parameter(negative=(), show_default=False),
    suppress_keyboard_interrupt=False,
)
for order, verb in enumerate(
    (demo.demo, methods.methods, attacks.attacks, check.check, forget.forget, audit.audit, report.report)
):
    app.command(verb, sort_key=order)
app.command(bench.app)
app.command(qualify.qualify, sort_key=4.6)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    Args:
        arguments: The arguments after the program's name; those of this process if None.
    """
    words = sys.argv[1:] if arguments is None else arguments
    is_launched = process_group.is_launched()
    code, error = process_group.run_shared(lambda: run(words), words) if is_launched else run(words)
    if error is not None:
        print(f"unweave: {escape_controls(' '.join(error.split()))}", file=sys.stderr)
    return code


def run(arguments: Sequence[str]) -> process_group.Outcome:
    """Runs the command line; returns the exit code and the text of an error."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except REFUSALS as error:
        return BAD_INPUT, str(error)
    except BrokenPipeError:  # the reader of the pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED, None
    except Failed as error:
        return FAILED, str(error)
    except (OSError, SafetensorError) as error:  # the second from a model's own format, on a full disk
        return (
            FAILED,
            f"writing failed: {error}; what is finished stays, and the same command goes on from there",
        )
    except torch.OutOfMemoryError as error:
        return FAILED, f"the device is out of memory: {str(error).splitlines()[0]}: use smaller batches"
    except BrokenProcessPool:
        return FAILED, "a worker process was killed, perhaps for lack of memory: use fewer --jobs"
    except SystemExit as error:
        if error.code:
            raise
        return BAD_INPUT, "the project's code ended the program: sys.exit() would read as a PASS"
    except KeyboardInterrupt:
        return INTERRUPTED, "interrupted: what is finished stays, and the same command goes on from there"
    return code or DONE, None
