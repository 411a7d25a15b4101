"""Which weights to train, and towards what, so that a concept stays gone: six settings of the joint loss.

    python benchmarks/text_to_image_scopes.py --models models --record records/text-to-image-scopes.json

The models are those of `text_to_image_models.py`. Every setting has the gradients of a tenth of a retraining
and the weight 1, on the object and the seed of the searches, which are not reported; beside them stand the
original and two retrained models. Of the attacks, the three that fit something to real images run.
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
from unweave.methods.configure import configure
from unweave.record.record import environment

ATTACKS = "optimised-vector,new-token,from-a-picture,relearning-from-images"
SHOWN = ("ua", "ra_neighbours", "kid", "relearn_10", "token", "vector", "picture")
LOSSES = ("ideal", "away")
RATES = {"cross-attention": 2e-3, "attention": 1.5e-3, "all": 1.5e-3}
"""The learning rate of each scope; more weights move further at the same rate."""


def settings(scope: str, loss: str) -> dict[str, Any]:
    """The settings of the joint loss on a scope."""
    how = {"lr": RATES[scope], "steps": 43}
    return {"train": {"scope": scope}, "joint": {"how": how, "weight": 1.0, "forget": loss}}


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, required=True, help="--out of text_to_image_models.py")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    models, factor = TextToImageModels(text_to_image_recipe("digits"), given.models / "kept"), "object"
    study, value = Study(models, given.models / "digits", Path()), SEARCHED[factor]
    case = study.case(SEARCH_SEED, factor, value, searching=True)
    original, found = case.original(), dict[str, Any]()

    exam = case.questions.with_attacks(ATTACKS)
    assert isinstance(exam, EditExam)

    def measure(name: str, model: nn.Module) -> None:
        values = exam.measure(exam.answers(model)) | EditExam.probes(exam, model, original)
        found[name] = round_numbers(values)
        print(name, {key: values[key] for key in SHOWN if key in values}, flush=True)

    measure("original", original)
    measure("retrained", study.retrained(SEARCH_SEED, value, case))
    other = study.other_seed(SEARCH_SEED, value)
    if other is not None:
        measure("second retrained", study.retrained(other, value, case))
    for scope, loss in product(SCOPES.values, LOSSES):
        problem = case.problem(original, SEARCH_SEED, {})
        configure(method_of(ROWS["joint"], SEARCHING), settings(str(scope), loss))(problem)
        measure(f"{scope}, {loss}", problem.model)
    if given.record:
        write_compact({"environment": environment(), "concept": value, "rows": found}, given.record)


if __name__ == "__main__":
    main()
