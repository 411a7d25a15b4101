"""Qualifies a method for one model, by proxy requests with retrained models.

1. Models are trained on all but one fold of the data; their answers show how hard each example is.
2. Proxy requests are drawn in strata: random, memorised, generalised or entangled examples, one class, or a
   single record.
3. Each request is a stage of a benchmark: retrained models, the method on several seeds, and a verdict.
4. Each request is then judged from the other requests alone (`unweave.audits.like_requests`). The share of
   verdicts that agree shows what a later verdict without retrained models is worth.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor, nn

from unweave.audits.classifier.held_out import HeldOut
from unweave.audits.classifier.logits import loss
from unweave.audits.classifier.parquet import load_unseen
from unweave.audits.classifier.probes import features_of
from unweave.audits.like_requests import About, LikeRequest
from unweave.audits.margins import margins
from unweave.audits.summary import mean
from unweave.bench.agreement import Proxy, count_agreement, measure_alone, read_evidence
from unweave.bench.bench import compare
from unweave.bench.cache import append_suffix
from unweave.bench.cell import REFERENCE, cell_path, run_reference
from unweave.bench.draw_requests import Plan, draw_requests
from unweave.bench.proxy_requests import whole_classes
from unweave.bench.stage import Stage
from unweave.bench.stage_record import calibration_margins, read_values
from unweave.bench.strata import device_of, silhouette
from unweave.bench.workers import Crew, Job, Listener, run_jobs, run_serially
from unweave.record import record
from unweave.record.files import sha256
from unweave.split import Split

FOLD_SEED, CONTROL_SEED = 300, 200
"""The first seed of the folds' models, and the seed of the retrained control; no recipe uses these seeds."""

MakeStage = Callable[[str, Tensor], Stage]
"""Makes the stage of a request from its name and its positions."""


