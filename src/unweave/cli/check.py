"""`unweave check`: finds problems of a model and its data, and estimates costs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave.audits.exam import Glancing, glance
from unweave.bench.study import REFERENCES
from unweave.bench.workers import Listener, Progress
from unweave.cli.checks import timing
from unweave.cli.checks.facts import (
    additions_facts,
    additions_line,
    data_line,
    data_sizes,
    model_facts,
    model_line,
)
from unweave.cli.checks.notes import missing_retraining, notes
from unweave.cli.forget_concept import NO_CONCEPT, Concepts, refuse_no_concept, refuse_other_requests
from unweave.cli.inputs import out
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.request import NOTHING, Request, about_own_images, positions
from unweave.cli.inputs.scope import ALL, Trained
from unweave.cli.options import DEFAULTS, CommonFlags, parse_names
from unweave.cli.processes.shared_run import refuse_unfit_flags
from unweave.cli.project import Project, load
from unweave.cli.terminal import progress, show
from unweave.methods import DEFAULT, method_named
from unweave.record.files import write_atomically
from unweave.record.record import to_json_values
from unweave.report.numbers import number
from unweave.report.rows import PEAK_MEMORY
from unweave.split import Split
from unweave.weights.processes import Processes
from unweave.weights.shard import shard_model
from unweave.weights.sharded_model import is_model_sharded

FILE = "check.json"
MAX_NAMES = 5
"""The largest number of methods that a sentence names."""
COLUMNS: Mapping[str, tuple[str, int]] = {
    "Seconds": ("seconds", 1),
    "Relative to a retrain": ("cost", 2),
    "Gradients": ("gradients", 0),
    "Peak MiB": ("peak_mib", 0),
}
"""The columns of a table of costs: the key of each, and its decimals."""
ASSUMED = (
    "Measured by a few steps of each; the other methods are assumed to cost the same.",
    "A recovery that ends once the model is restored is assumed to take its maximum.",
    PEAK_MEMORY,
)
"""The note on how costs are estimated."""


def check(
    model: str,
    /,
    *,
    request: Request = NOTHING,
    concepts: Concepts = NO_CONCEPT,
    recipe: str | None = None,
    data: str | None = None,
    methods: str | None = None,
    trained: Trained = ALL,
    shard: bool = False,
    blocks: str | None = None,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Check a model and its data for problems, and estimate the cost of each method and of a retrain.

    The model is a classifier with one logit per class and one label per example, or a denoiser. Costs are
    estimated by running each method for a few steps. Without a request, check assumes a random tenth of the
    data, or the first class for a generator. For a text-to-image model it counts the captions that hold the
    concept, and estimates the cost of lur if no methods are given.

    Args:
        model: project.py, a recipe, or a model's folder.
        request: The forget set.
        concepts: The concepts that a text-to-image model forgets.
        recipe: The recipe of a model's folder that has no recipe in it.
        data: The images of a folder of diffusers: a folder with one sub-folder per class, or an .npz file;
            for a text-to-image model a folder with captions.
        methods: Names with commas between, such as lur:recover,salun; all if none are given.
        trained: The weights that the methods train.
        shard: Under torchrun, cut the model over the processes (FSDP2), as forget does; the retrain is then
            not estimated.
        blocks: With --shard, a pattern for the names of the modules that are gathered one at a time.
        flags: The flags of every verb.
    """
    if concepts.concept:
        refuse_other_requests(request, None, recipe)
        refuse_unfit_flags(shard=shard, blocks=blocks, save_every=None, concept=True)
        return check_request(model, concepts, trained, data=data, methods=methods, flags=flags)
    refuse_no_concept(model, concepts)
    requested, processes = parse_names(methods), Processes.current()
    refuse_unfit_flags(shard=shard, blocks=blocks, save_every=None, concept=False)
    project = load(model, recipe=recipe, data=data, device=flags.device)
    names = methods_to_price(project, requested)
    if flags.out is not None:
        out.refuse_within(flags.out, project.source, data)
    original, project = project.to_device(flags.device)
    trained_layers = trained.find_layers(original)
    split = project.split(forget_positions(request, project, flags.seed or 0))
    exam = project.family.short_exam(split)
    with progress.show_progress("Checking the model", quiet=flags.quiet) as listener:
        findings = inspect_model(original, project, split, exam)
        if trained.is_lora:
            findings["trained"] = additions_facts(original, trained_layers, trained)
        placed = shard_model(original, blocks) if shard else original
        prices = estimate_costs(names, placed, split, project, trained, listener)
    findings |= {"costs": prices, "costlier_than_a_retrain": list(slower_methods(prices))}
    processes.from_first(lambda: write_findings(model, findings, flags.out))
    obstacle = "--shard does not measure it" if shard else missing_retraining(project)
    show.print_json(findings) if flags.json else print_report(model, findings, exam, obstacle)
    return 0


def check_request(
    model: str,
    concepts: Concepts,
    trained: Trained,
    *,
    data: str | None,
    methods: str | None,
    flags: CommonFlags,
) -> int:
    """Checks a request to a text-to-image model.

    Raises:
        ValueError: If the extra is not installed.
    """
    with require_diffusion():
        from unweave.cli.checks import concepts as checks
    return checks.check_concept(model, concepts, trained, data=data, methods=methods, flags=flags)


def write_findings(model: str, findings: Mapping[str, Any], place: Path | None) -> None:
    """Writes the findings into a folder, if one is given."""
    if place is None:
        return
    found = {key: findings[key] for key in ("model", "data", "notes")}
    facts = {"verb": "check", "model": model, "found": found}
    with out.open_folder(out.choose_folder(place, facts), facts) as folder:
        write_atomically(folder / FILE, json.dumps(to_json_values(findings), indent=1))


