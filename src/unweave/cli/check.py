"""`unweave check`: finds problems of a model and its data, and estimates costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unweave.audits.exam import Glancing, glance
from unweave.bench.study import REFERENCES
from unweave.bench.workers import Listener
from unweave.cli.checks import rounds, timing
from unweave.cli.checks.facts import (
    additions_facts,
    additions_line,
    data_line,
    data_sizes,
    model_facts,
    model_line,
)
from unweave.cli.checks.findings import (
    print_costs,
    print_notes,
    retraining_advice,
    slower_methods,
    usable_line,
    write_findings,
)
from unweave.cli.checks.notes import about_influence, missing_retraining, notes
from unweave.cli.inputs import out
from unweave.cli.inputs.concept_recipe import read_concept_recipe
from unweave.cli.inputs.concept_source import NO_GENERATION, Generation
from unweave.cli.inputs.concepts import NO_CONCEPT, Concepts, refuse_no_concept, refuse_other_requests
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.request import NOTHING, Request, about_own_images, positions
from unweave.cli.inputs.scope import ALL, TrainedWeights
from unweave.cli.options import DEFAULTS, EVERY, CommonFlags, parse_names
from unweave.cli.process_group import refuse_unfit_flags
from unweave.cli.project import Project, load
from unweave.cli.terminal import progress, show
from unweave.methods import method_named
from unweave.report.numbers import number
from unweave.split import Split
from unweave.weights.processes import Processes
from unweave.weights.shard import shard_model
from unweave.weights.sharded_model import is_model_sharded

IN_PLACE = "sharded: forget edits the model in place, as it can't be copied; its files stay"
"""What `forget` does with a sharded model."""

KEY_FINDINGS = ("model", "data", "notes")
"""The findings that tell one check from another in the same folder."""


def check(
    model: str,
    /,
    *,
    request: Request = NOTHING,
    concepts: Concepts = NO_CONCEPT,
    generation: Generation = NO_GENERATION,
    recipe: str | None = None,
    data: str | None = None,
    methods: str | None = None,
    trained: TrainedWeights = ALL,
    shard: bool = False,
    blocks: str | None = None,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Check a model and its data for problems, and estimate the cost of methods and of a retrain.

    The model is a classifier with one logit per class and one label per example, or a denoiser. Costs are
    estimated by running each method for a few steps. Without a request, check assumes a random tenth of the
    data, or the first class for a generator. For a text-to-image model it counts the captions that hold the
    concept, and estimates the cost of lur-lagged if no methods are given.

    Args:
        model: project.py, a recipe, or a model's folder.
        request: The forget set.
        concepts: The concepts that a text-to-image model forgets.
        generation: The images that it would draw itself; check draws one of each kind, in a few steps.
        recipe: The recipe, if the model's folder has none; for a text-to-image model a recipe of a request.
        data: The images of a folder of diffusers: a folder with one sub-folder per class, or an .npz file;
            for a text-to-image model a folder with captions.
        methods: Method names separated by commas, such as lur:recover,salun, or all; by default the default
            of forget and three others.
        trained: The weights that the methods train.
        shard: Under torchrun, cut the model over the processes (FSDP2), as forget does; the retrain is then
            not estimated.
        blocks: With --shard, a pattern for the names of the modules that are gathered one at a time.
        flags: The flags of every verb.
    """
    concept_recipe = read_concept_recipe(recipe, model)
    if concepts.concept or concept_recipe is not None:
        refuse_other_requests(request, None, recipe if concept_recipe is None else None)
        refuse_unfit_flags(shard=shard, blocks=blocks, save_every=None, concept=True)
        with require_diffusion():
            from unweave.cli.checks.concepts import check_concept
        return check_concept(
            model,
            concepts,
            trained,
            data=data,
            generation=generation,
            methods=methods,
            recipe=concept_recipe,
            flags=flags,
        )
    refuse_no_concept(model, concepts, generation)
    method_names, processes = None if methods == EVERY else parse_names(methods), Processes.current()
    refuse_unfit_flags(shard=shard, blocks=blocks, save_every=None, concept=False)
    project = load(model, recipe=recipe, data=data, device=flags.device)
    names = all_methods(project) if methods == EVERY else methods_to_price(project, method_names)
    if flags.out is not None:
        out.refuse_within(flags.out, project.source, data)
    original, project = project.to_device(flags.device)
    trained_layers = trained.find_layers(original)
    split = project.split(forget_positions(request, project, flags.seed or 0))
    exam = project.family.short_exam(split)
    with progress.show_progress("Checking the model", quiet=flags.quiet) as listener:
        findings = inspect_model(original, project, split, exam)
        if request.flags() or project.forget is not None:  # the assumed forget set is nobody's request
            findings["notes"] += about_influence(findings["accuracy"] or {}, split)
        if trained.is_lora:
            findings["trained"] = additions_facts(original, trained_layers, trained)
        placed_model = shard_model(original, blocks) if shard else original
        findings["notes"] += [IN_PLACE] if shard else []
        prices = estimate_costs(names, placed_model, split, project, trained, listener)
    findings |= {"costs": prices, "costlier_than_a_retrain": slower_methods(prices)}
    facts = {"verb": "check", "model": model, "found": {key: findings[key] for key in KEY_FINDINGS}}
    processes.from_first(lambda: write_findings(findings, facts, flags.out))
    obstacle = "--shard does not measure it" if shard else missing_retraining(project)
    show.print_json(findings) if flags.json else print_report(model, findings, exam, obstacle)
    if methods is None and not flags.json:
        count = len(all_methods(project)) - len(names)
        show.print_sentences(f"{count} other methods were not measured: --methods all measures them too.")
    return 0


