"""`benchmarks/inversion_attacks.py`: queries alone find inputs of a class."""

from types import ModuleType

import torch

from unweave.data.datasets import load
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.split import Split
from unweave.tasks.models import build

SCRIPT = "inversion_attacks"


def test_queries_alone_find_inputs_of_a_class(script: ModuleType) -> None:
    train, test = load("digits")
    how = Descent(lr=0.1, steps=120)
    split = Split(train, [0], test)
    model = train_model(how, lambda: build("mlp", 10, {"hidden": 64}), split, "mixed", 0).model.eval()

    @torch.no_grad()
    def answer(inputs: torch.Tensor) -> torch.Tensor:
        return model(inputs).softmax(1)

    for label in (0, 7):
        probes = script.find_probes(answer, label, (64,), least=-1, most=2)
        assert probes.shape == (script.PROBES, 64) and -1 <= float(probes.min()) <= float(probes.max()) <= 2
        assert bool((answer(probes)[:, label] >= script.SURE).all())
