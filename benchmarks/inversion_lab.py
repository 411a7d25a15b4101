"""The nets of `inversion.py`, and what deletes records from them."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from unweave.audits.attacks.inversion import Search
from unweave.audits.classifier.collect import logits_of
from unweave.bench.recipe import Recipe
from unweave.bench.split_data import make_split
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.methods import Method, method_named
from unweave.methods.defences import Obfuscate, Prune
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.methods.simple import GradientAscent
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier

STEP = GradientAscent(how=replace(GradientAscent().how, steps=1, batch=512))
DEFENCES: Mapping[str, Method] = {
    "noise of 0.3 %": Obfuscate(0.003),
    "noise of 3 %": Obfuscate(0.03),
    "pruned by 30 %": Prune(0.3),
    "pruned by 70 %": Prune(0.7),
    "fine-tuned, 1 epoch": Recover(how=Descent(lr=0.01, epochs=1)),
}
METHODS = ("ascent", "neggrad+", "salun", "scissorhands", "lur", "lur:recover")
DELETIONS: Mapping[str, Method] = {
    "one ascent step": STEP,
    **{f"one ascent step, {name}": Pipeline(STEP, each) for name, each in DEFENCES.items()},
    **{name: method_named(name) for name in METHODS},
}
RETRAIN, NORM, OTHER = "retrain", "control: equal norm on retain data", "control: another record"
CONTROLS = (NORM, OTHER)
DECOYS = 99


@dataclass(frozen=True)
class Lab:
    """A stage with its original, and the search of the attacker.

    Args:
        recipe: The stage.
        iterations: Steps of each restart of the search.
        out: The folder of trained nets and results.
    """

    recipe: Recipe
    iterations: int
    out: Path
    _last: dict[tuple[str | int, ...], nn.Module] = field(default_factory=dict, init=False, compare=False)

    @cached_property
    def whole(self) -> Split:
        """The data of the stage."""
        return make_split(self.recipe.data, family=self.recipe.family)

    @cached_property
    def inputs(self) -> Tensor:
        """The inputs of all training examples."""
        source = self.whole.train
        (raw,) = source.stream([torch.arange(len(source))])
        assert isinstance(raw.inputs, tuple)
        return raw.inputs[0]

    @property
    def labels(self) -> Tensor:
        """The labels of all training examples."""
        return self.whole.train.labels

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return 1 + int(self.labels.max())

    @cached_property
    def original(self) -> nn.Module:
        """The net trained on all examples."""
        return self.train(self.whole, "mixed")

    @cached_property
    def search(self) -> Search:
        """The search of the attacker, within the range of the inputs."""
        return Search(
            iterations=self.iterations, least=float(self.inputs.min()), most=float(self.inputs.max())
        )

    @property
    def image(self) -> Sequence[int]:
        """The shape in which an input is an image."""
        shape = self.inputs.shape[1:]
        return shape if len(shape) == 3 else (1, 8, 8)

    def build(self) -> nn.Module:
        """A net with fresh weights."""
        return self.recipe.build(self.n_classes)

    def train(self, split: Split, part: Literal["mixed", "retain"]) -> nn.Module:
        """A net of seed 0."""
        return train_model(self.recipe.train, self.build, split, part, 0).model

    def split(self, forget: Sequence[int]) -> Split:
        """The data with another forget set."""
        return Split(
            self.whole.train, list(forget), self.whole.held_out, calibration=self.whole.calibration.tolist()
        )

    def delete(self, name: str, forget: Sequence[int]) -> nn.Module:
        """The net after a deletion; the last one is kept for a second attack."""
        key = (name, *forget)
        if key not in self._last:
            self._last.clear()
            self._last[key] = self._delete(name, forget)
        return self._last[key]

    def _delete(self, name: str, forget: Sequence[int]) -> nn.Module:
        split, model = self.split(forget), copy.deepcopy(self.original)
        if name == RETRAIN:
            return self.train(split, "retain")
        draws = torch.Generator().manual_seed(0)
        problem = Problem(
            Classifier(self.n_classes), model, split, draws, self.build, caller_model=self.original
        )
        DELETIONS[name](problem)
        return model

    def accuracy(self, model: nn.Module) -> float:
        """The accuracy on held-out examples, in percent."""
        test = (self.whole.held_out, self.whole.test)
        logits = logits_of(model.eval(), test, "cpu")
        return 100 * float((logits.argmax(1) == self.whole.held_out.labels[self.whole.test].numpy()).mean())

    def order(self, seed: int) -> Tensor:
        """The training examples in a random order."""
        return torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(seed))

    def class_of(self, record: int) -> Tensor:
        """The training examples of the class of a record, itself among them."""
        return (self.labels == self.labels[record]).nonzero()[:, 0]

    def decoys(self, record: int, forget: Sequence[int]) -> Tensor:
        """Other records of its class that were not deleted, 99 or as many as there are."""
        class_ids = self.class_of(record)
        return self.inputs[class_ids[~torch.isin(class_ids, torch.tensor([record, *forget]))][:DECOYS]]
