"""The state of a descent on disk: an interrupted run resumes from it.

A method is run again from its start. Its finished descents give back the model that they ended with, the one
that was interrupted goes on from its last state, and what the method does in between is done again.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from unweave.descent.losses import collect_losses
from unweave.descent.memories import can_resume, memories, terms_of
from unweave.descent.optimizer_state import TrainState
from unweave.descent.settings import Descent, Phase
from unweave.problem import Problem
from unweave.record.checkpoint import extra_state, tensors_of
from unweave.weights.params import Params
from unweave.weights.runtime import Runtime
from unweave.weights.state_folder import States, read_facts, read_tensors
from unweave.weights.step import Term

MODEL, GENERATOR, PHASE_GENERATOR, BEFORE, REUSED = (
    "model",
    "generator",
    "phase generator",
    "before",
    "reused",
)
"""What a tensor of a state is; its name is this, ":", and the name of a weight or buffer."""


@dataclass
class SavedDescent:
    """The saved state of one descent.

    Args:
        states: Where it is saved; nowhere if None.
        number: The number of the descent in its run.
        problem: What the descent edits.
        phases: The phases of the descent.
        place: The state from which it resumes; None if it starts.
        facts: The facts of that state.
    """

    states: States | None
    number: int
    problem: Problem
    phases: Sequence[Phase]
    place: Path | None
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._last = 0  # the step of the last state; before step 0 there is nothing to save

    def restore_end(self) -> int | None:
        """Restores the end of the descent if it is finished; returns the number of its steps, else None."""
        if "taken" not in self.facts:
            return None
        self._restore(self._tensors())
        return self.facts["taken"]

    def steps_of(self, phase: int) -> int | None:
        """The number of steps of a phase that ended before the interruption; None for the others."""
        lengths = self.facts.get("lengths", [])
        return lengths[phase] if phase < len(lengths) else None

    def start_phase(self, train_state: TrainState, runtime: Runtime, terms: Sequence[Term]) -> None:
        """Restores the weights and all that belongs to them, if the descent resumes in this phase."""
        generator = self.problem.generator
        if self.place is not None:
            tensors = self._tensors()
            self._restore(tensors)
            train_state.load(tensors)
            runtime.before = load_gradients(BEFORE, tensors, terms)
            runtime.reused_gradients = load_gradients(REUSED, tensors, terms)
            self._resumed = tensors[f"{GENERATOR}:"]
            # the batches of steps already taken are drawn again, which brings all streams to their place
            generator.set_state(tensors[f"{PHASE_GENERATOR}:"])
        self._phase_generator = generator.get_state()

    def was_taken(self, index: int) -> bool:
        """Whether a step of the present phase was already taken before the interruption."""
        if self.place is None:
            return False
        if index < self.facts["step"]:
            return True
        self.problem.generator.set_state(self._resumed)
        self.place, self._last = None, sum(self.facts["lengths"]) + index
        return False

    def save(
        self,
        index: int,
        lengths: Sequence[int],
        train_state: TrainState,
        runtime: Runtime,
        terms: Sequence[Term],
    ) -> None:
        """Saves the state at the beginning of a step, if that is due.

        Args:
            index: The number of the step in its phase.
            lengths: The numbers of steps of the earlier phases.
            train_state: The weights and their optimizer.
            runtime: What the steps of the phase share.
            terms: The terms of the phase.
        """
        step = sum(lengths) + index
        if self.states is None or step == self._last or step % self.states.every:
            return
        collect_losses(self.problem, runtime)
        tensors = {
            **train_state.tensors(),
            **name_gradients(BEFORE, runtime.before, terms),
            **name_gradients(REUSED, runtime.reused_gradients, terms),
            f"{PHASE_GENERATOR}:": self._phase_generator,
        }
        self._write(step, tensors, {"step": index, "lengths": list(lengths)})

    def save_end(self, taken: int) -> None:
        """Saves the model at the end of the descent."""
        if self.states is not None:
            self._write(None, {}, {"taken": taken})

    def _write(self, step: int | None, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        problem = self.problem
        assert self.states is not None
        model = {f"{MODEL}:{name}": each for name, each in tensors_of(problem.model.state_dict()).items()}
        facts = {
            **facts,
            "begin": self.facts["begin"],
            "cost": asdict(problem.cost),
            "seconds": self.states.seconds(),
            "curves": problem.curves,
            "traces": problem.traces,
            "memory": [each.memory() for each in memories(problem, self.phases)],
        }
        generator = {f"{GENERATOR}:": problem.generator.get_state()}
        self.states.write(self.number, step, {**model, **tensors, **generator}, facts, problem.processes)

    def _tensors(self) -> dict[str, Tensor]:
        assert self.place is not None
        weights = tensors_of(self.problem.model.state_dict())
        like = partial(weight_of, weights)
        return read_tensors(self.place, like, self.problem.processes)

    def _restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the model and what belongs to the problem."""
        problem, facts = self.problem, self.facts
        assert self.states is not None
        # what is no tensor is the caller's, and no method changes it
        extra = extra_state(problem.model.state_dict())
        problem.model.load_state_dict({**extra, **with_prefix(MODEL, tensors)})
        problem.generator.set_state(tensors[f"{GENERATOR}:"])
        problem.cost.gradients, problem.cost.examples = facts["cost"]["gradients"], facts["cost"]["examples"]
        problem.cost.seconds += self.states.count_earlier(facts["seconds"])
        for records, values in ((problem.curves, facts["curves"]), (problem.traces, facts["traces"])):
            records.clear()
            records.update(values)
        for name, rows in problem.traces.items():
            problem.traces[name] = [(step, value, reliability) for step, value, reliability in rows]
        for each, memory in zip(memories(problem, self.phases), facts["memory"], strict=True):
            each.recall(memory)


