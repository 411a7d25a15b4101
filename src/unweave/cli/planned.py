"""What `unweave forget --dry-run` says: what would be forgotten, how, and what it would cost."""

import dataclasses
from pathlib import Path

from unweave.cli import show, timing
from unweave.cli.check import sizes, warm_up
from unweave.cli.chosen import Retraining
from unweave.cli.options import Shared
from unweave.cli.request import about_own_images
from unweave.methods import Method
from unweave.project import Project
from unweave.report.numbers import number
from unweave.split import Split


def planned(
    chosen: Method | Retraining, name: str, *, split: Split, project: Project, folder: Path, shared: Shared
) -> int:
    """Says what would be done.

    Raises:
        ValueError: If the method can't be run on this model.
    """
    cost = priced(chosen, split, project=project, device=shared.device)
    if cost.refused:
        raise ValueError(cost.refused)
    labels = split.train.labels[split.forget].bincount()
    counts = {str(label): int(labels[label]) for label in labels.nonzero()[:, 0].tolist()}
    if shared.json:
        found = {"data": sizes(split), "labels": counts, "request": about_own_images(split)}
        found |= {"method": name, "repr": repr(chosen)}
        show.as_json({**found, "cost": dataclasses.asdict(cost), "out": str(folder)})
        return 0
    n, of, seconds = len(split.forget), len(split.train), number(cost.seconds, 1)
    show.say(f"Would forget {n} of {of} examples with {name} in about {seconds} s, and write {folder}.", "")
    show.tell(f"Labels: {', '.join(f'{count} of {label}' for label, count in counts.items())}.")
    show.tell(*about_own_images(split))
    show.say(f"Method: {chosen!r}" if isinstance(chosen, Retraining) else f"Method: {show.changed(chosen)}")
    return 0


def priced(
    chosen: Method | Retraining, split: Split, *, project: Project, device: str | None
) -> timing.Estimate:
    """What a method would cost."""
    model, placed = project.placed(device)
    cut = placed.split(split.forget)
    if isinstance(chosen, Retraining):
        return timing.retraining(placed, cut)
    warm_up(placed, model, cut)
    return timing.estimate(chosen, model, cut, placed)
