"""The output of `unweave forget`: figures before and after, the place of the model, and the next command."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.audits.exam import Glancing
from unweave.cli.inputs.request import about_own_images
from unweave.cli.options import CommonFlags
from unweave.cli.terminal import show
from unweave.record import checkpoint
from unweave.report.numbers import number
from unweave.result import PRETRAINED, Result
from unweave.split import Split
from unweave.weights.sharded_files import SHARDED
from unweave.weights.sharded_model import is_model_sharded

IN_PLACE = "The model is sharded, so it was edited in place: it can't be copied."
"""What happened to a sharded model; the files of the original stay."""

DAMAGED = 5.0
"""The loss of accuracy on retained data, in points, that triggers a warning."""


def print_result(
    result: Result,
    name: str,
    *,
    exam: Glancing[Any],
    before: Mapping[str, float],
    after: Mapping[str, float],
    folder: Path,
    flags: CommonFlags,
) -> None:
    """Prints the result."""
    n, of, seconds = len(result.split.forget), len(result.split.train), result.cost.seconds
    if flags.json:
        cost = {"seconds": seconds, "gradient_evaluations": result.cost.gradients}
        facts = {"method": name, "forgotten": n, "request": about_own_images(result.split)}
        figures = {"before": before, "after": after, "glance": exam.glance_note}
        figures |= {"edited_in_place": is_model_sharded(result.model)}
        show.print_json({"out": str(folder), "done_before": False, **facts, **figures, **cost})
        return
    show.print_lines(f"Forgot {n} of {of} examples with {name} in {seconds:.1f} s. Not audited yet.")
    in_place = [IN_PLACE] if is_model_sharded(result.model) else []
    show.print_sentences(*in_place, *about_own_images(result.split), "")
    rows = exam.glances
    cells = [(row.title, *(number(each[row.id], row.digits) for each in (before, after))) for row in rows]
    show.print_table(("", "Before", "After"), cells)
    show.print_sentences(*([exam.glance_note] if exam.glance_note else []), *damage_warning(before, after))
    print_next(folder)


def print_done(split: Split, name: str, *, folder: Path, flags: CommonFlags) -> None:
    """Prints that the run was done before, and its folder; earlier figures are null in JSON."""
    n, of, request = len(split.forget), len(split.train), about_own_images(split)
    if flags.json:
        empty_figures = dict.fromkeys(("before", "after", "glance", "seconds", "gradient_evaluations"))
        facts = {"method": name, "forgotten": n, "request": request}
        show.print_json({"out": str(folder), "done_before": True, **facts, **empty_figures})
        return
    show.print_lines(f"Done already: {folder} holds this run, {n} of {of} examples forgotten with {name}.")
    show.print_sentences(*request)
    print_next(folder)


def print_next(folder: Path) -> None:
    """Prints the place of the model and the next commands."""
    place = model_path(folder)
    show.print_lines("", f"Model: {place}")
    if place.name != SHARDED:  # an audit reads a whole model
        show.print_lines(f"Next:  {shlex.join(('unweave', 'audit', str(folder)))}")


def damage_warning(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """A sentence if RA has fallen too much, in points; none for a family without RA."""
    fallen = before["ra"] - after["ra"] if "ra" in before else 0.0
    if fallen <= DAMAGED:
        return []
    return [
        f"This model is damaged: RA fell by {fallen:.1f} points. "
        "Change the settings with --set, or take another method."
    ]


def model_path(folder: Path) -> Path:
    """The place from which to load the model: the diffusers folder, if there is one, or the weights."""
    folders = (folder / PRETRAINED, folder / SHARDED)
    return next((each for each in folders if each.is_dir()), folder / checkpoint.WEIGHTS)
