"""Commands in several processes, as torchrun starts them, for spawned processes to import."""

import io
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from fork_server import fork_server

TIMEOUT = 300.0
"""The seconds after which a command counts as hung, on a loaded machine."""


@dataclass(frozen=True)
class Output:
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
    torch.set_num_threads(1)
    replace_environment(environment)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number, command in enumerate(commands):
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(number)}
        run_and_write(command, Path(folder) / f"{number}-{rank}.pt")


def replace_environment(environment: Mapping[str, str]) -> None:
    """Gives this process another environment: a forked one has that of its server."""
    os.environ.clear()
    os.environ |= environment


def run_and_write(command: Sequence[str], path: Path) -> None:
    """Runs a command in this process, and writes what it said."""
    from unweave.cli import main

    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        code = main(command)
    torch.save([code, output.getvalue(), error.getvalue()], path)


def run_shared(commands: Sequence[Sequence[str]], folder: Path, count: int = 2) -> list[list[Output | None]]:
    """Runs commands in several processes; returns what each process said, or None if it was killed."""
    context = fork_server()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    running = [
        context.Process(target=work, args=(rank, count, store.port, commands, str(folder), dict(os.environ)))
        for rank in range(count)
    ]
    run_to_end(running)
    return [
        [read(folder / f"{number}-{rank}.pt") for rank in range(count)] for number in range(len(commands))
    ]


def run_to_end(processes: Sequence[BaseProcess]) -> None:
    """Runs processes at once; none may hang."""
    for each in processes:
        each.start()
    for each in processes:
        each.join(TIMEOUT)
    hung = [each for each in processes if each.is_alive()]
    for each in hung:
        each.kill()
    assert not hung, f"{len(hung)} of {len(processes)} processes did not end"


def launch(command: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    """Does what `torchrun --standalone` does, but for an interpreter's start in each of its two processes."""
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    replace_environment(environment)
    standalone = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", "alone"]
    config, *_ = config_from_args(parse_args([*standalone, "--nproc-per-node", "2", "-m", "unweave"]))
    elastic_launch(replace(config, start_method="fork"), work_as_launched)(command, folder)


def work_as_launched(command: Sequence[str], folder: str) -> None:
    """Runs a command in a process that a launcher has started."""
    torch.set_num_threads(1)
    run_and_write(command, Path(folder) / f"0-{os.environ['RANK']}.pt")


def run_by_launcher(command: Sequence[str], folder: Path) -> list[Output | None]:
    """Runs a command in two processes of torchrun's launcher; returns what each said."""
    launcher = fork_server().Process(target=launch, args=(command, str(folder), dict(os.environ)))
    run_to_end([launcher])
    assert launcher.exitcode == 0, launcher.exitcode
    return [read(folder / f"0-{rank}.pt") for rank in range(2)]


def run_torchrun(arguments: Sequence[str], path: Path) -> tuple[int | None, str]:
    """Gives torchrun's command, which starts an interpreter; returns its exit code and what was printed."""
    torchrun = fork_server().Process(target=start_by_torchrun, args=(arguments, path, dict(os.environ)))
    run_to_end([torchrun])
    return torchrun.exitcode, path.read_text()


def start_by_torchrun(arguments: Sequence[str], path: Path, environment: Mapping[str, str]) -> None:
    """Runs torchrun with one process, which prints into a file as this one does."""
    from torch.distributed.run import main

    replace_environment(environment)
    with path.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main(["--nproc-per-node", "1", *arguments])


def work_on_copy(script: Path, arguments: Sequence[str], path: Path) -> None:
    """Runs a script with the package of its own folder, and writes what it said."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "unweave"]:
        del sys.modules[name]
    torch.set_num_threads(1)
    os.chdir(script.parent)
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *arguments]
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
    torch.save([code, output.getvalue(), error.getvalue()], path)


def run_script(script: Path, arguments: Sequence[str]) -> Output | None:
    """Runs a script beside a copy of the package, which is imported anew; all else is loaded."""
    path = script.with_suffix(".pt")
    run_to_end([fork_server().Process(target=work_on_copy, args=(script, arguments, path))])
    return read(path)


def read(path: Path) -> Output | None:
    """What a process said; None if it was killed before it could write that down."""
    return Output(*torch.load(path, weights_only=True)) if path.exists() else None
