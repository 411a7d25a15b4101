"""One run of `unweave forget`: trains the original if needed, unlearns, writes and prints the result."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave.audits.exam import Glancing, glance
from unweave.bench.workers import Listener, Progress
from unweave.cli.checks.timing import refuse_unfit_processes
from unweave.cli.inputs import out
from unweave.cli.inputs.choose_method import Retraining
from unweave.cli.inputs.forget_folder import (
    CLAIM,
    MODELS,
    STATES,
    manifest_facts,
    remove_states,
    write_request,
)
from unweave.cli.inputs.request import Request
from unweave.cli.options import CommonFlags
from unweave.cli.process_group import open_on_first
from unweave.cli.project import Project
from unweave.cli.terminal import progress
from unweave.cli.terminal.show_result import print_result
from unweave.errors import Failed
from unweave.methods import Method
from unweave.result import Result
from unweave.split import Split
from unweave.unlearning import unlearn
from unweave.weights.processes import Processes
from unweave.weights.sharded_model import gather_on_first


@dataclass(frozen=True)
class Run:
    """One run of a method on a request.

    Args:
        project: The model with its data.
        split: The data, cut by the request.
        method: The method.
        name: The name of the method on the command line.
        model: The model on the command line.
        request: The request on the command line.
        folder: The folder of the result.
        save_every: The number of steps between two saved states; None saves none.
        flags: The flags of every verb.
        save_sharded: Whether each process writes its rows of the model, so that none gathers it.
    """

    project: Project
    split: Split
    method: Method | Retraining
    name: str
    model: str
    request: Request
    folder: Path
    save_every: int | None
    flags: CommonFlags
    save_sharded: bool = False

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
            self.refuse_unfit_processes(place)
            original = load_original(
                self.project, seed, device=flags.device, models=models, listener=listener
            )
            exam = self.project.family.short_exam(self.split, cache=models)
            before = processes.from_first(lambda: glance(exam, original))
            listener(Progress(f"the original; now {self.name}", 1, 2))
            result = self.unlearn(place(original), seed)
            after = self.glance_after(exam, result.model)
            listener(Progress(self.name, 2, 2))
            self.save(result)
            processes.from_first(lambda: remove_states(self.folder))
        print_result(
            result, self.name, exam=exam, before=before, after=after, folder=self.folder, flags=flags
        )

    def refuse_unfit_processes(self, place: Callable[[nn.Module], nn.Module]) -> None:
        """Raises if the processes can't run the method, before they train an original for it."""
        is_alone, has_model = Processes.current().count == 1, self.project.model is not None
        if is_alone or has_model or isinstance(self.method, Retraining):
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same weights on every process
            model, project = self.project.to_device(self.flags.device)
        refuse_unfit_processes(self.method, place(model), project.split(self.split.forget), project)

    def glance_after(self, exam: Glancing[Any], model: nn.Module) -> dict[str, float]:
        """The figures after unlearning; with `save_sharded` the model is not gathered for them."""
        if self.save_sharded:
            return glance(exam, model)
        whole_model = gather_on_first(model)
        return Processes.current().from_first(lambda: glance(exam, whole_model))

    def save(self, result: Result) -> None:
        """Writes the result, and the request into its record."""
        write = None if self.save_sharded else folder_writer(self.project, result, name=self.name)
        result.save(self.folder, write=write, sharded=self.save_sharded)
        words = self.request.words()
        Processes.current().from_first(lambda: write_request(self.folder, model_label(self.model), words))

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


def folder_writer(
    project: Project, result: Result, *, name: str
) -> Callable[[nn.Module, Path], object] | None:
    """A function that writes a model in the format of the original; None if it has no special format."""
    write = project.write
    if write is None:
        return None
    facts = {**manifest_facts(result, name), "forgotten_classes": list(result.split.forgotten_classes)}
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


def model_label(place: str) -> str:
    """The label of a model in a record: its folder and file, without the rest of the path."""
    path = Path(place).resolve()
    if not path.exists():  # a recipe of the package
        return place
    return f"{path.parent.name}/{path.name}" if path.is_file() else path.name
