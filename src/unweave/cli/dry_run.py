"""The output of `unweave forget --dry-run`: the forget set, the method and its cost."""

import dataclasses
from pathlib import Path

from unweave.cli import show, timing
from unweave.cli.check import data_sizes, retraining_advice, slower_methods, warm_up
from unweave.cli.choose_method import Retraining
from unweave.cli.options import Shared
from unweave.cli.project import Project
from unweave.cli.request import about_own_images
from unweave.methods import Method
from unweave.report.numbers import number
from unweave.split import Split


def print_plan(
    chosen: Method | Retraining, name: str, *, split: Split, project: Project, folder: Path, shared: Shared
) -> int:
    """Prints what forget would do.

    Raises:
        ValueError: If the method can't be run on this model.
    """
    cost, whole = estimate_costs(chosen, name, split, project=project, device=shared.device)
    if cost.refused:
        raise ValueError(cost.refused)
    dearer = slower_methods({name: {"cost": cost.relative_to(whole)}})
    labels = split.train.labels[split.forget].bincount()
    counts = {str(label): int(labels[label]) for label in labels.nonzero()[:, 0].tolist()}
    if shared.json:
        found = {"data": data_sizes(split), "labels": counts, "request": about_own_images(split)}
        found |= {"method": name, "repr": repr(chosen)}
        found |= {"cost": dataclasses.asdict(cost), "costlier_than_a_retrain": list(dearer)}
        show.print_json({**found, "out": str(folder)})
        return 0
    n, of, seconds = len(split.forget), len(split.train), number(cost.seconds, 1)
    show.print_sentences(*retraining_advice(dearer))
    show.print_lines(
        f"Would forget {n} of {of} examples with {name} in about {seconds} s, and write {folder}.", ""
    )
    show.print_sentences(f"Labels: {', '.join(f'{count} of {label}' for label, count in counts.items())}.")
    show.print_sentences(*about_own_images(split))
    show.print_lines(
        f"Method: {chosen!r}" if isinstance(chosen, Retraining) else f"Method: {show.format_changed(chosen)}"
    )
    return 0


def estimate_costs(
    chosen: Method | Retraining, name: str, split: Split, *, project: Project, device: str | None
) -> tuple[timing.Estimate, timing.Estimate | None]:
    """Estimates the cost of a method, and of a retrain if there is one other than the method."""
    model, placed = project.to_device(device)
    cut = placed.split(split.forget)
    if isinstance(chosen, Retraining):
        return timing.estimate_train(placed, cut), None
    warm_up(placed, model, cut)
    cost = timing.estimate(chosen, model, cut, placed)
    return cost, None if name == "retrain" else timing.estimate_retraining(placed, model, cut)
