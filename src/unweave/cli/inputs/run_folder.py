"""Reads a folder of `forget`, and retrains models to compare it with."""

import copy
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from unweave.auditing import load_or_retrain
from unweave.audits.attack import Examiner
from unweave.audits.attack_runs.plan import Request, attack_named
from unweave.audits.classifier.prepare_attacks import attacked_exam, examine_with
from unweave.audits.exam import Exam
from unweave.audits.references import Retrain
from unweave.bench.workers import Crew, Job, Listener, Progress, run_jobs
from unweave.cli.inputs.choose_method import Retraining, tuned_method
from unweave.cli.inputs.forget_folder import CLAIM, MODELS, SPLIT
from unweave.cli.inputs.scope import read_trained_weights
from unweave.cli.project import Project, load
from unweave.descent.train import digest
from unweave.methods import Method
from unweave.record import checkpoint, record
from unweave.record.files import read_object
from unweave.result import PRETRAINED, Result
from unweave.split import Split
from unweave.weights.cost import Cost
from unweave.weights.sharded_files import SHARDED

REQUEST_KEYS = ("model", "recipe", "device", "method", "settings", "seed")
"""The keys of a request."""


def read_request(run: Path) -> Mapping[str, Any]:
    """Reads the request of a run."""
    path = run / CLAIM
    if not path.is_file():
        raise ValueError(f"expected a folder that forget wrote, found no {CLAIM} in {run}")
    request = read_object(path, ": run forget again")
    missing_keys = [key for key in REQUEST_KEYS if key not in request]
    if missing_keys:
        raise ValueError(
            f"{path} must hold the request of forget, {missing_keys[0]!r} is missing: run it again"
        )
    return request


def refuse_sharded(run: Path) -> None:
    """Raises if the model of a run is sharded on disk."""
    if (run / SHARDED).is_dir() and not (run / checkpoint.WEIGHTS).exists():
        raise ValueError(
            f"an audit needs {checkpoint.WEIGHTS}, found only a sharded model in {run / SHARDED}: run forget "
            "again without --save-sharded"
        )


@cache
def open_run(run: str, device: str | None) -> tuple[Project, Split]:
    """The project of a run and its split; once per process."""
    refuse_sharded(Path(run))
    request, place = read_request(Path(run)), Path(run) / SPLIT
    if not place.is_file():
        raise ValueError(f"{run} is not finished, it has no {SPLIT}: run forget again")
    project = load(
        request["model"],
        recipe=request["recipe"],
        data=request.get("data"),
        device=device or request["device"],
    )
    return project, Split.load(place, project.train, project.test)


def load_result(run: Path, project: Project, split: Split, device: str | None) -> Result:
    """Loads the result of forget."""
    request = read_request(run)
    original = load_original(run, project, request["seed"])
    model = copy.deepcopy(original)
    sidecar = checkpoint.load(run, model, split_digest=split.digest())
    refuse_other(original, sidecar, run)
    (stage,) = record.load(run)["stages"].values()
    (row,) = stage["methods"].values()
    place = device or next(original.parameters()).device
    return Result(
        model=model.to(place).eval(),
        method=load_method(run, project, request),
        split=split,
        task=project.task(split),
        seed=request["seed"],
        original=original.to(place),
        cost=Cost(gradients=int(row["gradient_evaluations"]), seconds=row["seconds"]),
        traces=probe_traces(row["trace"]),
    )


def request_facts(run: Path) -> dict[str, str]:
    """The facts about the request in the record of a run; empty for records of earlier versions."""
    (stage,) = record.load(run)["stages"].values()
    request = stage.get("request", {})
    return {key: request[key] for key in ("model", "asked", "date") if key in request}


def load_method(run: Path, project: Project, request: Mapping[str, Any]) -> Method | Retraining:
    """The method that made the model.

    Raises:
        ValueError: If its settings are unknown to this version.
    """
    advice = f"make it again, with unweave forget {request['model']} --method {request['method']}"
    return tuned_method(
        project,
        request["method"],
        tables=request["settings"],
        seed=request["seed"],
        place=run / CLAIM,
        advice=advice,
        trained=read_trained_weights(request),
    )


def refuse_other(original: nn.Module, sidecar: Mapping[str, object], run: Path) -> None:
    """Raises if the original is not that of the run; accepts any original if no digest was stored."""
    digest = sidecar.get("original")
    if digest is not None and digest != checkpoint.contents(original.state_dict()):
        raise ValueError(
            f"the original is not the one that {run} was made from, its weights have changed since: put the "
            "earlier ones back, and let load() return the same ones each time; or run forget again"
        )


