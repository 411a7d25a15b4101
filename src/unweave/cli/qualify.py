"""`unweave qualify`: tests a method on proxy requests of a model; later audits then need no retraining."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from unweave.bench.draw_requests import STRATA, Plan
from unweave.bench.qualification import MakeStage
from unweave.bench.qualification import qualify as run_qualification
from unweave.bench.setup import Tuning
from unweave.bench.stage import Stage
from unweave.bench.study import REFERENCES
from unweave.cli.inputs import out
from unweave.cli.inputs.choose_method import Retraining, configure_method, tuned_settings
from unweave.cli.inputs.executor import HERE, Executor
from unweave.cli.inputs.qualification import facts_of
from unweave.cli.options import DEFAULTS, CommonFlags, parse_settings
from unweave.cli.project import Project
from unweave.cli.project.diffusers_folder import is_local
from unweave.cli.project.place import Place, is_given, load_project, weights_digest
from unweave.cli.project.stage import stage_of
from unweave.cli.project.text_to_image import refuse_pipeline
from unweave.cli.terminal import progress, show
from unweave.methods import DEFAULT, Method, method_named
from unweave.record import record
from unweave.report import html, qualification_tables
from unweave.tables import merge_tables
from unweave.tasks.classifier import Classifier


def qualify(
    model: str,
    /,
    *,
    method: str = DEFAULT,
    set: tuple[str, ...] = (),
    tuned: Path | None = None,
    recipe: str | None = None,
    strata: str = ",".join(STRATA),
    requests: int = 5,
    fraction: float = 0.05,
    executor: Executor = HERE,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Test a method on proxy requests of a classifier, once; audit --qualified then retrains nothing.

    Proxy requests are drawn from the training data in strata. For each, 23 models are retrained and the
    method runs on ten seeds. The record says how often a verdict without retrained models agrees with
    the verdict from them. Give the same command again to resume an interrupted run.

    Args:
        model: project.py, or the folder of a model.
        method: A method, or a pipeline such as lur:recover; see unweave methods.
        set: A setting of the method, such as how.lr=0.1; can be given several times.
        tuned: The folder `tuning` of a bench of this model; its settings are the defaults.
        recipe: The recipe, if the model's folder has none.
        strata: Some of random, memorized, generalized, entangled, class and single, separated by commas.
        requests: The number of proxy requests of each stratum, at least four.
        fraction: The size of a proxy request, as a fraction of the training data.
        executor: Where the models are trained.
        flags: The flags of every verb.
    """
    tables, seed, device = parse_settings(set), flags.seed or 0, flags.device or "cpu"
    names = tuple(dict.fromkeys(each.strip() for each in strata.split(",") if each.strip()))
    plan = Plan(names, requests, fraction, seed=seed)
    method_named(method)
    if method in REFERENCES:
        raise ValueError(f"qualify tests a method, found {method}, with which methods are compared: name one")
    executor.refuse_unfit(device)
    place = Place(model, recipe, None)
    project = load_classifier(place, device)
    if tuned is not None:
        tables = merge_tables(tuned_settings(project, method, model=model, tuning=tuned, seed=seed), tables)
    configured_method = configure_method(project, method, tables=tables, seed=seed)
    project.refuse_undrawable_method(configured_method, method)
    facts = facts_of(project, weights_digest(place, device), repr(configured_method))
    run_facts = {
        "verb": "qualify",
        **facts,
        "project": project.facts,
        "method": method,
        "plan": {**asdict(plan), "strata": list(names)},
        "device": device,
    }
    folder = flags.out or Path("unweave-qualification")
    out.refuse_within(folder, project.source)
    folder = out.choose_folder(folder, run_facts)
    make_stage = stage_maker(place, folder, device, method, configured_method)
    make_stage("fold", torch.tensor([0]))  # raises if there is no way to retrain
    assert project.model is not None
    start = f"Qualifying {method} on {model} in {folder}"
    with (
        executor.crew(device, 1) as crew,
        out.open_folder(folder, run_facts),
        progress.show_progress(start, quiet=flags.quiet) as listener,
    ):
        run_qualification(
            make_stage, project.model, method, plan, folder, facts=facts, crew=crew, listener=listener
        )
        html.write(record.load(folder), folder / html.FILE)
    print_qualification(folder, flags)
    return 0


def load_classifier(place: Place, device: str) -> Project:
    """The project of a given classifier.

    Raises:
        ValueError: If the model is not one given model, or no classifier.
    """
    model = place.model
    if not is_given([model]):
        raise ValueError(f"qualify takes one given model, project.py or a folder, found {model!r}")
    if is_local(Path(model)):
        refuse_pipeline(Path(model))
        raise ValueError(f"qualify is for classifiers, found a diffusers folder, {model}")
    project = load_project(place, device)
    if project.family.name != Classifier.family:
        raise ValueError(f"qualify is for classifiers, found a {project.family.noun}")
    return project


def stage_maker(place: Place, folder: Path, device: str, name: str, method: Method | Retraining) -> MakeStage:
    """A function that makes the stage of a proxy request, with the method and the untouched original."""

    def make(request: str, positions: torch.Tensor) -> Stage:
        stage = stage_of(place, tuple(positions.tolist()), folder, device)
        methods = {"original": stage.recipe.methods["original"], name: method}
        recipe = replace(
            stage.recipe,
            name=request,
            methods=methods,
            headline=name,
            probe=0,
            seeds=tuple(range(10)),
            calibration_seeds=tuple(range(100, 112)),
            tuning=Tuning(begin="recipe"),
        )
        return replace(stage, recipe=recipe, keeps_models=False)

    return make


def print_qualification(folder: Path, flags: CommonFlags) -> None:
    """Prints the verdicts by stratum, and how verdicts without retrained models agree with them."""
    content = record.load(folder)
    qualification = content["qualification"]
    if flags.json:
        places = {"out": str(folder), "report": str(folder / html.FILE)}
        show.print_json({**places, "qualification": qualification})
        return
    for header, lines in qualification_tables.grids(content):
        show.print_table(header, lines)
        show.print_lines("")
    show.print_sentences(*qualification_tables.sentences(qualification))
    show.print_lines("", f"Report: {folder / html.FILE}")
