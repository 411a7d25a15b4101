"""`unweave forget`: writes a new model that has forgotten some of its data; never changes the original."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unweave.audits.exam import glance
from unweave.bench.workers import Listener, Progress
from unweave.cli.checks.dry_run import print_plan
from unweave.cli.forget_concept import (
    NO_CONCEPT,
    Concepts,
    forget_concept,
    refuse_no_concept,
    refuse_other_requests,
)
from unweave.cli.inputs import out
from unweave.cli.inputs.choose_method import Retraining, configure_method, read_search, tuned_method
from unweave.cli.inputs.concept_recipe import read_concept_recipe
from unweave.cli.inputs.concept_source import NO_GENERATION, Generation
from unweave.cli.inputs.request import NOTHING, Request, positions
from unweave.cli.inputs.scope import ALL, Trained
from unweave.cli.options import DEFAULTS, CommonFlags, parse_settings
from unweave.cli.processes.shared_run import open_on_first, refuse_other_facts, refuse_unfit_flags
from unweave.cli.project import Project, load
from unweave.cli.terminal import progress
from unweave.cli.terminal.show_forgotten import print_done, print_result
from unweave.errors import Failed
from unweave.methods import DEFAULT, Method, method_named
from unweave.record import checkpoint, record
from unweave.record.files import sha256
from unweave.record.one_model import add_request
from unweave.record.record import package_digest
from unweave.result import ADDITIONS, PRETRAINED, Pretrained, Result, read_if_present, refuse_foreign
from unweave.split import Split
from unweave.tables import merge_tables
from unweave.unlearning import unlearn
from unweave.weights.processes import Processes
from unweave.weights.shard import shard_model
from unweave.weights.sharded_model import gather_on_first

CLAIM = "forget.json"
MODELS = "models"
SPLIT = "split.json"
STATES = "states"


def forget(
    model: str,
    /,
    *,
    request: Request = NOTHING,
    concepts: Concepts = NO_CONCEPT,
    generation: Generation = NO_GENERATION,
    trained: Trained = ALL,
    method: str = DEFAULT,
    set: tuple[str, ...] = (),
    tuned: Path | None = None,
    recipe: str | None = None,
    data: str | None = None,
    shard: bool = False,
    blocks: str | None = None,
    save_every: int | None = None,
    dry_run: bool = False,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Write a new model that has forgotten some of its data.

    It writes model.safetensors with model.json, record.json, split.json, and forget.json with the request. A
    model from a diffusers folder is also written as a copy of that folder, in the folder pretrained. The
    folder models holds models trained on the way: the original of a recipe, and the classifier that
    recognises a generator's images. You may delete it; audit then trains what it needs again. The original is
    never changed.

    Args:
        model: project.py, a recipe, or a model's folder.
        request: The forget set.
        concepts: The concepts that a text-to-image model forgets.
        generation: The images that it draws itself.
        trained: The weights that the method trains.
        method: A method, or a pipeline such as lur:recover; see unweave methods.
        set: A setting of the method, such as how.lr=0.1, or of a pipeline's stage, such as
            recover.how.lr=0.1; can be given several times.
        tuned: The folder `tuning` of a bench of this model; its settings are the defaults. For a bench at
            several budgets, the file of one of them, such as tuning/digits-trace@0.1.toml.
        recipe: The recipe of a model's folder that has no recipe in it; for a text-to-image model a recipe of
            a request, such as sd-nudity.
        data: The images for a diffusers folder: a folder with one sub-folder per class, or an .npz file;
            for a text-to-image model a folder with captions, in metadata.jsonl or metadata.csv.
        shard: Under torchrun, cut the model over the processes (FSDP2); otherwise each holds all of it.
        blocks: With --shard, a pattern for the names of the modules that are gathered one at a time; by
            default the model's own repeated layers.
        save_every: The number of steps between two saved states; the same command then resumes an interrupted
            run. By default none is saved.
        dry_run: Only print what forget would do, and its cost.
        flags: The flags of every verb.
    """
    tables, processes = parse_settings(set), Processes.current()
    method_named(method)
    asked = read_concept_recipe(recipe)
    if asked is not None:
        concepts, trained = asked.concepts(concepts), asked.trained(trained)
        generation = asked.generation(generation, data)
        tables, recipe = asked.settings(method, tables), None
    refuse_unfit_flags(shard=shard, blocks=blocks, save_every=save_every, concept=bool(concepts.concept))
    if concepts.concept:
        refuse_other_requests(request, tuned, recipe)
        return forget_concept(
            model,
            concepts,
            trained,
            method=method,
            tables=tables,
            data=data,
            generation=generation,
            dry_run=dry_run,
            flags=flags,
        )
    refuse_no_concept(model, concepts, generation)
    tuned_tables = {} if tuned is None else read_search(tuned, model, method)
    project = load(model, recipe=recipe, data=data, device=flags.device)
    method_named(method, project.family.name)
    seed = flags.seed or 0
    split = project.split(positions(request, project, seed))
    if tuned is not None:
        again = f"tune it again, with unweave bench {model} --methods {method} --tune 20"
        tuned_method(project, method, tables=tuned_tables, seed=seed, place=tuned, again=again)
        tables = merge_tables(tuned_tables, tables)
    chosen_method = configure_method(project, method, tables=tables, seed=seed, trained=trained)
    run_facts = {
        "verb": "forget",
        "model": absolute_place(model),
        "recipe": None if recipe is None else absolute_place(recipe),
        "data": None if data is None else absolute_place(data),
        **request_facts(project, split, method, tables=tables, seed=seed, device=flags.device),
        **trained.facts(),
    }
    place = flags.out or Path("forgotten")
    out.refuse_within(place, project.source, data)
    refuse_other_facts(run_facts)
    folder, done = processes.from_first(lambda: find_folder(place, run_facts, project))
    if done:
        processes.from_first(lambda: remove_states(folder))
        print_done(split, method, folder=folder, flags=flags)
        return 0
    run = Run(project, split, chosen_method, method, trained, model, request, folder, save_every, flags)
    if dry_run:
        return processes.from_first(run.print_dry_run)  # alone: a clock decides how long it measures
    run.write_result(run_facts, lambda original: shard_model(original, blocks) if shard else original)
    return 0


