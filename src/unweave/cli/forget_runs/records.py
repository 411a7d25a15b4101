"""`unweave forget --random`, `--class` and the like: a model forgets records or a class of its data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unweave.cli.forget_runs.dry_run import print_plan
from unweave.cli.forget_runs.run import Run
from unweave.cli.inputs import out
from unweave.cli.inputs.choose_method import Retraining, configure_method, read_search, tuned_settings
from unweave.cli.inputs.forget_folder import find_folder, remove_states
from unweave.cli.inputs.request import Request, positions
from unweave.cli.inputs.scope import TrainedWeights
from unweave.cli.options import CommonFlags
from unweave.cli.process_group import refuse_other_facts
from unweave.cli.project import Project, load
from unweave.cli.terminal.show_result import print_done
from unweave.methods import Method, method_named
from unweave.methods.unsaved_state import refuse_unsaved_state
from unweave.record import checkpoint
from unweave.record.record import package_digest
from unweave.split import Split
from unweave.tables import merge_tables
from unweave.weights.processes import Processes


def forget_records(
    model: str,
    request: Request,
    trained: TrainedWeights,
    *,
    method: str | None,
    tables: Mapping[str, Any],
    tuned: Path | None,
    recipe: str | None,
    data: str | None,
    place_model: Callable[[nn.Module], nn.Module],
    save_sharded: bool,
    save_every: int | None,
    dry_run: bool,
    flags: CommonFlags,
) -> int:
    """Writes a model that has forgotten records or a class; does nothing if the folder holds it already."""
    processes, seed = Processes.current(), flags.seed or 0
    if tuned is not None and method is not None:
        read_search(tuned, model, method)  # its errors come before the data is read
    project = load(model, recipe=recipe, data=data, device=flags.device)
    method = method or project.default_method
    method_named(method, project.family.name)
    split = project.split(positions(request, project, seed))
    if tuned is not None:
        tables = merge_tables(tuned_settings(project, method, model=model, tuning=tuned, seed=seed), tables)
    configured_method = configure_fit_method(
        project, method, tables=tables, seed=seed, trained=trained, saves_states=save_every is not None
    )
    run_facts = {
        **place_facts(model, recipe, data),
        **request_facts(project, split, method, tables=tables, seed=seed, device=flags.device),
        **trained.facts(),
        # a whole model has no such fact, as in earlier versions
        **({"save_sharded": True} if save_sharded else {}),
    }
    place = flags.out or Path("forgotten")
    out.refuse_within(place, project.source, data)
    refuse_other_facts(run_facts)
    folder, is_finished = processes.from_first(
        lambda: find_folder(place, run_facts, project, sharded=save_sharded)
    )
    run = Run(
        project, split, configured_method, method, model, request, folder, save_every, flags, save_sharded
    )
    if is_finished:
        processes.from_first(lambda: remove_states(folder))
        print_done(split, method, folder=folder, flags=flags)
    elif dry_run:
        processes.from_first(lambda: print_plan(run, trained))  # alone: a clock decides how long it measures
    else:
        run.write_result(run_facts, place_model)
    return 0


def configure_fit_method(
    project: Project,
    name: str,
    *,
    tables: Mapping[str, Any],
    seed: int,
    trained: TrainedWeights,
    saves_states: bool,
) -> Method | Retraining:
    """The method with its settings.

    Raises:
        ValueError: If the settings, the model's images or saved states do not fit it.
    """
    method = configure_method(project, name, tables=tables, seed=seed, trained=trained)
    project.refuse_undrawable_method(method, name)
    if saves_states:
        refuse_unsaved_state(method, name)
    return method


def place_facts(model: str, recipe: str | None, data: str | None) -> out.Facts:
    """The places that a run reads."""
    places = {"model": model, "recipe": recipe, "data": data}
    absolute_places = {key: None if place is None else absolute_place(place) for key, place in places.items()}
    return {"verb": "forget", **absolute_places}


def request_facts(
    project: Project, split: Split, method: str, *, tables: Mapping[str, Any], seed: int, device: str | None
) -> out.Facts:
    """The facts that a run depends on, without the place of its model."""
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
        "forget": forgotten_ids(split),
    }


def forgotten_ids(split: Split) -> list[str] | list[int]:
    """The ids of the forget set, or its positions."""
    places = split.forget.tolist()
    return places if split.train.names is None else [split.train.names[int(place)] for place in places]


def absolute_place(place: str) -> str:
    """The absolute path of a place; the name of a recipe of the package stays unchanged."""
    return str(Path(place).resolve()) if Path(place).exists() else place
