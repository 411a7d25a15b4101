"""GDR-GMA (Lin et al., ACM MM 2024), https://openreview.net/forum?id=52NGERGnlz.

The paper's text was not at hand: what is not in its abstract is from its released code.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend, plan_inputs
from unweave.descent.feed import steps_per_epoch
from unweave.descent.objective import Objective, nll
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range, up_to
from unweave.split import Part
from unweave.targets import Ascent, Target, ascents
from unweave.weights.params import Params
from unweave.weights.step import Step


@dataclass(frozen=True)
class GDRGMA:
    r"""Ascends the forget loss where that opposes no retaining, and only while the retain loss is low.

    Of every weight tensor the two gradients are freed from what opposes the other (direction rectification),
    and :math:`(1 - \lambda) g_r + \lambda g_f` is followed with :math:`\lambda = 1 / (1 + e^{\gamma (L_r -
    \epsilon)})` (magnitude adjustment): all retaining above a retain loss of epsilon, nearly all forgetting
    below. Of the last tensor the forget gradient is also freed from what opposes those of the pass before.

    Args:
        gamma: How sharply the one turns into the other, per nat of retain loss.
        epsilon: The retain loss at which both weigh the same, in nats.
        forget: The forget loss; the method's own is ascent.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Lin et al., ACM MM 2024, OpenReview 52NGERGnlz",
        "forget, retain",
        "2 gradients",
        "after the released code, with two repairs: each gradient is freed from the other as it was, where "
        "the code frees the second from the first as changed, so that they stay in conflict; averaging past "
        "gradients does not change them",
        families=("classifier",),
    )
    gamma: float = 100.0
    epsilon: float = 0.02
    forget: Target = Ascent()
    how: Descent = Descent(lr=1e-4, epochs=10, batch=256, optimizer="adamw", weight_decay=0.01)

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "gamma")
        refuse_outside(self, "[0, inf)", "epsilon")

    def space(self, budget: int) -> Mapping[str, Range]:
        """What a search chooses from."""
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
        both = Rectified(nll("retain"), forget, self.gamma, self.epsilon, a_pass)
        descend(problem, self.how, Phase([both], feed="shortest", watch=forget.watch))


@dataclass(eq=False)
class Rectified:
    """The two gradients, neither opposing the other in any tensor, weighed by how low the retain loss is.

    Args:
        retain: The loss whose value weighs.
        forget: The other.
        gamma: See `GDRGMA`.
        epsilon: See `GDRGMA`.
        a_pass: How many forget gradients of the last tensor are kept: those of one pass.
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
        freed = {n: remove_opposition(g, g_r[n]) for n, g in g_f.items()}
        if step.index >= self.a_pass:
            freed[name] = remove_opposition(freed[name], mean_opposing(freed[name], list(self.past)))
        self.past.append(last)
        if len(self.past) > self.a_pass:
            self.past.popleft()
        share = torch.sigmoid(-self.gamma * (step.total(losses) - self.epsilon))
        return {n: (1 - share) * remove_opposition(g, g_f[n]) + share * freed[n] for n, g in g_r.items()}


def record_losses(losses: Iterable[Tensor], into: list[Tensor]) -> Iterator[Tensor]:
    """The losses, whose values are kept."""
    for loss in losses:
        into.append(loss.detach())
        yield loss


def remove_opposition(g: Tensor, other: Tensor) -> Tensor:
    """The tensor without what of it opposes the other."""
    overlap, size = (g * other).sum().clamp(max=0), other.square().sum()
    return g - overlap / size.clamp(min=torch.finfo(g.dtype).tiny) * other


def mean_opposing(g: Tensor, past: list[Tensor]) -> Tensor:
    """The mean of those that oppose the tensor; zero if none does."""
    each = torch.stack(past)
    chosen = ((each * g).flatten(1).sum(1) < 0).to(g)
    return torch.tensordot(chosen, each, 1) / chosen.sum().clamp(min=1)
