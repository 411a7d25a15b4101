"""RNI, a winner of the NeurIPS 2023 unlearning competition: a new head, and noise again and again.

The definition is that of Deep Unlearn (Cadet et al., 2024), https://arxiv.org/abs/2410.01276, and of its
released code; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import PerturbFirst, renew
from unweave.descent.importance import invert, weights_of_modules
from unweave.descent.objective import nll
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import RATES, Log, Range, Uniform, up_to
from unweave.weights.params import multiply, scale

__all__ = ["RNI"]


@dataclass(frozen=True)
class RNI:
    """Redraws the head; in every round adds noise to random layers and trains those; finally trains all.

    A layer is a module of `problem.blocks` other than the head. In a round the layers that are not drawn are
    frozen; the head and weights outside layers, such as normalisations, train in all rounds.

    Args:
        noise: The standard deviation of the noise, in the unit of the weights.
        layers: The fraction of the layers that a round draws and trains, at least one layer.
        noisy: The fraction of the drawn layers that get noise, at least one layer.
        rounds: The number of rounds, the first of which is without noise.
        last: The length of the final training of all weights, as a fraction of the whole.
        how: The training.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "retain",
        "1 gradient",
        "draws layers, not tensors, and a fraction of them, not 9; normalisations are recognised by type, "
        "not by name, and never get noise; the new head trains in every round; one optimizer and one "
        "learning rate for all rounds",
        families=("classifier",),
        edits="redraws layers",
    )
    noise: float = 0.04
    layers: float = 0.4
    noisy: float = 0.7
    rounds: int = 5
    last: float = 4 / 9
    needs_fresh_weights: ClassVar[bool] = True
    how: Descent = Descent(lr=2e-4, epochs=9, batch=64, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "noise")
        refuse_outside(self, "[0, 1]", "layers", "noisy")
        refuse_outside(self, "[1, inf)", "rounds")
        refuse_outside(self, "(0, 1)", "last")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; every round gets at least one step."""
        shortest = max(4 * self.rounds, round(4 / self.last))
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget, least=shortest),
            "noise": Log(0.01, 1.0),
            "noisy": Uniform(0.1, 1.0),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If the head can't be redrawn, or there is no other trainable layer.
        """
        refuse_family(self, problem.task)
        layers = trainable_layers(problem)
        renew(problem, [problem.head[1]])
        rounds = [self.round(problem, layers, noisy=number > 0) for number in range(self.rounds)]
        share = self.rounds * self.last / (1 - self.last)
        descend(problem, self.how, *rounds, Phase([nll("retain")], share=share))

    def round(self, problem: Problem, layers: list[nn.Module], *, noisy: bool) -> Phase:
        """The phase that trains some layers and starts with noise on some of them."""
        params, count = problem.params, max(1, round(self.layers * len(layers)))
        order = torch.randperm(len(layers), generator=problem.generator).tolist()
        first, other_layers = [layers[i] for i in order[:count]], [layers[i] for i in order[count:]]
        on = weights_of_modules(first[: max(1, round(self.noisy * count))] if noisy else [], params)
        where = invert(weights_of_modules(other_layers, params))
        watch = PerturbFirst(scale(multiply(on, where), self.noise))
        return Phase([nll("retain")], where=where, watch=watch)


def trainable_layers(problem: Problem) -> list[nn.Module]:
    """The modules of `problem.blocks` with trainable weights, without the head.

    Raises:
        ValueError: If there are none.
    """
    trainable = {id(p) for p in problem.params.values()}
    layers = [
        m for _, m in problem.blocks[:-1] if any(id(p) in trainable for p in m.parameters(recurse=False))
    ]
    if not layers:
        raise ValueError(
            "rni puts noise on layers other than the head, and this model has no trainable one: "
            "use another method"
        )
    return layers
