"""The direction of a step: the gradients of its terms, each freed early, and their combination."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unweave.descent.lookahead import EveryNthStep, Lookahead, PreviousGradient, ReusedGradient
from unweave.descent.objective import Objective
from unweave.descent.rules import RULES
from unweave.descent.settings import Phase
from unweave.weights.params import Params, combine, gramian, rebuild
from unweave.weights.sharded import names_where, pieces
from unweave.weights.step import Step, Term


def combine_gradients(step: Step, phase: Phase, generator: torch.Generator) -> Params:
    """Combines the gradients of the terms that have data at this step; empty if none has."""
    present = [term for term in phase.terms if term.present(step)]
    if not present:
        return {}
    gradients = take_gradients(step, present)
    if step.index == 0 and not phase.idle:
        refuse_zero(gradients)
    if phase.rule == "total":
        return sum_gradients(step, present, gradients)
    rule = phase.rule if callable(phase.rule) else RULES[phase.rule]
    return combine(gradients, rule(gramian(gradients), generator))


def take_gradients(step: Step, terms: Sequence[Term]) -> list[Params]:
    """Takes the gradient of each term; frees what was taken on the way as soon as no term needs it."""
    # The last term first: in `nested` its gradient is the step of the first term; in `exact` it builds the
    # graph of the first term on its way and keeps that gradient.
    stack, gradients = list(terms), list[Params]()
    while stack:
        gradients.append(step.gradient(stack.pop()))
        if stack and len(step.memory) > len(gradients):
            free_others(step, stack)
    step.free_gradients(())
    step.before = step.runtime.before = {}
    return gradients[::-1]


def free_others(step: Step, terms: Sequence[Term]) -> None:
    """Frees the gradients that these terms do not need."""
    dependencies = needed_terms(step, terms)
    if dependencies is None:
        return
    step.free_gradients(dependencies)
    if PreviousGradient not in map(type, dependencies):
        step.before = step.runtime.before = {}


def needed_terms(step: Step, terms: Sequence[Term]) -> list[Term] | None:
    """The terms whose gradients at these weights the terms need, down to those that are known already.

    None if that is unknown, because one of them is a user's own.
    """
    stack, dependencies = list(terms), list[Term]()
    while stack:
        term = stack.pop()
        dependencies.append(term)
        if id(term) in step.memory:
            continue
        match term:
            case Objective():
                pass
            case Lookahead(
                through=through
            ):  # without its data it is the gradient of `outer` at these weights
                is_known = id(through) in step.memory
                stack.append(through if is_known or through.present(step) else term.outer)
            case PreviousGradient():
                stack.append(term.first)
            case EveryNthStep() | ReusedGradient():
                stack.append(term.term)
            case _:
                return None
    return dependencies


def refuse_zero(gradients: list[Params]) -> None:
    """Raises if a gradient is zero: a student equal to its teacher, or a loss capped everywhere."""
    for number, gradient in enumerate(gradients, start=1):
        if not names_where(gradient, Tensor.bool):
            raise ValueError(
                f"the gradient of term {number} of {len(gradients)} is zero in every weight: nothing would "
                "be learned from it; start elsewhere, or choose another loss"
            )


def sum_gradients(step: Step, terms: Sequence[Term], gradients: list[Params]) -> Params:
    """Sums the gradients in place of the first or second one, if nothing else needs it, or in a copy.

    Adding to a later one would change the order of the sum, and so its last bits.
    """
    place = spare_place(step, terms, gradients)
    first, *addends = (gradients[1], gradients[0], *gradients[2:]) if place == 1 else gradients
    total = pieces(first.values())
    if place is None:
        total = [each.clone() for each in total]
    for gradient in addends:
        torch._foreach_add_(total, pieces(gradient.values()))
    return rebuild(first, total)


def spare_place(step: Step, terms: Sequence[Term], gradients: Sequence[Params]) -> int | None:
    """The place of the first or second gradient if it may be overwritten; None if neither may.

    It may if an objective made it and nothing else holds it, and no two weights share the memory of theirs.
    """
    lagged_gradients = [gradient for _, gradient in step.memory.values()]
    held_ids = list(map(id, (*gradients, *lagged_gradients, *step.runtime.reused_gradients.values())))
    for place, term in enumerate(terms[:2]):
        while isinstance(term, Lookahead):
            term = term.outer
        gradient = gradients[place]
        if isinstance(term, Objective) and held_ids.count(id(gradient)) == 1:
            rows = pieces(gradient.values())
            if len({each.untyped_storage().data_ptr() for each in rows}) == len(rows):
                return place
    return None