@dataclass(frozen=True)
class Run:
    """One run of a method on a request.

    Args:
        project: The model with its data.
        split: The data, cut by the request.
        method: The method.
        name: The name of the method on the command line.
        trained: The weights that it trains.
        model: The model on the command line.
        request: The request on the command line.
        folder: The folder of the result.
        save_every: The number of steps between two saved states; None saves none.
        flags: The flags of every verb.
    """

    project: Project
    split: Split
    method: Method | Retraining
    name: str
    trained: Trained
    model: str
    request: Request
    folder: Path
    save_every: int | None
    flags: CommonFlags

    def print_dry_run(self) -> int:
        """Prints what the run would do, and its cost."""
        return print_plan(
            self.method,
            self.name,
            split=self.split,
            project=self.project,
            folder=self.folder,
            trained=self.trained,
            flags=self.flags,
        )

    def write_result(self, facts: out.Facts, place: Callable[[nn.Module], nn.Module]) -> None:
        """Unlearns, writes the result into the folder, and prints it.

        Args:
            facts: What identifies the run.
            place: Puts the original where it is unlearned, such as over several processes.
        """
        processes, models, flags = Processes.current(), self.folder / MODELS, self.flags
        seed = flags.seed or 0
        with (
            open_on_first(self.folder, facts, CLAIM),
            progress.show_progress(f"Loaded {self.model}", quiet=flags.quiet) as listener,
        ):
            original = load_original(
                self.project, seed, device=flags.device, models=models, listener=listener
            )
            exam = self.project.family.short_exam(self.split, cache=models)
            before = processes.from_first(lambda: glance(exam, original))
            listener(Progress(f"the original; now {self.name}", 1, 2))
            result = self.unlearn(place(original), seed)
            whole = gather_on_first(result.model)
            after = processes.from_first(lambda: glance(exam, whole))
            listener(Progress(self.name, 2, 2))
            save_result(
                result, self.project, self.folder, name=self.name, model=self.model, request=self.request
            )
            processes.from_first(lambda: remove_states(self.folder))
        print_result(
            result, self.name, exam=exam, before=before, after=after, folder=self.folder, flags=flags
        )

    def unlearn(self, original: nn.Module, seed: int) -> Result:
        """Unlearns; a run that can't succeed leaves no states."""
        try:
            return unlearn(
                original,
                self.split,
                self.method,
                task=self.project.task(self.split),
                seed=seed,
                device=self.flags.device,
                build=self.project.build,
                state_folder=None if self.save_every is None else self.folder / STATES,
                save_every=self.save_every or 1,
            )
        except Failed:
            if Processes.current().rank == 0:
                remove_states(self.folder)
            raise


