"""Retrained references: how to train them, and their answers."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Generic

from torch import nn
from torch.utils.data import Dataset

from unweave.audits.attacks.attack import Examiner, Exhibit
from unweave.audits.exam import Answering, Found, Measuring, Storing
from unweave.audits.metrics import Values
from unweave.data.subset import dataset_of
from unweave.descent.timing import count_training
from unweave.errors import Failed
from unweave.record.code_digest import file_of, function_digest
from unweave.record.files import read_object, write_atomically
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
        folder: Stores the answers of the models, so that an interrupted audit can resume; None stores
            nothing. Answers of models made by another `train` are refused.
        code: Identifies this `train`. By default its place in its file, with the digest of that file and of
            the modules it imported from the same folder; it does not cover values from elsewhere, such as the
            command line.

    Raises:
        ValueError: If a seed is in both lists, or if answers are stored and `train` has no source file.
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
        """SHA-256 of `code` or of its default; computed once, because a training may import more modules."""
        code = function_digest(self.train) if self.code is None else self.code
        return hashlib.sha256(code.encode()).hexdigest()


@dataclass(frozen=True)
class Answers(Generic[Found]):
    """The answers of one model, and the probes that need the model itself.

    Args:
        found: The logits or the images.
        probes: The results of attacks on the model, by metric; empty if only its answers are known.
        cost: The cost of its training; None if unknown.
        exhibits: What attacks kept of the model, by the attack's name.
    """

    found: Found
    probes: Values = field(default_factory=dict)
    cost: Cost | None = None
    exhibits: Mapping[str, Exhibit] = field(default_factory=dict)

    def measure(self, exam: Measuring[Found], reference: "Answers[Found] | None" = None) -> dict[str, float]:
        """Every metric; with a reference also those that compare."""
        return {**exam.measure(self.found, None if reference is None else reference.found), **self.probes}


def load_or_retrain(
    reference: Retrain,
    split: Split,
    seed: int,
    exam: Storing[Found],
    audited: Answers[Found] | None = None,
    *,
    examiner: Examiner | None = None,
) -> Answers[Found]:
    """The answers of the reference of one seed, read from the reference's folder or retrained now.

    Args:
        reference: How to train it.
        split: The data; the reference trains on its retain set.
        seed: The seed of its training.
        exam: The questions to it.
        audited: The answers that it will be compared with.
        examiner: Takes from the model what attacks need; a stored model that was examined for fewer attacks
            is retrained. None for no attacks.

    Raises:
        Failed: If its answers are unusable.
        ValueError: If another `train` made the stored answers.
    """
    if reference.folder is None:
        return retrain(reference, split, seed, exam, audited, examiner=examiner)
    name = "-".join(filter(None, (split.digest()[:16], exam.digest, str(seed))))
    place = Path(reference.folder) / f"{name}.json"
    answer_file = place.with_suffix(f".{exam.suffix}")
    code = reference.digest
    if not place.exists() or lacks_exhibits(place, code, examiner):
        answers = retrain(reference, split, seed, exam, audited, examiner=examiner)
        place.parent.mkdir(parents=True, exist_ok=True)
        exam.save(answers.found, answer_file)
        assert answers.cost is not None
        cost = asdict(answers.cost)
        facts = {"code": code, "probes": dict(answers.probes), "cost": cost}
        if examiner is not None:
            facts |= {"exhibits": answers.exhibits, "original": examiner.original_digest}
        write_atomically(place, json.dumps(facts))
    content = read_object(place, ": delete it")
    if content.get("code") != code:
        raise ValueError(
            f"{place} has the answers of a model that another train() made: give this one another folder, or "
            "delete that one"
        )
    cost = Cost(**content["cost"])
    return Answers(exam.load(answer_file), content["probes"], cost, content.get("exhibits", {}))


def lacks_exhibits(place: Path, code: str, examiner: Examiner | None) -> bool:
    """Whether a stored model of this `train` was examined for fewer attacks, or beside another original."""
    if examiner is None or not examiner.attacks:
        return False
    content = read_object(place, ": delete it")
    other = content.get("original") != examiner.original_digest
    lacking = not set(examiner.names) <= content.get("exhibits", {}).keys()
    return content.get("code") == code and (other or lacking)


def retrain(
    reference: Retrain,
    split: Split,
    seed: int,
    exam: Answering[Found],
    audited: Answers[Found] | None,
    *,
    examiner: Examiner | None = None,
) -> Answers[Found]:
    """Retrains a model now and collects its answers; arguments are those of `load_or_retrain`.

    Raises:
        Failed: If its answers are unusable; the message names the seed.
    """
    cost = Cost()
    with count_training(cost):
        model = reference.train(dataset_of(*split.part("retain")), seed)
    try:
        answers = replace(collect_answers(model, exam), cost=cost)
    except Failed as error:
        raise Failed(f"the model retrained with seed {seed}: {error}") from error
    unlike = "" if audited is None else exam.explain_unlike(answers.found, audited.found)
    if unlike:
        raise Failed(f"the model retrained with seed {seed} {unlike}: train() must make the same model")
    return answers if examiner is None else replace(answers, exhibits=examiner(model))


def collect_answers(
    model: nn.Module, exam: Answering[Found], original: nn.Module | None = None
) -> Answers[Found]:
    """Collects the answers and probes of a model; some probes also need its original."""
    return Answers(exam.answers(model), exam.probes(model, original))


def retraining_cost(answers: Sequence[Answers[Found]]) -> Cost | None:
    """The cost of one retraining: the median of those with a known cost; None without any.

    The gradient evaluations of a `train` without a torch optimizer are unknown.
    """
    costs = [each.cost for each in answers if each.cost is not None]
    if not costs:
        return None
    gradients = round(median(each.gradients for each in costs))
    return Cost(gradients=gradients, seconds=median(each.seconds for each in costs))