def qualify(
    make_stage: MakeStage,
    original: nn.Module,
    method: str,
    plan: Plan,
    folder: Path,
    *,
    facts: Mapping[str, Any],
    crew: Crew = run_serially,
    listener: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Qualifies a method, and writes `record.json`; resumes from the models that are finished.

    Args:
        make_stage: Makes the stage of a request, with the method among its methods.
        original: The model.
        method: The name of the method.
        plan: The proxy requests.
        folder: The folder of cells and the record.
        facts: What identifies model, data and method, for a later audit.
        crew: The workers; this process by default.
        listener: Called after every job.

    Raises:
        ValueError: If no stratum has enough records.
    """
    folds = run_folds(make_stage, plan, crew, listener)
    split = folds[0][0].split()
    hardness, entanglement = mean_loss(folds), silhouettes(original, split)
    requests = draw_requests(split, hardness, entanglement, plan)
    if not requests.positions:
        raise ValueError(f"no stratum has enough records: {'; '.join(requests.skipped.values())}")
    stages = {name: make_stage(name, places) for name, places in requests.positions.items()}
    for name, stage in stages.items():
        refuse_unseen_class(stage.split(), name)
    content = compare(list(stages.values()), folder, methods=(method,), crew=crew, listener=listener)
    controls = [
        Job(f"{name}, a control", run_reference, (each, CONTROL_SEED)) for name, each in stages.items()
    ]
    list(run_jobs(crew, controls, listener))  # their results are files
    held_out = read_held_out(folds)
    proxies = [
        observe(stage, method, held_out, entanglement, requests.strata[name], content["stages"][name])
        for name, stage in stages.items()
    ]
    qualification = {
        **facts,
        "method": method,
        "plan": {**asdict(plan), "strata": list(plan.strata)},
        "requests": {each.stage.name: asdict(each.like) for each in proxies},
        "skipped": dict(requests.skipped),
        "folds": {fold_name(stage, seed): sha256(fold_file(stage, seed)) for stage, seed in folds},
        "agreement": count_agreement(proxies, method, CONTROL_SEED),
    }
    content = {**content, "qualification": qualification}
    record.write(content, folder)
    return content


def run_folds(make_stage: MakeStage, plan: Plan, crew: Crew, listener: Listener) -> list[tuple[Stage, int]]:
    """Trains models without each fold; returns the stage and the seed of each model."""
    n = len(make_stage("fold", torch.tensor([0])).split().train)
    if n < 2 * plan.folds:
        raise ValueError(f"expected at least {2 * plan.folds} training examples, found {n}")
    folds = []
    for repeat in range(plan.repeats):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(plan.seed + repeat))
        for i, part in enumerate(order.tensor_split(plan.folds)):
            folds.append((make_stage(f"fold-{repeat}-{i}", part.sort().values), FOLD_SEED + repeat))
    for stage, _ in folds:
        refuse_unseen_class(stage.split(), stage.name)
    list(run_jobs(crew, [Job(fold_name(*each), run_reference, each) for each in folds], listener))
    return folds


def refuse_unseen_class(split: Split, name: str) -> None:
    """Raises if a part of the data holds a class whole that has no unseen example to compare it with."""
    classes = split.forgotten_classes
    if classes and not set(classes) & set(split.held_out.labels[split.calibration].tolist()):
        raise ValueError(
            f"{name} holds all training examples of class {classes[0]}, and the calibration part has none "
            "to compare them with: add one, or leave the class out of the data"
        )


def fold_name(stage: Stage, seed: int) -> str:
    """The name of a fold's model in a record, and the folder of its answers."""
    return f"{stage.name}/{seed}"


def fold_file(stage: Stage, seed: int) -> Path:
    """The file with the answers of a model that was trained without a fold."""
    return append_suffix(cell_path(stage, seed, REFERENCE), stage.exam().suffix)


def read_held_out(folds: Sequence[tuple[Stage, int]]) -> HeldOut:
    """The answers of the folds' models about what they were trained without, and not about the rest."""
    answers = (load_unseen(fold_file(*each)) for each in folds)
    return HeldOut([each for each in answers if each is not None])


def mean_loss(folds: Sequence[tuple[Stage, int]]) -> Float64[Tensor, " n"]:
    """The mean cross-entropy of each training example by the models that were trained without it, in nats."""
    total = torch.zeros(len(folds[0][0].split().train), dtype=torch.float64)
    for stage, seed in folds:
        answers = read_evidence(stage, seed, REFERENCE)
        losses = loss(answers.logits["forget"], answers.labels["forget"])
        total[stage.split().forget] += torch.from_numpy(losses)
    return total / len(folds)


def silhouettes(
    original: nn.Module, split: Split, of: Int64[Tensor, " of"] | None = None
) -> Float64[Tensor, " of"]:
    """The silhouette of examples among the classes, in the features of the original; from -1 to 1."""
    features = features_of(original, split.part("mixed"), device_of(original))
    return silhouette(features, split.train.labels, of=of)


def observe(
    stage: Stage,
    method: str,
    held_out: HeldOut,
    entanglement: Float64[Tensor, " n"],
    stratum: str,
    stage_row: Mapping[str, Any],
) -> Proxy:
    """Summarises a request with retrained models, so that it can judge other requests.

    Args:
        stage: The stage of the request, with all of its cells.
        method: The name of the method.
        held_out: The answers of models that were trained without folds.
        entanglement: The silhouette of each training example.
        stratum: The stratum of the request.
        stage_row: The stage's part of the record.
    """
    recipe, exam, split = stage.recipe, stage.exam(), stage.split()
    ids = read_evidence(stage, recipe.seeds[0], REFERENCE).ids["forget"]
    properties = describe(split, ids, held_out, entanglement[split.forget])
    expected = held_out.expect(read_values(stage, recipe.seeds[0], "original"), ids, whole=properties.whole)

    def measure(seeds: Sequence[int]) -> list[dict[str, float]]:
        return [measure_alone(stage, seed, REFERENCE, held_out, expected) for seed in seeds]

    calibration, references = measure(recipe.calibration_seeds), measure(recipe.seeds)
    own_margins = margins(calibration, [{}], sizes=exam.sizes, metrics=exam.metrics)
    like_request = LikeRequest(
        stratum,
        properties,
        offsets={
            name: mean([each[name] for each in (*references, *calibration)]) - expected[name]
            for name in expected
        },
        margins=dict(own_margins.margin),
        spread={name: (high - low) / 2 for name, (low, high) in own_margins.null_band.items()},
        verdict=stage_row["methods"][method]["verdict"],
    )
    audit_margins = calibration_margins(stage, recipe.calibration_seeds, "calibration")
    assert audit_margins is not None
    return Proxy(stage, like_request, expected, held_out, audit_margins)


def describe(
    split: Split,
    ids: Shaped[np.ndarray, " forget"],
    held_out: HeldOut,
    entanglement: Float64[Tensor, " forget"],
) -> About:
    """The properties of a request, by which it is compared with others.

    Args:
        split: Its split.
        ids: The ids of its forget set, as evidence has them.
        held_out: The answers of models that were trained without folds.
        entanglement: The silhouette of each of its examples.
    """
    labels, n = split.train.labels, split.n_classes
    counts, totals = (each.bincount(minlength=n).double() for each in (labels[split.forget], labels))
    only_classes = bool(whole_classes(split))
    return About(
        size=len(split.forget),
        whole=None if split.forgotten_classes and not only_classes else only_classes,
        class_mix=float((counts / counts.sum() - totals / totals.sum()).abs().sum() / 2),
        difficulty=held_out.figures(ids)["difficulty"],
        entanglement=float((1 - entanglement.mean()) / 2),
    )