def find_folder(place: Path, run_facts: out.Facts, project: Project) -> tuple[Path, bool]:
    """The folder of a run, and whether it holds the finished run.

    Raises:
        ValueError: If the folder can't be used.
    """
    folder = out.choose_folder(place, run_facts, claim=CLAIM)
    done = is_done(folder, project, additions="trained" in run_facts)
    if not done:
        refuse_foreign(folder)
    return folder, done


def remove_states(folder: Path) -> None:
    """Removes the saved states of a run that is finished."""
    shutil.rmtree(folder / STATES, ignore_errors=True)


def save_result(
    result: Result, project: Project, folder: Path, *, name: str, model: str, request: Request
) -> None:
    """Writes the result, and the request into its record; on the first process."""
    result.save(folder, write=folder_writer(project, result, name=name))

    def describe() -> None:
        saved = record.load(folder)
        facts = {"model": model_label(model), "asked": request.words(), "date": saved["environment"]["date"]}
        record.write(add_request(saved, facts), folder)

    Processes.current().from_first(describe)


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


def is_done(folder: Path, project: Project, *, additions: bool) -> bool:
    """Whether a folder holds all files of this run, as they were written."""
    own_form = project.write is not None or isinstance(project.model, Pretrained)
    files = [checkpoint.WEIGHTS, checkpoint.SIDECAR, SPLIT, record.FILE]
    files += [name for name, written in ((PRETRAINED, own_form), (ADDITIONS, additions)) if written]
    return all((folder / name).exists() for name in files) and is_whole(folder, project)


def is_whole(folder: Path, project: Project) -> bool:
    """Whether the files of a run fit together: after a crash or a full disk some may be cut or missing."""
    sidecar = read_if_present(folder / checkpoint.SIDECAR)
    try:
        (stage,) = record.load(folder)["stages"].values()
        split = Split.load(folder / SPLIT, project.train, project.test)
    except ValueError:
        return False
    dated = stage.get("request", {}).get("date") is not None  # what is added last
    same = sidecar.get("split") == split.digest()
    return dated and same and sidecar.get("weights") == sha256(folder / checkpoint.WEIGHTS)


def folder_writer(
    project: Project, result: Result, *, name: str
) -> Callable[[nn.Module, Path], object] | None:
    """A function that writes a model in the format of the original; None if it has no special format."""
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


def load_original(
    project: Project, seed: int, *, device: str | None, models: Path, listener: Listener
) -> nn.Module:
    """The original: the given model, or one that the first process trains by its recipe."""
    if project.model is not None:
        return project.model
    train, processes = project.original, Processes.current()
    assert train is not None
    listener(Progress("the data; now training the original", 0, 2))
    if processes.count == 1:
        return train(seed, models)
    state = processes.from_first(lambda: dict(train(seed, models).cpu().state_dict()))
    original = project.fresh_model()
    original.load_state_dict(state)
    return original.to(device or "cpu").eval()


def forgotten_ids(split: Split) -> list[str] | list[int]:
    """The ids of the forget set, or its positions."""
    places = split.forget.tolist()
    return places if split.train.names is None else [split.train.names[int(place)] for place in places]


def absolute_place(place: str) -> str:
    """The absolute path of a place; the name of a recipe of the package stays unchanged."""
    return str(Path(place).resolve()) if Path(place).exists() else place


def model_label(place: str) -> str:
    """The label of a model in a record: its folder and file, without the rest of the path."""
    path = Path(place).resolve()
    if not path.exists():  # a recipe of the package
        return place
    return f"{path.parent.name}/{path.name}" if path.is_file() else path.name
