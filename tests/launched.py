"""Commands in several processes, as torchrun starts them, for spawned processes to import."""

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from fork_server import fork_server

TIMEOUT = 300.0
"""The seconds after which a command counts as hung, on a loaded machine."""


@dataclass(frozen=True)
class Said:
    """What a process printed, and its exit code."""

    code: int
    out: str
    error: str


def work(
    rank: int,
    count: int,
    port: int,
    commands: Sequence[Sequence[str]],
    folder: str,
    environment: Mapping[str, str],
) -> None:
    """Runs the commands one after the other, each in a process group of its own."""
    from unweave.cli import main

    torch.set_num_threads(1)
    os.environ.clear()  # a forked process has the environment of its server
    os.environ |= environment
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number, command in enumerate(commands):
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(number)}
        out, error = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(error):
            code = main(command)
        torch.save([code, out.getvalue(), error.getvalue()], Path(folder) / f"{number}-{rank}.pt")


def run_shared(commands: Sequence[Sequence[str]], folder: Path, count: int = 2) -> list[list[Said | None]]:
    """Runs commands in several processes; returns what each process said, or None if it was killed."""
    context = fork_server()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    running = [
        context.Process(target=work, args=(rank, count, store.port, commands, str(folder), dict(os.environ)))
        for rank in range(count)
    ]
    for each in running:
        each.start()
    for each in running:
        each.join(TIMEOUT)
    hung = [each for each in running if each.is_alive()]
    for each in hung:
        each.kill()
    assert not hung, f"{len(hung)} of {count} processes did not end"
    return [
        [read(folder / f"{number}-{rank}.pt") for rank in range(count)] for number in range(len(commands))
    ]


def read(path: Path) -> Said | None:
    """What a process said; None if it was killed before it could write that down."""
    return Said(*torch.load(path, weights_only=True)) if path.exists() else None
