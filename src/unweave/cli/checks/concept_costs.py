"""The costs that `unweave check --concept` prints: of the images to draw, and of each method."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from unweave.bench.workers import Listener
from unweave.cli.checks import rounds, timing
from unweave.cli.inputs.concept_drawing import DrawingPlan
from unweave.cli.inputs.concept_work import ConceptWork
from unweave.errors import Failed
from unweave.families.text_to_image_settings import text_to_image_method
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.tasks.diffusion.drawn_folder import AT_ONCE, draw_absent_images


def estimate_costs(
    work: ConceptWork, plan: DrawingPlan | None, methods: Mapping[str, Method], listener: Listener
) -> dict[str, dict[str, Any]]:
    """Estimates the cost of the images to draw and of each method, or says why it can't run."""
    split = work.request.split
    one_step = configure(text_to_image_method("finetune"), {"how": {"steps": 1, "batch": 1}}, "finetune")
    warm_up = partial(timing.time_method, one_step, {}, work.model, split, work)  # torch's own start
    rounds.attempt("warm up", lambda: rounds.Round(warm_up().seconds, None, False), None)
    measurements = {
        name: timing.method_rounds(method, work.model, split, work) for name, method in methods.items()
    }
    device = next(work.model.parameters()).device
    draw = "" if plan is None else f"draw {len(plan.wanted.rows)} images"
    if plan is not None:
        measurements = {draw: drawing_rounds(plan, device), **measurements}
    estimates = rounds.estimate_all(measurements, device, listener)
    if plan is not None and (reason := estimates[draw].refused):
        raise Failed(f"the images can't be drawn: {reason}")
    return {name: dataclasses.asdict(each) for name, each in estimates.items()}


def drawing_rounds(plan: DrawingPlan, device: torch.device) -> Iterator[rounds.Round]:
    """Yields the cost of drawing all images, from a few of them in a few steps."""
    drawing, clock = plan.wanted, timing.clock_of(device)
    rows = [(f"{i}.png", *row) for i, row in enumerate(drawing.rows)]

    def run(images: int, steps: int = timing.SHORT) -> float:
        trial = replace(drawing, sampler=replace(drawing.sampler, steps=steps))
        with TemporaryDirectory() as place:
            start = clock()
            draw_absent_images(plan.pipeline, trial, rows[:images], Path(place), str(device), lambda *_: None)
            return clock() - start

    while True:
        once = run(0)  # the prompts, and a copy of the model
        quick = run(1) < timing.PATIENCE
        images, extra_steps = (min(AT_ONCE, len(rows)), timing.LONGER - timing.SHORT) if quick else (1, 1)
        short = run(images)
        step = max(0.0, run(images, timing.SHORT + extra_steps) - short) / extra_steps
        chunk = max(0.0, short - once) + (drawing.sampler.steps - timing.SHORT) * step
        yield rounds.Round(once + len(rows) / images * chunk, None, quick)
