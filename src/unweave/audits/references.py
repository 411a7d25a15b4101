"""Retrained references: how to train them, and their answers."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from unweave.audits.answers import Answers, collect_answers
from unweave.audits.attack import Examiner
from unweave.audits.exam import Answering, Outputs, Storing
from unweave.audits.reference_files import ReferenceFiles
from unweave.data.user_dataset import dataset_of
from unweave.descent.timing import count_training
from unweave.errors import Failed
from unweave.record.code_digest import file_of, function_digest
from unweave.split import Split
from unweave.weights.cost import Cost

__all__ = ["Retrain"]


@dataclass(frozen=True)
class Retrain:
    """How to train the retrained references that a method is compared with.

    Args:
        train: `train(dataset, seed) -> model` trains from scratch as the original was trained. It gets the
            retain set.
        seeds: The seeds of the references to compare with; a verdict needs ten.
        calibration_seeds: The seeds of further models that only fix the margins; a verdict needs twelve.
        folder: Stores the models and their answers, so that an interrupted audit can resume and further
            attacks retrain nothing; None stores nothing. Answers of models made by another `train` are
            refused. Audits that run at the same time can share it: each model is retrained once.
        code: Identifies this `train`. By default its place in its file, with the digest of that file and of
            the modules it imported from the same folder; it does not cover values from elsewhere, such as the
            command line.
        keep_models: Whether the folder also stores the models. Without them, further attacks that examine
            models are refused.

    Raises:
        ValueError: If a seed is in both lists, or if answers are stored and `train` has no source file.
    """

    train: Callable[[Dataset, int], nn.Module]
    seeds: Sequence[int] = range(10)
    calibration_seeds: Sequence[int] = range(100, 112)
    folder: str | Path | None = None
    code: str | None = None
    keep_models: bool = True

    def __post_init__(self) -> None:
        overlap = sorted(set(self.seeds) & set(self.calibration_seeds))
        if overlap:
            raise ValueError(
                f"calibration seeds must not be among the compared ones, found {overlap} in both"
            )
        if self.folder is not None and self.code is None:
            file_of(self.train)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `code` or of its default; computed once, because a training may import more modules."""
        code = function_digest(self.train) if self.code is None else self.code
        return hashlib.sha256(code.encode()).hexdigest()


def load_or_retrain(
    reference: Retrain,
    split: Split,
    seed: int,
    exam: Storing[Outputs],
    audited: Answers[Outputs] | None = None,
    *,
    examiner: Examiner | None = None,
) -> Answers[Outputs]:
    """The answers of the reference of one seed, read from the reference's folder or retrained now.

    Args:
        reference: How to train it.
        split: The data; the reference trains on its retain set.
        seed: The seed of its training.
        exam: The questions to it.
        audited: The answers that it will be compared with.
        examiner: Takes from the model what attacks need, from a stored one as well; None for no attacks.

    Raises:
        Failed: If its answers are unusable.
        ValueError: If another `train` made the stored answers, or attacks need a model that is not stored.
    """
    if reference.folder is None:
        answers, model = retrain(reference, split, seed, exam, audited)
        return answers if examiner is None else replace(answers, measurements=examiner(model))
    files = reference_files(reference, split, seed, exam)
    with files.hold():
        model = None
        if not files.is_stored():
            answers, model = retrain(reference, split, seed, exam, audited)
            files.write(answers, model, exam, keep_model=reference.keep_models)
        answers = files.read(exam)
        if examiner is None:
            return answers
        return replace(
            answers, measurements=files.examine(examiner, None if reference.keep_models else model)
        )


def find_stored(reference: Retrain, split: Split, exam: Storing[Any]) -> list[int]:
    """The seeds of the references and calibration models whose answers are stored."""
    seeds = (*reference.seeds, *reference.calibration_seeds)
    return [seed for seed in seeds if reference_files(reference, split, seed, exam).is_stored()]


def reference_files(reference: Retrain, split: Split, seed: int, exam: Storing[Any]) -> ReferenceFiles:
    """Where the folder of references has the model of one seed, or will have it."""
    assert reference.folder is not None
    name = "-".join(filter(None, (split.digest()[:16], exam.digest, str(seed))))
    return ReferenceFiles(Path(reference.folder) / f"{name}.json", reference.digest)


def retrain(
    reference: Retrain,
    split: Split,
    seed: int,
    exam: Answering[Outputs],
    audited: Answers[Outputs] | None,
) -> tuple[Answers[Outputs], nn.Module]:
    """Retrains a model now and collects its answers; arguments are those of `load_or_retrain`.

    Raises:
        Failed: If its answers are unusable; the message names the seed.
    """
    cost = Cost()
    with count_training(cost):
        model = reference.train(dataset_of(*split.part("retain")), seed)
    if not isinstance(model, nn.Module):
        raise Failed(f"train(dataset, seed) must return an nn.Module, found {type(model).__name__}")
    try:
        answers = replace(collect_answers(model, exam), cost=cost)
    except Failed as error:
        raise Failed(f"the model retrained with seed {seed}: {error}") from error
    difference = "" if audited is None else exam.explain_unlike(answers.outputs, audited.outputs)
    if difference:
        raise Failed(f"the model retrained with seed {seed} {difference}: train() must make the same model")
    return answers, model


def refuse_no_reference(reference: object) -> None:
    """Raises if something is no reference, such as a model, or a `train` that is not in a `Retrain`."""
    items = reference if isinstance(reference, Sequence) else [reference]
    kind = next((type(each).__name__ for each in items if callable(each)), None)
    if kind is not None:
        raise ValueError(
            f"reference must be Retrain(train), or the answers of retrained models, found {kind}: wrap a "
            "train(dataset, seed) in Retrain"
        )


def retraining_cost(answers: Sequence[Answers[Outputs]]) -> Cost | None:
    """The cost of one retraining: the median of those with a known cost; None without any.

    The gradient evaluations of a `train` without a torch optimizer are unknown.
    """
    costs = [each.cost for each in answers if each.cost is not None]
    if not costs:
        return None
    gradients = round(median(each.gradients for each in costs))
    return Cost(gradients=gradients, seconds=median(each.seconds for each in costs))


def refuse_copies(
    exam: Answering[Outputs], references: Sequence[Outputs], original: Outputs | None = None
) -> None:
    """Raises if two retrained models give the same answers, or one those of the original.

    Copies do not show the spread of retraining, and a copy of the original was trained on the forget set.
    """
    first_index: dict[str, int] = {}
    for index, each in enumerate(references):
        first = first_index.setdefault(exam.fingerprint(each), index)
        if first != index:
            raise ValueError(
                f"retrained models must differ, found the same answers in numbers {first} and {index}: "
                "does train(dataset, seed) use its seed?"
            )
    copy_index = None if original is None else first_index.get(exam.fingerprint(original))
    if copy_index is not None:
        raise ValueError(
            f"reference {copy_index} answers as the original does, so it was trained on the forget set: does "
            "train(dataset, seed) train a fresh model on the dataset that it gets?"
        )