def methods_to_price(project: Project, method_names: Sequence[str] | None) -> list[str]:
    """The names of the methods to estimate; checks the wanted names."""
    for name in method_names or ():
        method_named(name, project.family.name)
    return [
        name for name in dict.fromkeys(method_names or project.family.usual_methods) if name not in REFERENCES
    ]


def all_methods(project: Project) -> list[str]:
    """The methods that are priced by default, and all others that support the family of the project."""
    return [
        name
        for name in dict.fromkeys((*project.family.usual_methods, *project.methods))
        if name not in REFERENCES
    ]


def inspect_model(original: nn.Module, project: Project, split: Split, exam: Glancing[Any]) -> dict[str, Any]:
    """Collects all findings about a model and its data, but the costs."""
    has_model = project.model is not None
    return {
        "model": model_facts(original, project),
        "data": data_sizes(split),
        "request": about_own_images(split),
        "notes": list(notes(original, project)),
        "accuracy": Processes.current().from_first(lambda: glance(exam, original)) if has_model else None,
        "glance": exam.glance_note if has_model else None,
    }


def forget_positions(request: Request, project: Project, seed: int) -> torch.Tensor:
    """The positions of the forget set, or of the assumed one."""
    is_assumed = not request.flags() and project.forget is None
    return (
        project.family.default_forget_set(project.train, seed)
        if is_assumed
        else positions(request, project, seed)
    )


def estimate_costs(
    names: list[str],
    model: nn.Module,
    split: Split,
    project: Project,
    trained: TrainedWeights,
    listener: Listener,
) -> dict[str, dict[str, Any]]:
    """Estimates the costs of a retrain and of each method, in interleaved rounds."""
    measurements = {name: timing.named_rounds(name, model, split, project, trained) for name in names}
    if project.retrain is not None and not is_model_sharded(model):  # last: it may hold the most memory
        measurements["retrain"] = timing.retraining_rounds(project, model, split)
    timing.warm_up(project, model, split, trained)
    device = next(model.parameters()).device
    return rounds.compare_with_retraining(rounds.estimate_all(measurements, device, listener))


def print_report(model: str, findings: Mapping[str, Any], exam: Glancing[Any], obstacle: str) -> None:
    """Prints the findings.

    Args:
        model: The name of the model, as given.
        findings: The findings.
        exam: The exam, which has the titles of the figures.
        obstacle: What a retrain lacks; None if nothing.
    """
    costs = findings["costs"]
    show.print_sentences(*retraining_advice(costs))
    show.print_sentences(usable_line(model, costs), "")
    show.print_sentences(
        model_line(findings["model"]), data_line(findings["data"], ids=findings["model"]["ids"])
    )
    show.print_sentences(*findings["request"], *additions_line(findings))
    show.print_lines(*([] if findings["accuracy"] is None else answer_lines(findings["accuracy"], exam)), "")
    print_notes(findings["notes"])
    sentences = [] if "retrain" in costs else [f"What a retrain costs is unknown: {obstacle}."]
    print_costs(costs, *sentences)


def answer_lines(figures: Mapping[str, float], exam: Glancing[Any]) -> list[str]:
    """One line for each figure of the model's answers."""
    lines = [f"{each.title}: {number(figures[each.id], each.digits)}" for each in exam.glances]
    return [*lines, exam.glance_note] if exam.glance_note else lines
