"""`torchrun -m unweave forget ...`, or `check`: several processes that share one model.

All processes run the same command. The first one writes and prints. An error ends them all, and the process
that met it first prints it.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from unweave.cli.inputs import out
from unweave.weights.processes import Processes

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets for each process; accelerate's launcher sets the same."""

SHARED_VERBS = ("check", "forget")
"""The verbs that several processes can share."""

PATIENCE = timedelta(days=7)
"""The longest wait for another process, which may train an original. A dead one is noticed at once."""

CLEANUP = timedelta(seconds=5)
"""The longest wait, after an error, for the other processes to clean up before torchrun kills them."""

BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed")
"""What torch's errors say when a process at the other end has ended."""

ENDED = 3
"""The exit code after another process has ended."""

Outcome = tuple[int, str | None]
"""An exit code, and the text of an error."""


def is_launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def run_shared(run: Callable[[], Outcome], arguments: Sequence[str]) -> Outcome:
    """Runs a command in this process and those that torchrun started with it.

    Args:
        run: Runs the command.
        arguments: The arguments after the program's name.

    Returns:
        The exit code, and the text of an error if this process has to print it.
    """
    with join_group() as failures:
        try:
            code, error = refuse_other_verbs(arguments) or run_quietly(run)
        except BaseException as raised:
            if not failures.add_first():
                return ENDED, None
            if not any(text in str(raised) for text in BROKEN):
                raise
            return ENDED, "another process has ended, perhaps for lack of memory: use smaller batches"
        return code, error if error is not None and failures.add_first() else None


def refuse_other_verbs(arguments: Sequence[str]) -> Outcome | None:
    """The error of a verb that several processes can't share; None for the others."""
    verb = next((each for each in arguments if not each.startswith("-")), None)
    if verb is None or verb in SHARED_VERBS:
        return None
    count, verbs = os.environ["WORLD_SIZE"], " and ".join(SHARED_VERBS)
    return 2, f"{verb} runs in one process, found {count}: start it without torchrun, which is for {verbs}"


class Failures:
    """Counts the processes that have failed, in the store that torchrun holds.

    Args:
        store: The store of the group.
    """

    def __init__(self, store: dist.Store) -> None:
        self.store, self.any = store, False

    def add_first(self) -> bool:
        """Counts this process as failed; returns whether it is the first."""
        self.any = True
        with suppress(RuntimeError):  # the store went with the process that held it
            return self.store.add("failures", 1) == 1
        return False

    def wait_for_others(self) -> None:
        """Waits until the other processes have cleaned up, for a while."""
        with suppress(RuntimeError):
            self.store.set(f"ended {os.environ['RANK']}", "")
            self.store.wait([f"ended {rank}" for rank in range(int(os.environ["WORLD_SIZE"]))], CLEANUP)


@contextmanager
def join_group() -> Iterator[Failures]:
    """Joins the process group for the body."""
    base_store, rank, count = next(dist.rendezvous("env://"))
    # torchrun's store outlives the processes that it starts again
    store = dist.PrefixStore(f"unweave {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", base_store)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group(
        store=dist.PrefixStore("group", store), rank=rank, world_size=count, timeout=PATIENCE
    )
    failures = Failures(dist.PrefixStore("errors", store))
    handler = signal.signal(signal.SIGTERM, interrupt)  # of torchrun, after another process has failed
    try:
        yield failures
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left but to clean up
        dist.destroy_process_group()
        if failures.any:
            failures.wait_for_others()
        signal.signal(signal.SIGTERM, handler)


def interrupt(number: int, frame: object) -> None:
    """Ends the run as Ctrl-C does, so that it cleans up."""
    raise KeyboardInterrupt


def run_quietly(run: Callable[[], Outcome]) -> Outcome:
    """Runs a command; only the first process prints."""
    with ExitStack() as stack:
        if Processes.current().rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        return run()


@contextmanager
def open_on_first(folder: Path, run_facts: out.Facts, claim: str) -> Iterator[None]:
    """Claims the folder of a run for the body, on the first process."""
    is_first = Processes.current().rank == 0
    with out.open_folder(folder, run_facts, claim=claim) if is_first else nullcontext():
        yield


def refuse_other_facts(run_facts: out.Facts) -> None:
    """Raises if this process has another model or other data than the first."""
    processes, own_facts = Processes.current(), out.as_read_back(run_facts)
    first_facts = processes.from_first(lambda: own_facts)
    names = [name for name, fact in own_facts.items() if fact != first_facts.get(name)]
    if names:
        raise ValueError(
            f"all processes must load the same model and data, found another {names[0]!r} on process "
            f"{processes.rank}: let load() seed what it draws"
        )


def refuse_unfit_flags(*, shard: bool, blocks: str | None, save_every: int | None, concept: bool) -> None:
    """Raises if flags do not fit each other or the number of processes."""
    count = Processes.current().count
    if blocks is not None and not shard:
        raise ValueError("--blocks goes with --shard, found it alone: add --shard")
    if shard and count == 1:
        raise ValueError(
            "--shard cuts the model over several processes, found one: start it with torchrun, such as "
            "torchrun --nproc-per-node 2 -m unweave forget ..."
        )
    if save_every is not None and save_every < 1:
        raise ValueError(f"--save-every needs one step or more, found {save_every}")
    if concept and save_every is not None:
        raise ValueError(
            "--save-every does not go with --concept, whose training saves no states: leave it out"
        )
    if concept and count > 1:
        raise ValueError(f"--concept runs in one process, found {count}: start it without torchrun")