def methods_to_price(project: Project, requested: Sequence[str] | None) -> list[str]:
    """The names of the methods to estimate; checks the wanted names."""
    for name in requested or ():
        method_named(name, project.family.name)
    names = (DEFAULT, *project.methods) if requested is None else dict.fromkeys(requested)
    return [name for name in names if name not in REFERENCES]


def inspect_model(original: nn.Module, project: Project, split: Split, exam: Glancing[Any]) -> dict[str, Any]:
    """Collects all findings about a model and its data, but the costs."""
    given = project.model is not None
    return {
        "model": model_facts(original, project),
        "data": data_sizes(split),
        "request": about_own_images(split),
        "notes": list(notes(original, project)),
        "accuracy": Processes.current().from_first(lambda: glance(exam, original)) if given else None,
    }


def forget_positions(request: Request, project: Project, seed: int) -> torch.Tensor:
    """The positions of the forget set, or of the assumed one."""
    undecided = not request.flags() and project.forget is None
    return (
        project.family.default_forget_set(project.train, seed)
        if undecided
        else positions(request, project, seed)
    )


def estimate_costs(
    names: list[str],
    model: nn.Module,
    split: Split,
    project: Project,
    trained: Trained,
    listener: Listener,
) -> dict[str, dict[str, Any]]:
    """Estimates the cost of a retrain and of each method."""
    warm_up(project, model, split, trained)
    retrains = project.retrain is not None and not is_model_sharded(model)
    total = len(names) + retrains
    found: dict[str, timing.Estimate] = {}
    for done, name in enumerate(names, 1):
        found[name] = timing.estimate_named(name, model, split, project, trained)
        listener(Progress(name, done, total))
    whole = None
    if retrains:  # last: it may hold the most memory
        whole = timing.estimate_retraining(project, model, split)
        listener(Progress("a retrain", total, total))
    retrain = {} if whole is None else {"retrain": {**dataclasses.asdict(whole), "cost": 1.0}}
    methods = {
        name: {**dataclasses.asdict(each), "cost": each.relative_to(whole)} for name, each in found.items()
    }
    return {**retrain, **methods}


def slower_methods(costs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The methods that take longer than a retrain, with the ratio of times."""
    measured_costs = {name: each["cost"] for name, each in costs.items() if each["cost"] is not None}
    return {name: cost for name, cost in measured_costs.items() if cost > 1}


def retraining_advice(costs: Mapping[str, float]) -> list[str]:
    """Advice if methods take longer than a retrain.

    Args:
        costs: From `slower_methods`.
    """
    if not costs:
        return []
    unit = " times a retrain"
    phrases = [
        f"{name} ({number(cost, 2)}{'' if i else unit})" for i, (name, cost) in enumerate(costs.items())
    ]
    if len(phrases) > MAX_NAMES:
        phrases = [*phrases[:MAX_NAMES], f"{len(phrases) - MAX_NAMES} more methods"]
    names = " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
    return [f"Retraining costs less than {names}: use --method retrain, which is exact.", ""]


def warm_up(project: Project, model: nn.Module, split: Split, trained: Trained = ALL) -> None:
    """Runs one pass first, because the first one includes torch's own start."""
    timing.estimate_named("finetune", model, split, project, trained)


def print_report(model: str, findings: Mapping[str, Any], exam: Glancing[Any], obstacle: str) -> None:
    """Prints the findings.

    Args:
        model: The name of the model, as given.
        findings: The findings.
        exam: The exam, which has the titles of the figures.
        obstacle: What a retrain lacks; None if nothing.
    """
    refusals = {name: each["refused"] for name, each in findings["costs"].items() if each["refused"]}
    show.print_sentences(*retraining_advice(slower_methods(findings["costs"])))
    exceptions = f", but not with {', '.join(refusals)}" if refusals else ""
    show.print_sentences(f"{model} can be used{exceptions}.", "")
    show.print_sentences(
        model_line(findings["model"]), data_line(findings["data"], ids=findings["model"]["ids"])
    )
    show.print_sentences(*findings["request"], *additions_line(findings))
    show.print_lines(*([] if findings["accuracy"] is None else answer_lines(findings["accuracy"], exam)), "")
    show.print_sentences(*([f"- {note}" for note in findings["notes"]] or ["No problem was found."]), "")
    print_costs(findings["costs"])
    unknown = [] if "retrain" in findings["costs"] else [f"What a retrain costs is unknown: {obstacle}."]
    show.print_sentences("", *ASSUMED, *unknown)
    show.print_sentences(*(f"{name}: {reason}" for name, reason in refusals.items()))


def answer_lines(figures: Mapping[str, float], exam: Glancing[Any]) -> list[str]:
    """One line for each figure of the model's answers."""
    lines = [f"{each.title}: {number(figures[each.id], each.digits)}" for each in exam.glances]
    return [*lines, exam.glance_note] if exam.glance_note else lines


def print_costs(costs: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints the table of costs, relative to a retrain if one is possible."""
    columns = {title: each for title, each in COLUMNS.items() if each[0] != "cost" or "retrain" in costs}
    rows = [cost_row(name, each, list(columns.values())) for name, each in costs.items()]
    show.print_table(("Method", *columns, "Runs"), rows)


def cost_row(name: str, each: Mapping[str, Any], columns: list[tuple[str, int]]) -> list[str]:
    """One line of the table of costs."""
    numbers = [number(each[key], decimals) for key, decimals in columns]
    return [name, *numbers, "no" if each["refused"] else "yes"]
