"""The output of `unweave forget --dry-run`: the forget set, the method and its cost."""

import dataclasses
from pathlib import Path

from unweave.cli.checks import timing
from unweave.cli.checks.facts import data_sizes
from unweave.cli.checks.findings import cost_cell, retraining_advice, slower_methods
from unweave.cli.inputs.choose_method import Retraining
from unweave.cli.inputs.request import about_own_images
from unweave.cli.inputs.scope import TrainedWeights
from unweave.cli.options import CommonFlags
from unweave.cli.project import Project
from unweave.cli.terminal import show
from unweave.methods import Method
from unweave.report.numbers import number
from unweave.split import Split


def print_plan(
    method: Method | Retraining,
    name: str,
    *,
    split: Split,
    project: Project,
    folder: Path,
    trained: TrainedWeights,
    flags: CommonFlags,
) -> int:
    """Prints what forget would do.

    Raises:
        ValueError: If the method can't be run on this model.
    """
    cost, whole = estimate_costs(method, name, split, project=project, trained=trained, device=flags.device)
    if cost.refused:
        raise ValueError(cost.refused)
    dearer = slower_methods({name: {"cost": cost.relative_to(whole)}})
    labels = split.train.labels[split.forget].bincount()
    counts = {str(label): int(labels[label]) for label in labels.nonzero()[:, 0].tolist()}
    if flags.json:
        plan = {"data": data_sizes(split), "labels": counts, "request": about_own_images(split)}
        plan |= {"method": name, "repr": repr(method)}
        plan |= {"cost": dataclasses.asdict(cost), "costlier_than_a_retrain": list(dearer)}
        show.print_json({**plan, "out": str(folder)})
        return 0
    n, of, seconds = len(split.forget), len(split.train), f"{number(cost.seconds, 1)} s"
    if cost.seconds_range:
        seconds += f" (measured: {cost_cell(cost.seconds_range, 1)})"
    show.print_sentences(*retraining_advice(dearer))
    show.print_lines(
        f"Would forget {n} of {of} examples with {name} in about {seconds}, and write {folder}.", ""
    )
    show.print_sentences(f"Labels: {', '.join(f'{count} of {label}' for label, count in counts.items())}.")
    show.print_sentences(*about_own_images(split))
    show.print_lines(
        f"Method: {method!r}" if isinstance(method, Retraining) else f"Method: {show.format_changed(method)}"
    )
    return 0


def estimate_costs(
    method: Method | Retraining,
    name: str,
    split: Split,
    *,
    project: Project,
    trained: TrainedWeights,
    device: str | None,
) -> tuple[timing.Estimate, timing.Estimate | None]:
    """Estimates the cost of a method, and of a retrain if there is one other than the method."""
    model, device_project = project.to_device(device)
    device_split = device_project.split(split.forget)
    if isinstance(method, Retraining):
        return timing.estimate_train(device_project, device_split), None
    timing.warm_up(device_project, model, device_split, trained)
    cost = timing.estimate(method, model, device_split, device_project)
    return cost, None if name == "retrain" else timing.estimate_retraining(
        device_project, model, device_split
    )
