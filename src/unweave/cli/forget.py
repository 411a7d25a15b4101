"""`unweave forget`: a new model without some of its data; the original is never written to."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unweave.audits.exam import Exam, glance
from unweave.bench.workers import Listener, Progress
from unweave.cli import out, progress, show
from unweave.cli.choose_method import configured, known_here, searched
from unweave.cli.dry_run import planned
from unweave.cli.options import DEFAULTS, Shared, settings
from unweave.cli.project import Project, load
from unweave.cli.request import NOTHING, Request, about_own_images, positions
from unweave.methods import DEFAULT, method_named
from unweave.record import checkpoint, record
from unweave.record.one_model import add_request
from unweave.record.record import package_digest
from unweave.report.numbers import number
from unweave.result import PRETRAINED, Pretrained, Result, refuse_foreign
from unweave.split import Split
from unweave.tables import merge_tables
from unweave.unlearning import unlearn

CLAIM = "forget.json"
MODELS = "models"
SPLIT = "split.json"
DAMAGED = 5.0
"""Points of accuracy on the rest that no request should cost."""


def forget(
    model: str,
    /,
    *,
    request: Request = NOTHING,
    method: str = DEFAULT,
    set: tuple[str, ...] = (),
    tuned: Path | None = None,
    recipe: str | None = None,
    data: str | None = None,
    dry_run: bool = False,
    shared: Shared = DEFAULTS,
) -> int:
    """Write a new model that has forgotten some of its data.

    Written are model.safetensors with model.json, record.json, split.json, and forget.json, which says what
    was asked; and what comes from a folder of diffusers also as a copy of that, in the folder pretrained.
    The folder models keeps what was trained on the way: the original of a recipe, and the classifier that
    recognises a generator's images. It may be deleted: what audit needs of it is then trained again. The
    original is never written to.

    Args:
        model: project.py, a recipe, or a model's folder.
        request: What is to be forgotten.
        method: A method, or a pipeline such as lur:recover; see unweave methods.
        set: A setting of the method, such as how.lr=0.1, or of a pipeline's stage, as in recover.how.lr=0.1;
            may be given several times.
        tuned: The folder `tuning` of a bench of this model, whose settings are used where no other is set.
        recipe: The recipe of a model's folder that has none of its own.
        data: The images of a folder of diffusers: a folder with one sub-folder per class, or an .npz file.
        dry_run: Only say what would be done, and what it would cost.
        shared: Of every verb.
    """
    tables = settings(set)
    method_named(method)
    found = {} if tuned is None else searched(tuned, model, method)
    project = load(model, recipe=recipe, data=data, device=shared.device)
    method_named(method, project.family.name)
    seed = shared.seed or 0
    split = project.split(positions(request, project, seed))
    if tuned is not None:
        again = f"tune it again, with unweave bench {model} --methods {method} --tune 20"
        known_here(project, method, tables=found, seed=seed, place=tuned, again=again)
        tables = merge_tables(found, tables)
    chosen = configured(project, method, tables=tables, seed=seed)
    asked = {
        "verb": "forget",
        "model": found_anywhere(model),
        "recipe": None if recipe is None else found_anywhere(recipe),
        "data": None if data is None else found_anywhere(data),
        **asked_of(project, split, method, tables=tables, seed=seed, device=shared.device),
    }
    place = shared.out or Path("forgotten")
    out.refuse_within(place, project.source, data)
    folder = out.place(place, asked, claim=CLAIM)
    if is_done(folder, project):
        say_done(split, method, folder=folder, shared=shared)
        return 0
    refuse_foreign(folder)
    if dry_run:
        return planned(chosen, method, split=split, project=project, folder=folder, shared=shared)
    with (
        out.writing(folder, asked, claim=CLAIM),
        progress.shown(f"Loaded {model}", quiet=shared.quiet) as listener,
    ):
        original = trained(project, seed, models=folder / MODELS, listener=listener)
        exam = project.family.short_exam(split, cache=folder / MODELS)
        before = glance(exam, original)
        listener(Progress(f"the original; now {method}", 1, 2))
        task, build = project.task(split), project.build
        result = unlearn(original, split, chosen, task=task, seed=seed, device=shared.device, build=build)
        after = glance(exam, result.model)
        listener(Progress(method, 2, 2))
        result.save(folder, write=writer(project, result, name=method))
        made = record.load(folder)
        facts = {"model": called(model), "asked": request.words(), "date": made["environment"]["date"]}
        record.write(add_request(made, facts), folder)
    told(result, method, exam=exam, before=before, after=after, folder=folder, shared=shared)
    return 0


def asked_of(
    project: Project, split: Split, method: str, *, tables: Mapping[str, Any], seed: int, device: str | None
) -> out.Asked:
    """What a run depends on beside where its model is found."""
    weights = None if project.model is None else checkpoint.contents(project.model.state_dict())
    return {
        "facts": project.facts,
        "original": weights,
        "split": split.digest(),
        "code": package_digest(),
        "method": method,
        "settings": tables,
        "seed": seed,
        "device": device,
        "forget": named(split),
    }


def is_done(folder: Path, project: Project) -> bool:
    """Whether a folder, which is free or holds this run, has all of its files."""
    own_form = project.write is not None or isinstance(project.model, Pretrained)
    files = (checkpoint.WEIGHTS, checkpoint.SIDECAR, SPLIT, record.FILE, *([PRETRAINED] if own_form else []))
    return all((folder / name).exists() for name in files)


def writer(project: Project, result: Result, *, name: str) -> Callable[[nn.Module, Path], object] | None:
    """Writes a model in the form that the original came in; None where that has none of its own."""
    write = project.write
    if write is None:
        return None
    facts = {
        "method": name,
        "settings": repr(result.method),
        "seed": result.seed,
        "split": result.split.digest(),
        "forgotten_classes": list(result.split.forgotten_classes),
    }
    return lambda model, folder: write(model, folder, facts)


def trained(project: Project, seed: int, *, models: Path, listener: Listener) -> nn.Module:
    """The original: as it was given, or trained by its recipe."""
    if project.model is not None:
        return project.model
    assert project.original is not None
    listener(Progress("the data; now training the original", 0, 2))
    return project.original(seed, models)


def named(split: Split) -> list[str] | list[int]:
    """The ids of what is forgotten, or its positions."""
    places = split.forget.tolist()
    return places if split.train.names is None else [split.train.names[place] for place in places]


def found_anywhere(place: str) -> str:
    """A path that holds in any working folder; the name of a recipe of the package as it is."""
    return str(Path(place).resolve()) if Path(place).exists() else place


def called(place: str) -> str:
    """What a record calls a model: its file with the folder, which names no place on a machine."""
    path = Path(place).resolve()
    if not path.exists():  # a recipe of the package
        return place
    return f"{path.parent.name}/{path.name}" if path.is_file() else path.name


def told(
    result: Result,
    name: str,
    *,
    exam: Exam[Any],
    before: Mapping[str, float],
    after: Mapping[str, float],
    folder: Path,
    shared: Shared,
) -> None:
    """Prints what was done."""
    n, of, seconds = len(result.split.forget), len(result.split.train), result.cost.seconds
    if shared.json:
        spent = {"seconds": seconds, "gradient_evaluations": result.cost.gradients}
        asked = {"method": name, "forgotten": n, "request": about_own_images(result.split)}
        looks = {"before": before, "after": after, "glance": exam.glance_note}
        show.as_json({"out": str(folder), "done_before": False, **asked, **looks, **spent})
        return
    show.say(f"Forgot {n} of {of} examples with {name} in {seconds:.1f} s. Not audited yet.")
    show.tell(*about_own_images(result.split), "")
    rows = exam.glances
    cells = [(row.title, *(number(each[row.id], row.digits) for each in (before, after))) for row in rows]
    show.table(("", "Before", "After"), cells)
    show.tell(*([exam.glance_note] if exam.glance_note else []), *damage(before, after))
    say_next(folder)


def say_done(split: Split, name: str, *, folder: Path, shared: Shared) -> None:
    """Prints that the run was done before, and where; figures that were printed then are null in JSON."""
    n, of, request = len(split.forget), len(split.train), about_own_images(split)
    if shared.json:
        unknown = dict.fromkeys(("before", "after", "glance", "seconds", "gradient_evaluations"))
        asked = {"method": name, "forgotten": n, "request": request}
        show.as_json({"out": str(folder), "done_before": True, **asked, **unknown})
        return
    show.say(f"Done already: {folder} holds this run, {n} of {of} examples forgotten with {name}.")
    show.tell(*request)
    say_next(folder)


def say_next(folder: Path) -> None:
    """Prints where the model is, and what to do with it."""
    command = ("unweave", "audit", str(folder))
    show.say("", f"Model: {model_in(folder)}", f"Next:  {shlex.join(command)}")


def damage(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    """A sentence if what was to stay has suffered; the looks are in points."""
    fallen = before["retain"] - after["retain"]
    if fallen <= DAMAGED:
        return []
    return [
        f"This model is damaged: the accuracy on the rest fell by {fallen:.1f} points. "
        "Change the settings with --set, or take another method."
    ]


def model_in(folder: Path) -> Path:
    """Where a user loads the model from: the folder that diffusers reads, if there is one, or the weights."""
    loadable = folder / PRETRAINED
    return loadable if loadable.is_dir() else folder / checkpoint.WEIGHTS
