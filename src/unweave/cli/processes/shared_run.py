"""What several processes that share a run of `forget` agree on."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from unweave.cli.inputs import out
from unweave.weights.processes import Processes


@contextmanager
def open_on_first(folder: Path, run_facts: out.Facts, claim: str) -> Iterator[None]:
    """Claims the folder of a run for the body, on the first process."""
    first = Processes.current().rank == 0
    with out.open_folder(folder, run_facts, claim=claim) if first else nullcontext():
        yield


def refuse_other_facts(run_facts: out.Facts) -> None:
    """Raises if this process has another model or other data than the first."""
    processes, own = Processes.current(), out.as_read_back(run_facts)
    first = processes.from_first(lambda: own)
    others = [name for name, fact in own.items() if fact != first.get(name)]
    if others:
        raise ValueError(
            f"all processes must load the same model and data, found another {others[0]!r} on process "
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
