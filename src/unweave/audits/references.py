"""Retrained models: how they come to be, and what they answer."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Generic

from torch import nn
from torch.utils.data import Dataset

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.exam import Exam, Found
from unweave.audits.metrics import Values
from unweave.data.subset import dataset_of
from unweave.descent.train import count_training
from unweave.errors import Failed
from unweave.record.code_digest import code_digest, file_of
from unweave.record.files import read_object, write_atomically
from unweave.split import Split
from unweave.weights.cost import Cost


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
            What another `train` made is refused there.
        code: Tells this `train` from any other. By default the digest of its file and of what that had
            imported from its folder; values that come from elsewhere, such as the command line, don't show.

    Raises:
        ValueError: If a seed has two uses, or the answers are kept and no file tells what `train` does.
    """

    train: Callable[[Dataset, int], nn.Module]
    seeds: Sequence[int] = range(10)
    calibration_seeds: Sequence[int] = range(100, 112)
    folder: str | Path | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        shared = sorted(set(self.seeds) & set(self.calibration_seeds))
        if shared:
            raise ValueError(f"calibration seeds must not be among the compared ones, found {shared} in both")
        if self.folder is not None and self.code is None:
            file_of(self.train)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `code`, or of what stands for it: asked for once, because a training may import more."""
        known = code_digest(file_of(self.train)) if self.code is None else self.code
        return hashlib.sha256(known.encode()).hexdigest()


@dataclass(frozen=True)
class Answers(Generic[Found]):
    """What one model answers, and what only the model itself can tell.

    Args:
        found: Its logits, or its images.
        probes: Attacks on the model, by metric; none where only its answers are known.
        cost: What its training took; None where nobody saw that.
    """

    found: Found
    probes: Values = field(default_factory=dict)
    cost: Cost | None = None

    def measure(self, exam: Exam[Found], reference: "Answers[Found] | None" = None) -> dict[str, float]:
        """Every metric, beside a retrained model's answers if they are given."""
        return {**exam.measure(self.found, None if reference is None else reference.found), **self.probes}


def load_or_retrain(
    reference: Retrain, split: Split, seed: int, exam: Exam[Found], audited: Answers[Found] | None = None
) -> Answers[Found]:
    """What a model retrained with a seed answers; read from the reference's folder if it is there.

    Args:
        reference: How it is trained.
        split: On what: the retain part.
        seed: Of its training.
        exam: What it is asked.
        audited: What it will be compared with.

    Raises:
        Failed: If it answers what is of no use.
        ValueError: If another `train` made what is there.
    """
    if reference.folder is None:
        return retrain(reference, split, seed, exam, audited)
    name = "-".join(filter(None, (split.digest()[:16], exam.digest, str(seed))))
    place = Path(reference.folder) / f"{name}.json"
    kept = place.with_suffix(f".{exam.suffix}")
    known = reference.digest
    if not place.exists():
        answers = retrain(reference, split, seed, exam, audited)
        place.parent.mkdir(parents=True, exist_ok=True)
        exam.save(answers.found, kept)
        assert answers.cost is not None
        cost = asdict(answers.cost)
        made = {"code": known, "probes": dict(answers.probes), "cost": cost}
        write_atomically(place, json.dumps(made))
    found = read_object(place, ": delete it")
    if found.get("code") != known:
        raise ValueError(
            f"{place} has the answers of a model that another train() made: give this one another folder, or "
            "delete that one"
        )
    return Answers(exam.load(kept), found["probes"], Cost(**found["cost"]))


def retrain(
    reference: Retrain, split: Split, seed: int, exam: Exam[Found], audited: Answers[Found] | None
) -> Answers[Found]:
    """What a model answers that is retrained now; arguments are those of `load_or_retrain`.

    Raises:
        Failed: If that is of no use; names the seed.
    """
    cost = Cost()
    with count_training(cost):
        model = reference.train(dataset_of(*split.part("retain")), seed)
    try:
        answers = replace(collect_answers(model, exam), cost=cost)
    except Failed as error:
        raise Failed(f"the model retrained with seed {seed}: {error}") from error
    if audited is not None:
        refuse_other_logits(answers.found, audited.found, seed)
    return answers


def refuse_other_logits(found: object, audited: object, seed: int) -> None:
    """Raises if a retrained classifier has another number of logits than the one that it is compared with."""
    if not isinstance(found, Evidence) or not isinstance(audited, Evidence):
        return
    if found.n_classes != audited.n_classes:
        raise Failed(
            f"the model retrained with seed {seed} gives {found.n_classes} logits per example, and the "
            f"audited one {audited.n_classes}: train() must make the same model"
        )


def collect_answers(model: nn.Module, exam: Exam[Found], original: nn.Module | None = None) -> Answers[Found]:
    """What a model answers; of one that forgot, the original may tell more."""
    return Answers(exam.answers(model), exam.probes(model, original))


def retraining_cost(answers: Sequence[Answers[Found]]) -> Cost | None:
    """What one retraining takes: the medians of those that were seen; None if none was.

    No gradient evaluations are seen of a `train` that makes its steps without an optimizer of torch.
    """
    seen = [each.cost for each in answers if each.cost is not None]
    if not seen:
        return None
    gradients = round(median(each.gradients for each in seen))
    return Cost(gradients=gradients, seconds=median(each.seconds for each in seen))
