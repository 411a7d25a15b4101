"""The target that guides the answer away from the concept: negative guidance; for denoisers.

Gandikota et al., ICCV 2023, https://arxiv.org/abs/2303.07345. Their method is `unweave.methods.esd`; as a
target, on noised forget images and beside a retain loss, it is ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective, on
from unweave.problem import Problem
from unweave.tasks import Batch, call, require_task
from unweave.tasks.diffusion import Diffusion, guide_away
from unweave.weights.step import Step

__all__ = ["Away"]


@dataclass(frozen=True)
class Away:
    r"""Answers without the condition, guided away from what the original answers under it.

    Minimises :math:`\|\epsilon_\theta(x_t, t, c) - [\epsilon_0 - \eta\, (\epsilon_c - \epsilon_0)]\|^2` with
    the original's answers in brackets. An example whose condition is dropped has the original's own answer.

    Args:
        eta: The strength of the guidance.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "eta")

    def __call__(self, problem: Problem, how: Descent) -> Objective:
        """The forget objective.

        Raises:
            ValueError: If the model has no null condition.
        """
        task, original = require_task(problem.task, Diffusion, "denoisers"), problem.original
        if task.null is None:
            raise ValueError(
                "the target 'away' leads away from the answer without a condition, and this model has none "
                "(null=None): use another target"
            )

        def value(step: Step, batch: Batch) -> Tensor:
            key = ("away", self.eta, id(original), id(batch))
            target = step.once(key, lambda: self.target(task, original, batch))
            return task.loss(step.predict(batch), target)

        return on("forget", "away", value)

    @torch.no_grad()
    def target(self, task: Diffusion, original: nn.Module, batch: Batch) -> Tensor:
        """The guided answers of the original."""
        noisy, time, condition = task.parts(batch)
        assert task.null is not None
        plain = call(original, task.named_inputs(noisy, time, torch.full_like(condition, task.null)))
        return guide_away(plain, call(original, batch.inputs), plain, self.eta)
