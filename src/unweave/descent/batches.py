"""The batches of each step of a phase, on this process."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import tee

import torch
from torch import Tensor

from unweave.descent.feed import FEEDS, Plan
from unweave.descent.settings import Descent, Phase
from unweave.problem import Problem
from unweave.split import Part
from unweave.tasks import Batch


def plan_inputs(problem: Problem, phase: Phase, how: Descent) -> tuple[dict[Part, Tensor], dict[Part, int]]:
    """The positions and batch sizes of the parts of the data that a phase needs, forget set first."""
    part_names = frozenset().union(*(term.parts for term in phase.terms))
    parts: list[Part] = [part for part in ("forget", "retain", "mixed", "calibration") if part in part_names]
    ids: dict[Part, Tensor] = {part: problem.split.part(part)[1] for part in parts}
    return ids, {part: how.forget_batch or how.batch if part == "forget" else how.batch for part in parts}


def step_batches(
    problem: Problem, phase: Phase, how: Descent
) -> Iterator[tuple[dict[Part, list[Batch]], dict[Part, int]]]:
    """Yields this process's micro-batches of each step by part, and the size of the whole batch by part."""
    ids, sizes = plan_inputs(problem, phase, how)
    # a generator of its own: a DataLoader reads ahead, and a rule may draw in between
    order = torch.Generator().manual_seed(problem.seed())
    plans, *copies = tee(FEEDS[phase.feed](ids, sizes, order), 1 + len(ids))
    streams = {part: draw_batches(problem, part, copy, how) for part, copy in zip(ids, copies, strict=True)}
    for plan in plans:
        batch_sizes: dict[Part, int] = {part: rows.shape[0] for part, rows in plan.items()}
        yield {part: next(streams[part]) for part in plan}, batch_sizes


def draw_batches(problem: Problem, part: Part, plans: Iterator[Plan], how: Descent) -> Iterator[list[Batch]]:
    """An iterator over this process's micro-batches of one part, step by step.

    Its seeds are drawn at once, so they don't depend on what steps draw before the part first occurs.
    """
    key = torch.Generator().manual_seed(problem.seed())
    augment = torch.Generator().manual_seed(problem.seed())
    return read_batches(problem, part, plans, how, key=key, augment=augment)


def read_batches(
    problem: Problem,
    part: Part,
    plans: Iterator[Plan],
    how: Descent,
    *,
    key: torch.Generator,
    augment: torch.Generator,
) -> Iterator[list[Batch]]:
    """Yields this process's micro-batches of one part, step by step.

    A batch is read and drawn whole and then cut, so the draws depend on neither micro-batches nor processes.
    """
    source, _ = problem.split.part(part)
    wholes, reads = tee(plan[part] for plan in plans if part in plan)
    raws = source.stream(map(problem.processes.rows_to_read, reads), generator=augment)
    for rows, raw in zip(wholes, raws, strict=False):
        batch = problem.task.draw(raw, key)
        if part == "mixed":
            batch = mark_forget_rows(problem, batch)
        yield problem.processes.micro_batches(rows, batch, how.micro_batch)


def mark_forget_rows(problem: Problem, batch: Batch) -> Batch:
    """Marks the forget rows of a mixed batch."""
    forget = problem.split.is_forget[batch.ids.cpu()].to(batch.target.device)
    return replace(batch, forget=forget)
