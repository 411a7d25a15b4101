"""Retrained models: how they come to be, and what they answer."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from unweave.audit import parquet
from unweave.audit.collect import collect
from unweave.audit.evidence import PARTS, Evidence
from unweave.audit.metrics import Values, measure
from unweave.audit.probes import probe
from unweave.files import write_atomically
from unweave.problem import Split
from unweave.unlearn import dataset_of


@dataclass(frozen=True)
class Retrain:
    """How retrained models come to be: the exact answer that a method is measured against.

    Args:
        train: `train(dataset, seed) -> model` trains from scratch on a data set: as the original was trained,
            without what is to be forgotten.
        seeds: The models that figures are compared with; a verdict needs ten.
        calibration_seeds: More models, which only say how far two retrained models differ; a verdict needs
            twelve.
        folder: Keeps what the models answer, so that an interrupted audit goes on; None keeps nothing.
            A change of `train` does not show there: give another folder.
    """

    train: Callable[[Dataset, int], nn.Module]
    seeds: Sequence[int] = range(10)
    calibration_seeds: Sequence[int] = range(100, 112)
    folder: str | Path | None = None

    def __post_init__(self) -> None:
        shared = sorted(set(self.seeds) & set(self.calibration_seeds))
        if shared:
            raise ValueError(f"calibration seeds must not be among the compared ones, found {shared} in both")


@dataclass(frozen=True)
class Answers:
    """What one model answers, and what only the model itself can tell.

    Args:
        evidence: Its logits.
        probes: Attacks on its features, by metric; only where whole classes are forgotten.
    """

    evidence: Evidence
    probes: Values = field(default_factory=dict)

    def measured(self, reference: "Answers | None" = None) -> dict[str, float]:
        """Every metric, beside a retrained model's answers if they are given."""
        return {**measure(self.evidence, None if reference is None else reference.evidence), **self.probes}


def retrained(reference: Retrain, split: Split, seed: int) -> Answers:
    """What a model retrained with a seed answers; read from the reference's folder if it is there."""
    if reference.folder is None:
        return fresh(reference, split, seed)
    place = Path(reference.folder) / f"{split.digest()[:16]}-{seed}.json"
    if not place.exists():
        answers = fresh(reference, split, seed)
        place.parent.mkdir(parents=True, exist_ok=True)
        parquet.save(answers.evidence, place.with_suffix(".parquet"))
        write_atomically(place, json.dumps(dict(answers.probes)))
    return Answers(parquet.load(place.with_suffix(".parquet")), json.loads(place.read_text(encoding="utf-8")))


def fresh(reference: Retrain, split: Split, seed: int) -> Answers:
    """What a model answers that is retrained now."""
    return answers_of(reference.train(dataset_of(*split.part("retain")), seed), split)


def answers_of(model: nn.Module, split: Split) -> Answers:
    """What a model answers to every example of a split."""
    device = next(model.parameters()).device
    cuts = {name: split.part(name) for name in PARTS}
    evidence = collect(model, cuts, device=device, forgotten_classes=split.forgotten_classes)
    return Answers(evidence, probe(model, cuts, device=device) if split.forgotten_classes else {})
