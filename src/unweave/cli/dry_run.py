"""What `unweave forget --dry-run` says: what would be forgotten, how, and what it would cost."""

import dataclasses
from pathlib import Path

from unweave.cli import show, timing
from unweave.cli.check import about_retraining, costlier, sizes, warm_up
from unweave.cli.choose_method import Retraining
from unweave.cli.options import Shared
from unweave.cli.project import Project
from unweave.cli.request import about_own_images
from unweave.methods import Method
from unweave.report.numbers import number
from unweave.split import Split


def planned(
    chosen: Method | Retraining, name: str, *, split: Split, project: Project, folder: Path, shared: Shared
) -> int:
    """Says what would be done.

    Raises:
        ValueError: If the method can't be run on this model.
    """
    cost, whole = priced(chosen, name, split, project=project, device=shared.device)
    if cost.refused:
        raise ValueError(cost.refused)
    dearer = costlier({name: {"cost": cost.relative_to(whole)}})
    labels = split.train.labels[split.forget].bincount()
    counts = {str(label): int(labels[label]) for label in labels.nonzero()[:, 0].tolist()}
    if shared.json:
        found = {"data": sizes(split), "labels": counts, "request": about_own_images(split)}
        found |= {"method": name, "repr": repr(chosen)}
        found |= {"cost": dataclasses.asdict(cost), "costlier_than_a_retrain": list(dearer)}
        show.as_json({**found, "out": str(folder)})
        return 0
    n, of, seconds = len(split.forget), len(split.train), number(cost.seconds, 1)
    show.tell(*about_retraining(dearer))
    show.say(f"Would forget {n} of {of} examples with {name} in about {seconds} s, and write {folder}.", "")
    show.tell(f"Labels: {', '.join(f'{count} of {label}' for label, count in counts.items())}.")
    show.tell(*about_own_images(split))
    show.say(f"Method: {chosen!r}" if isinstance(chosen, Retraining) else f"Method: {show.changed(chosen)}")
    return 0


def priced(
    chosen: Method | Retraining, name: str, split: Split, *, project: Project, device: str | None
) -> tuple[timing.Estimate, timing.Estimate | None]:
    """What a method would cost, and a retrain: None where that is the method, or nobody said how to."""
    model, placed = project.placed(device)
    cut = placed.split(split.forget)
    if isinstance(chosen, Retraining):
        return timing.retraining(placed, cut), None
    warm_up(placed, model, cut)
    cost = timing.estimate(chosen, model, cut, placed)
    return cost, None if name == "retrain" else timing.whole(placed, model, cut)