@contextmanager
def open_saved(
    problem: Problem, how: Descent, phases: Sequence[Phase], optimizer: object = None
) -> Iterator[SavedDescent]:
    """Opens the saved state of a descent, if its problem has a folder for states.

    A descent within the step of another is not saved. Neither is one with a user's optimizer or one of 8
    bits, or with a `watch`, an `until` or a term of which it is unknown what they remember: it resumes from
    its beginning.

    Raises:
        ValueError: If the state is that of another descent.
    """
    states = problem.states
    if states is None or states.busy:
        yield SavedDescent(None, 0, problem, phases, None, {})
        return
    number, states.descents, states.busy = states.descents, states.descents + 1, True
    try:
        if optimizer is not None or how.unsaved_state or not can_resume(problem, phases):
            yield SavedDescent(None, number, problem, phases, None, {})
            return
        begin = fingerprint(problem, how, phases)
        place = states.newest(number, problem.processes)
        facts: Mapping[str, Any] = {"begin": begin}
        if place is not None:
            facts = problem.processes.from_first(partial(read_facts, place))
            refuse_other_begin(facts, begin, place)
        yield SavedDescent(states, number, problem, phases, place, facts)
    finally:
        states.busy = False


def fingerprint(problem: Problem, how: Descent, phases: Sequence[Phase]) -> str:
    """A digest of the randomness and the settings that a descent begins with."""
    state = problem.generator.get_state().numpy().tobytes()
    settings = repr((how, [(len(phase.terms), phase.feed, phase.share) for phase in phases]))
    return hashlib.sha256(state + settings.encode()).hexdigest()


def refuse_other_begin(facts: Mapping[str, Any], begin: str, place: Path) -> None:
    """Raises if a state belongs to a descent that began in another way."""
    if facts.get("begin") != begin:
        raise ValueError(
            f"{place} is the state of another descent, with other settings or another seed: delete the "
            f"folder {place.parent} to start again"
        )


def name_gradients(
    what: str, gradients: Mapping[int, Mapping[str, Tensor]], terms: Sequence[Term]
) -> dict[str, Tensor]:
    """Names the remembered gradients by the number of their term and the name of the weight."""
    return {
        f"{what} {number}:{name}": each
        for number, term in enumerate(terms_of(terms))
        for name, each in gradients.get(id(term), {}).items()
    }


def load_gradients(what: str, tensors: Mapping[str, Tensor], terms: Sequence[Term]) -> dict[int, Params]:
    """Reverses `name_gradients`."""
    gradients: dict[int, Params] = {
        id(term): with_prefix(f"{what} {number}", tensors) for number, term in enumerate(terms_of(terms))
    }
    return {key: gradient for key, gradient in gradients.items() if gradient}


def with_prefix(what: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one kind, by the name of their weight or buffer."""
    parts = {name: name.partition(":") for name in tensors}
    return {parts[name][2]: each for name, each in tensors.items() if parts[name][0] == what}


def weight_of(weights: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The weight that a tensor of a state belongs to."""
    return weights.get(name.partition(":")[2])
