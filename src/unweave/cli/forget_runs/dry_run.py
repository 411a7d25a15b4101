"""The output of `unweave forget --dry-run`: the forget set, the method and its cost."""

import json
from collections.abc import Iterator
from typing import Any

from unweave.cli.checks import rounds, timing
from unweave.cli.checks.facts import data_sizes
from unweave.cli.checks.findings import cost_cell, retraining_advice, slower_methods
from unweave.cli.forget_runs.run import Run
from unweave.cli.inputs.choose_method import Retraining
from unweave.cli.inputs.request import about_own_images
from unweave.cli.inputs.scope import TrainedWeights
from unweave.cli.project import Project
from unweave.cli.terminal import show
from unweave.cli.terminal.describe_settings import changed_settings
from unweave.methods import Method
from unweave.report.numbers import number
from unweave.split import Split


def print_plan(run: Run, trained: TrainedWeights) -> None:
    """Prints what forget would do.

    Raises:
        ValueError: If the method can't be run on this model.
    """
    method, name, split, flags = run.method, run.name, run.split, run.flags
    costs = estimate_costs(method, name, split, project=run.project, trained=trained, device=flags.device)
    cost = costs[name]
    if cost["refused"]:
        raise ValueError(cost["refused"])
    labels = split.train.labels[split.forget].bincount()
    counts = {str(label): int(labels[label]) for label in labels.nonzero()[:, 0].tolist()}
    if flags.json:
        plan = {"data": data_sizes(split), "labels": counts, "request": about_own_images(split)}
        plan |= {"method": name, "repr": repr(method)}
        plan |= {"cost": cost, "costlier_than_a_retrain": slower_methods(costs)}
        show.print_json({**plan, "out": str(run.folder)})
        return
    n, of, seconds = len(split.forget), len(split.train), f"{number(cost['seconds'], 1)} s"
    if cost["seconds_range"]:
        seconds += f" (measured: {cost_cell(cost['seconds_range'], 1)}; on a CPU, CPU time)"
    show.print_sentences(*retraining_advice(costs))
    show.print_lines(
        f"Would forget {n} of {of} examples with {name} in about {seconds}, and write {run.folder}.", ""
    )
    show.print_sentences(f"Labels: {', '.join(f'{count} of {label}' for label, count in counts.items())}.")
    show.print_sentences(*about_own_images(split))
    changes = {} if isinstance(method, Retraining) else changed_settings(method)
    changed = ", ".join(f"{path}={json.dumps(value)}" for path, value in changes.items())
    show.print_lines(f"Method: {name}, {changed or 'default settings'}")


def estimate_costs(
    method: Method | Retraining,
    name: str,
    split: Split,
    *,
    project: Project,
    trained: TrainedWeights,
    device: str | None,
) -> dict[str, dict[str, Any]]:
    """Estimates the cost of a method, and of a retrain if there is one other than the method."""
    model, device_project = project.to_device(device)
    device_split = device_project.split(split.forget)
    measurements: dict[str, Iterator[rounds.Round]] = {}
    if not isinstance(method, Retraining):
        measurements[name] = timing.method_rounds(method, model, device_split, device_project)
        timing.warm_up(device_project, model, device_split, trained)
    if "retrain" not in measurements and project.retrain is not None:
        measurements["retrain"] = timing.retraining_rounds(device_project, model, device_split)
    place = next(model.parameters()).device
    return rounds.compare_with_retraining(rounds.estimate_all(measurements, place, lambda progress: None))
