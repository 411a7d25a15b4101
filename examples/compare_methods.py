"""Compare two methods of your own with LUR on one model.

A method is any function that edits a `Problem` in place. `soften` descends the loss of the retain set less a
part of the loss of the forget set. `mix` averages the trained weights with fresh ones, and then trains on the
retain set. All methods start at the same model and are compared with the same retrained models.

    python3 examples/compare_methods.py
"""

import tempfile

import torch
from torch import nn

import unweave
from delete_records import WRONG, test_set, train, train_set
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll


def network() -> nn.Module:
    """The network of the example, with fresh weights."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def soften(problem: unweave.Problem) -> None:
    """Descends the retain loss less 5 % of the forget loss."""
    objective = nll("retain") - 0.05 * nll("forget")
    descend(problem, Descent(lr=0.05, steps=100, max_norm=1.0), Phase([objective]))


@torch.no_grad()
def mix(problem: unweave.Problem) -> None:
    """Moves every weight 60 % of the way to a fresh one, and trains on the retain set."""
    torch.manual_seed(0)
    fresh = dict(network().named_parameters())
    for name, weight in problem.params.items():
        weight.lerp_(fresh[name], 0.6)
    with torch.enable_grad():
        descend(problem, Descent(lr=0.1, steps=150), Phase([nll("retain")]))


METHODS = {"soften": soften, "mix": mix, "lur:recover": unweave.Pipeline(unweave.LUR(), unweave.Recover())}


def main() -> None:
    """Prints a row per method: its verdict, and its figures beside those of the retrained models."""
    original = train(train_set, seed=0)
    split = unweave.Split(train_set, forget=WRONG, test=test_set)
    with tempfile.TemporaryDirectory() as folder:  # keeps the retrained models' answers
        reference = unweave.Retrain(train, seeds=range(10), folder=folder)
        for name, method in METHODS.items():
            result = unweave.unlearn(original, split, method)
            audit = unweave.audit(result, reference)
            figures = {figure: audit.scores[figure] for figure in ("ua", "ra", "ta", "tv")}
            print(f"{name:12} {audit.reason}")
            for figure, score in figures.items():
                print(f"    {figure.upper()} {score.value:6.2f}, retrained {score.reference:6.2f}")


if __name__ == "__main__":
    main()
