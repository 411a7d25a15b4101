"""A project whose process is killed in the middle of a run, and commands that are killed and given again."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

import launched
import projects

KILL = "UNWEAVE_TEST_KILL"
"""The rank of the process to kill, its forward pass in training, and the seconds from there."""

MORTAL = f"""
import os
import signal
import threading


class Mortal(Net):
    passes = 0

    def forward(self, x, scale):
        Mortal.passes += self.training
        rank, number, seconds = os.environ.get({KILL!r}, "- 0 0").split()
        if rank == os.environ.get("RANK") and int(number) == Mortal.passes:
            die = threading.Timer(float(seconds), os.kill, (os.getpid(), signal.SIGKILL))
            die.start() if float(seconds) else die.function(*die.args)
        return super().forward(x, scale)


def load():
    torch.manual_seed(0)
    return given(model=Mortal(torch.float64))
"""

WAYS = {"replicated": [], "sharded": ["--shard", "--blocks", "first"]}


def command(folder: Path, out: str, way: str, steps: int, every: int) -> list[str]:
    """A run of `forget` that saves its states."""
    sizes = ("--set", f"how.steps={steps}", "--set", "how.batch=21", "--set", "how.forget_batch=7")
    words = (
        "forget",
        projects.project(folder / "mortal", MORTAL),
        "--random",
        0.3,
        *sizes,
        "--method",
        "lur",
    )
    return [*map(str, (*words, "--save-every", every, "--out", folder / out)), *WAYS[way]]


def run_and_kill(
    words: Sequence[str], folder: Path, rank: int, number: int, seconds: float, count: int = 2
) -> list[launched.Output | None]:
    """Gives a command to several processes, of which one is killed; returns what each said."""
    os.environ[KILL] = f"{rank} {number} {seconds}"
    try:
        (output,) = launched.run_shared([words], folder, count)
    finally:
        del os.environ[KILL]
    return output


def draw(points: random.Random, passes: int) -> tuple[int, int, float]:
    """A random process of two, one of its passes, and a delay that can end within a write."""
    return points.randrange(2), points.randint(1, passes), points.uniform(0, 0.3)


def weights(folder: Path) -> dict[str, Tensor]:
    """The weights that a run wrote."""
    return load_file(folder / "model.safetensors")


def state_of(folder: Path) -> str:
    """The name of the state that an interrupted run left: the number of the descent and that of the step."""
    (state,) = (folder / "states").glob("0*")
    return state.name
