"""What a descent remembers from step to step besides its weights: which of it can be saved."""

from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Protocol, runtime_checkable

from unweave.descent.lookahead import EveryNthStep, Lookahead, PreviousGradient, ReusedGradient
from unweave.descent.objective import Objective
from unweave.descent.settings import Phase
from unweave.problem import Problem
from unweave.weights.step import Term


@runtime_checkable
class Remembers(Protocol):
    """A `watch` or an `until` that remembers something from step to step, and can say what."""

    def memory(self) -> object:
        """What it remembers, as a JSON value."""
        ...

    def recall(self, memory: object) -> None:
        """Restores what `memory` returned."""
        ...


def can_resume(problem: Problem, phases: Sequence[Phase]) -> bool:
    """Whether it is known of everything in a descent what it remembers."""
    kinds = Objective | Lookahead | PreviousGradient | EveryNthStep | ReusedGradient | Remembers
    return all(isinstance(each, kinds) for each in possible_memories(problem, phases))


def possible_memories(problem: Problem, phases: Sequence[Phase]) -> Iterator[object]:
    """Everything in a descent that may remember something from step to step."""
    yield from watches(problem.watch)
    for phase in phases:
        yield from terms_of(phase.terms)
        yield from watches(phase.watch)
        if phase.until is not None:
            yield phase.until


def watches(watch: Callable[..., object] | None) -> Iterator[object]:
    """A `watch`, or those of the losses of the objective whose `watch` it is."""
    if isinstance(watch, MethodType) and isinstance(watch.__self__, Objective):
        yield from (piece.watch for piece in watch.__self__.on_data if piece.watch is not None)
    elif watch is not None:
        yield watch


def memories(problem: Problem, phases: Sequence[Phase]) -> list[Remembers]:
    """What remembers something, in order, once each."""
    by_id = {id(each): each for each in possible_memories(problem, phases) if isinstance(each, Remembers)}
    return list(by_id.values())


def terms_of(terms: Sequence[Term]) -> list[Term]:
    """These terms and those that they consist of, once each, in an order that does not change."""
    by_id: dict[int, Term] = {}
    stack = list(reversed(terms))
    while stack:
        term = stack.pop()
        if id(term) in by_id:
            continue
        by_id[id(term)] = term
        match term:
            case Lookahead():
                stack += [term.through, term.outer]
            case PreviousGradient():
                stack += [term.term, term.first]
            case EveryNthStep() | ReusedGradient():
                stack.append(term.term)
            case _:
                pass
    return list(by_id.values())
