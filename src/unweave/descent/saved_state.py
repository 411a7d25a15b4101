"""The state of a descent on disk: an interrupted descent resumes from it and ends in the same bits."""

import os
import pickle
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unweave.descent.optimizer_state import TrainState
from unweave.problem import Problem
from unweave.record.files import draft, sync
from unweave.weights.cost import Cost


@dataclass
class StateFile:
    """A file that holds the state of a descent and is written every few steps.

    On resumption the batches of the steps already taken are drawn again. That is cheap compared with a step,
    and brings every stream of data to its place. A file belongs to one descent: its name must tell which.

    Args:
        path: The file. If it exists, the descent resumes from it.
        every: The number of steps between two writes.

    Raises:
        ValueError: If the file can't be read.
    """

    path: Path
    every: int

    def __post_init__(self) -> None:
        self._state = read_state(self.path) if self.path.exists() else None
        self._start = time.perf_counter()

    def holds(self, index: int, problem: Problem, train_state: TrainState) -> bool:
        """Whether a step was already taken before the interruption.

        Restores the state before the first step that was not; writes it before later steps, when it is due.
        """
        state = self._state
        if state is not None and index < state["step"]:
            return True
        if state is not None:
            problem.model.load_state_dict(state["model"])
            problem.generator.set_state(state["generator"])
            problem.cost += Cost(**state["cost"])
            train_state.load_state(state["moving"])
            self._state = None
        elif index > 0 and index % self.every == 0:
            self.write(index, problem, train_state)
        return False

    def write(self, step: int, problem: Problem, train_state: TrainState) -> None:
        """Writes the state at the beginning of a step."""
        seconds = problem.cost.seconds + time.perf_counter() - self._start
        state = {
            "step": step,
            "model": problem.model.state_dict(),
            "generator": problem.generator.get_state(),
            "cost": {**asdict(problem.cost), "seconds": seconds},
            "moving": train_state.state(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with draft(self.path) as draft_path:
            torch.save(state, draft_path)
            sync(draft_path)
            os.replace(draft_path, self.path)


def read_state(path: Path) -> dict[str, Any]:
    """Reads a state from a file, onto the CPU."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no state of a training: delete it to start again") from error