def read_digest(run: Path, project: Project, split: Split) -> str:
    """The digest of the weights that a run made.

    Raises:
        ValueError: If they differ from those in the family's own format in the run's folder.
    """
    model, pretrained_folder = copy.deepcopy(project.fresh_model()), run / PRETRAINED
    digest = str(checkpoint.load(run, model, split_digest=split.digest())["weights"])
    if project.write is not None and pretrained_folder.is_dir():
        project.family.refuse_other_written(pretrained_folder, model)
    return digest


def probe_traces(
    trace: Mapping[str, Sequence[Sequence[float | None]]],
) -> dict[str, list[tuple[int, float, float]]]:
    """The traces of probes among the curves of a record: those with a reliability."""
    traces: dict[str, list[tuple[int, float, float]]] = {}
    for name, curve in trace.items():
        rows = [
            (int(step or 0), value, half)
            for step, value, half in curve
            if value is not None and half is not None
        ]
        if rows:
            traces[name] = rows
    return traces


def load_original(run: Path, project: Project, seed: int) -> nn.Module:
    """The original: the given model, or the one that the run trained."""
    if project.model is not None:
        return project.model
    assert project.original is not None
    models_folder = run / MODELS
    return project.original(seed, models_folder if models_folder.is_dir() else None)


def make_reference(
    project: Project,
    split: Split,
    seeds: Sequence[int],
    calibration: Sequence[int],
    folder: Path,
    *,
    keep_models: bool = True,
) -> Retrain:
    """How to retrain the references of a run."""

    def train(dataset: Dataset, seed: int) -> nn.Module:
        assert project.retrain is not None
        return project.retrain(split, seed)

    return Retrain(train, seeds, calibration, folder, digest(project.facts), keep_models)


def retrain_all(
    run: Path,
    seeds: Sequence[int],
    folder: Path,
    crew: Crew,
    device: str | None,
    listener: Listener,
    attacks: Sequence[str] = (),
    *,
    stored: Collection[int] = (),
    keep_models: bool = True,
    image_attacks: str | None = None,
) -> None:
    """Retrains every missing model, and stores its answers and what these attacks need of it.

    Those of the seeds in `stored` need nothing.
    """
    is_usual = keep_models and not attacks and image_attacks is None
    options = () if is_usual else (tuple(attacks), keep_models, image_attacks)
    arguments = [
        (str(run.resolve()), seed, str(folder), device, *options) for seed in seeds if seed not in stored
    ]
    if stored:
        listener(Progress(f"{len(stored)} retrained models found", len(stored), len(seeds)))

    def listen(progress: Progress) -> None:
        listener(Progress(progress.label, len(stored) + progress.done, len(seeds)))

    work = [Job(f"retrained with seed {each[1]}", retrain_one, each) for each in arguments]
    for _ in run_jobs(crew, work, listen):
        pass


def retrain_one(
    run: str,
    seed: int,
    folder: str,
    device: str | None,
    attacks: Sequence[str] = (),
    keep_models: bool = True,
    image_attacks: str | None = None,
) -> None:
    """Retrains one model, in this process or a worker."""
    project, split = open_run(run, device)
    exam, _ = attacked_exam(
        make_exam(Path(run), project, split), None if image_attacks is None else Request(image_attacks)
    )
    examiner = make_examiner(run, device, attacks) if attacks else None
    reference = make_reference(project, split, [seed], [], Path(folder), keep_models=keep_models)
    load_or_retrain(reference, split, seed, exam, examiner=examiner)


@cache
def make_examiner(run: str, device: str | None, attacks: Sequence[str]) -> Examiner:
    """What takes from retrained models what attacks need; once per process."""
    project, split = open_run(run, device)
    exam = make_exam(Path(run), project, split)
    original = load_original(Path(run), project, read_request(Path(run))["seed"])
    chosen_attacks = [attack_named(name) for name in attacks]
    return examine_with(chosen_attacks, exam, original.to(device or next(original.parameters()).device))


def make_exam(run: Path, project: Project, split: Split) -> Exam[Any]:
    """The exam of a run; a recogniser that it trains is stored next to the original."""
    return project.family.exam(split, cache=run / MODELS)
