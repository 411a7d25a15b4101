"""Which weights to train, towards what and how hard, so that a concept stays gone, by the joint loss.

    python benchmarks/text_to_image_scopes.py --models models --record records/text-to-image-scopes.json

The models are those of `text_to_image_models.py`. Every setting has the gradients of a tenth of a
retraining, on the object and the seed of the searches, which are not reported; beside them stand the
original and two retrained models. Six settings differ in the scope and the forget loss; the others train
all weights, and differ in the weight of the forget loss and in the retain loss. Of the attacks, those run
that have real images.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import torch
from compact import write_compact
from rows import round_numbers
from text_to_image_cases import SEARCHED, SEARCHING, Study
from text_to_image_methods import ROWS, SCOPES, method_of
from text_to_image_search import SEARCH_SEED
from torch import nn

from unweave.bench.text_to_image_concept import EditExam
from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_recipe import text_to_image_recipe
from unweave.descent.objective import RetainLoss
from unweave.methods.configure import configure
from unweave.record.record import environment

ATTACKS = "optimised-vector,new-token,from-a-picture,relearning-from-images"
COLUMNS = ("ua", "ra_neighbours", "agreement", "kid", "relearn_10", "token", "vector", "picture")
LOSSES = ("ideal", "away")
ON_ALL: tuple[tuple[str, float, RetainLoss], ...] = (
    ("away", 0.5, "nll"),
    ("away", 0.25, "nll"),
    ("away", 0.125, "nll"),
    ("away", 1.0, "both"),
    ("away", 0.5, "both"),
    ("away", 0.25, "both"),
    ("ideal", 0.25, "nll"),
)
"""The forget loss, its weight and the retain loss of the other settings."""

RATES = {"cross-attention": 2e-3, "attention": 1.5e-3, "all": 1.5e-3}
"""The learning rate of each scope; more weights move further at the same rate."""


def settings(scope: str, loss: str, weight: float = 1.0, retain: RetainLoss = "nll") -> dict[str, Any]:
    """The settings of the joint loss on a scope."""
    joint = {"how": {"lr": RATES[scope], "steps": 43}, "weight": weight, "forget": loss, "retain": retain}
    return {"train": {"scope": scope}, "joint": joint}


def all_settings() -> dict[str, dict[str, Any]]:
    """The settings of every row, by name."""
    rows = {f"{scope}, {loss}": settings(str(scope), loss) for scope, loss in product(SCOPES.values, LOSSES)}
    for loss, weight, retain in ON_ALL:
        name = f"all, {loss}, weight {weight}" + (", both" if retain == "both" else "")
        rows[name] = settings("all", loss, weight, retain)
    return rows


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="--out of text_to_image_models.py")
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models, factor = TextToImageModels(text_to_image_recipe("digits"), arguments.models / "kept"), "object"
    study, value = Study(models, arguments.models / "digits", Path()), SEARCHED[factor]
    case = study.case(SEARCH_SEED, factor, value, searching=True)
    original, rows = case.original(), dict[str, Any]()

    exam = case.questions.with_attacks(ATTACKS)
    assert isinstance(exam, EditExam)

    def measure(name: str, model: nn.Module) -> None:
        values = exam.measure(exam.answers(model)) | EditExam.probes(exam, model, original)
        rows[name] = round_numbers(values)
        print(name, {key: values[key] for key in COLUMNS if key in values}, flush=True)

    measure("original", original)
    measure("retrained", study.retrained(SEARCH_SEED, value, case))
    other = study.other_seed(SEARCH_SEED, value)
    if other is not None:
        measure("second retrained", study.retrained(other, value, case))
    for name, table in all_settings().items():
        problem = case.problem(original, SEARCH_SEED, {})
        configure(method_of(ROWS["joint"], SEARCHING), table)(problem)
        measure(name, problem.model)
    if arguments.record:
        write_compact({"environment": environment(), "concept": value, "rows": rows}, arguments.record)


if __name__ == "__main__":
    main()
