"""GDR-GMA (Lin et al., ACM MM 2024), https://openreview.net/forum?id=52NGERGnlz.

The paper's full text was not available to us: beyond its abstract, this follows the released code.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.batches import plan_inputs
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import steps_per_epoch
from unweave.descent.objective import Objective, nll
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range, up_to
from unweave.split import Part
from unweave.targets import Ascent, Target, ascents
from unweave.weights.params import Params
from unweave.weights.step import Step

__all__ = ["GDRGMA"]


@dataclass(frozen=True)
class GDRGMA:
    r"""Ascends the forget loss without opposing the retain gradient, while the retain loss is low.

    In every weight tensor, each gradient loses its component that opposes the other (direction
    rectification), and :math:`(1 - \lambda) g_r + \lambda g_f` is followed with :math:`\lambda = 1 / (1 +
    e^{\gamma (L_r - \epsilon)})` (magnitude adjustment): mostly the retain gradient above a retain loss of
    epsilon, mostly the forget gradient below. In the last tensor, the forget gradient also loses its
    component that opposes those of the previous pass.

    Args:
        gamma: The sharpness of the transition, per nat of retain loss.
        epsilon: The retain loss at which both gradients have equal weight, in nats.
        forget: The forget loss; the method's own is ascent.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Lin et al., ACM MM 2024, OpenReview 52NGERGnlz",
        "forget, retain",
        "2 gradients",
        "after the released code, with two repairs: each gradient is projected against the other as it "
        "was, where the code projects the second against the changed first, so that they stay in conflict; "
        "averaging past gradients does not change them",
        families=("classifier",),
    )
    unsaved_state: ClassVar[str] = "past gradients"
    gamma: float = 100.0
    epsilon: float = 0.02
    forget: Target = Ascent()
    how: Descent = Descent(lr=1e-4, epochs=10, batch=256, optimizer="adamw", weight_decay=0.01)

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "gamma")
        refuse_outside(self, "[0, inf)", "epsilon")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": Log(3e-5, 3e-2),
            "how.steps": up_to(budget // 2, share=8),
            "gamma": Log(1.0, 300.0),
            "epsilon": Log(0.003, 1.0),
            **ascents(self.forget),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        refuse_family(self, problem.task)
        forget = self.forget(problem, self.how)
        a_pass = steps_per_epoch("longest", *plan_inputs(problem, Phase([forget]), self.how))
        term = RectifiedGradient(nll("retain"), forget, self.gamma, self.epsilon, a_pass)
        descend(problem, self.how, Phase([term], feed="shortest", watch=forget.watch))


@dataclass(eq=False)
class RectifiedGradient:
    """The sum of both gradients, rectified per tensor and weighted by the value of the retain loss.

    Args:
        retain: The retain loss, whose value sets the weights.
        forget: The forget loss.
        gamma: See `GDRGMA`.
        epsilon: See `GDRGMA`.
        a_pass: The number of past forget gradients of the last tensor to remember: those of one pass.
    """

    retain: Objective
    forget: Objective
    gamma: float
    epsilon: float
    a_pass: int
    past: deque[Tensor] = field(default_factory=deque, init=False)

    @property
    def parts(self) -> frozenset[Part]:
        """The parts of the data that it needs."""
        return self.retain.parts | self.forget.parts

    def present(self, step: Step) -> bool:
        """Whether the step has data for both."""
        return self.retain.present(step) and self.forget.present(step)

    def gradient(self, step: Step) -> Params:
        """The weighted sum."""
        losses: list[Tensor] = []
        g_r, g_f = step.backward(record_losses(self.retain.losses(step), losses)), step.gradient(self.forget)
        name, last = list(g_f.items())[-1]
        g_free = {n: remove_opposition(g, g_r[n]) for n, g in g_f.items()}
        if step.index >= self.a_pass:
            g_free[name] = remove_opposition(g_free[name], mean_opposing(g_free[name], list(self.past)))
        self.past.append(last)
        if len(self.past) > self.a_pass:
            self.past.popleft()
        share = torch.sigmoid(-self.gamma * (step.total(losses) - self.epsilon))
        return {n: (1 - share) * remove_opposition(g, g_f[n]) + share * g_free[n] for n, g in g_r.items()}


def record_losses(losses: Iterable[Tensor], into: list[Tensor]) -> Iterator[Tensor]:
    """Yields the losses and records their values."""
    for loss in losses:
        into.append(loss.detach())
        yield loss


def remove_opposition(g: Tensor, other: Tensor) -> Tensor:
    """The tensor without its component that opposes the other."""
    overlap, size = (g * other).sum().clamp(max=0), other.square().sum()
    return g - overlap / size.clamp(min=torch.finfo(g.dtype).tiny) * other


def mean_opposing(g: Tensor, past: list[Tensor]) -> Tensor:
    """The mean of the past tensors that oppose this one; zero if none does."""
    stack = torch.stack(past)
    opposing = ((stack * g).flatten(1).sum(1) < 0).to(g)
    return torch.tensordot(opposing, stack, 1) / opposing.sum().clamp(min=1)
