"""How a descent runs: its length, optimizer and learning rate, and the phases that it consists of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.descent.eight_bit import EIGHT_BIT, eight_bit_adamw
from unweave.descent.feed import FeedName
from unweave.descent.importance import Mask
from unweave.descent.losses import is_forgotten
from unweave.descent.optimizer_state import TrainState
from unweave.descent.rules import Rule, RuleName
from unweave.problem import Problem
from unweave.weights.runtime import Precision
from unweave.weights.step import Term

ADAFACTOR_EPS = (1e-18, 1e-3)
"""The least mean square of a gradient (its square fits float32), and the least size of a tensor's weights.

torch's own least mean square, 1e-7, is more than a denoiser's: steps would grow where gradients shrink.
"""


@dataclass(frozen=True)
class Descent:
    """Length, optimizer and learning rate of a training.

    Args:
        lr: The learning rate.
        steps: The number of updates; give this or `epochs`.
        epochs: The number of passes, as the feed counts them; give this or `steps`.
        batch: The number of retain (or mixed) examples per step, over all processes.
        forget_batch: The number of forget examples per step; `batch` if None.
        micro_batch: The largest number of examples in one forward pass; no limit if None.
        optimizer: The optimizer; `descend` takes a user's own instead. "adamw8bit" keeps its states in a byte
            per weight, and needs the extra `eight-bit`. "adafactor" (Shazeer & Stern, 2018, arXiv 1804.04235)
            keeps a state for the rows and the columns of a matrix, of a convolution for those of each kernel.
            Its rate is relative to the size of a tensor's weights, and at most 1 / sqrt(step).
        momentum: The momentum of SGD.
        weight_decay: The weight decay.
        schedule: How the learning rate falls, after the warm-up.
        warmup: The fraction of steps over which it first rises, linearly.
        max_norm: The largest norm of the combined gradient; no limit if None.
        norm: "train": BatchNorm normalises by the batch and updates its statistics. "frozen": it uses its
            statistics unchanged.
        dropout: "off": no dropout. "same": dropout draws one mask for all passes of a step.
        ema: The decay of an average of the weights, which becomes the result; no average if None. After n
            steps the decay is at most (1 + n) / (10 + n), as in TensorFlow: with a constant decay a short run
            would end near its first weights, and the average would hide what it forgot.
        precision: The number type of the forward passes.
        compile: True compiles the forward passes. Compilation takes minutes and needs a C++ compiler; it pays
            on a GPU in long trainings. torch then chooses the memory layout of convolutions, and no second
            derivative is available. "step" records the gradients of a step as a CUDA graph and replays it,
            so that a GPU need not wait for Python on a small model; it has not run on a GPU yet. It needs
            steps that do not change: one process, no dropout, no rule, no target that is measured again, and
            a model that runs the same kernels at every step.
        stop: "forgotten" ends a phase that uses the forget set once the mean loss on the forget set has
            reached the mean loss on the calibration set.
        stop_every: The number of steps between two checks of `stop`.
        unused: Names of weights that the loss need not depend on.
    """

    lr: float = 0.05
    steps: int | None = None
    epochs: float | None = None
    batch: int = 128
    forget_batch: int | None = None
    micro_batch: int | None = None
    optimizer: Literal["sgd", "adam", "adamw", "adamw8bit", "adafactor"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: float = 0.0
    max_norm: float | None = None
    norm: Literal["train", "frozen"] = "train"
    dropout: Literal["off", "same"] = "off"
    ema: float | None = None
    precision: Precision = "fp32"
    compile: bool | Literal["step"] = False
    stop: Literal["never", "forgotten"] = "never"
    stop_every: int = 10
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "(0, inf)", "lr", "epochs")
        refuse_outside(self, "(0, inf]", "max_norm")
        refuse_outside(self, "[1, inf)", "steps", "batch", "forget_batch", "micro_batch", "stop_every")
        refuse_outside(self, "[0, 1)", "warmup", "momentum", "ema")
        refuse_outside(self, "[0, inf)", "weight_decay")
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"a descent needs either steps or epochs, found steps={self.steps}, epochs={self.epochs}"
            )

    @property
    def unsaved_state(self) -> str:
        """What no saved state holds; empty if all is saved."""
        return f"optimizer={EIGHT_BIT}" if self.optimizer == EIGHT_BIT else ""

    def rate(self, progress: float) -> float:
        """The learning rate at a progress in [0, 1), relative to `lr`."""
        if progress < self.warmup:
            return progress / self.warmup
        decay = (progress - self.warmup) / (1 - self.warmup)
        match self.schedule:
            case "constant":
                return 1.0
            case "linear":
                return 1 - decay
            case "cosine":
                return (1 + math.cos(math.pi * decay)) / 2

    def optimizer_over(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer over these weights.

        Raises:
            ValueError: If its library is not installed.
        """
        if self.optimizer == "sgd":
            return torch.optim.SGD(weights, self.lr, self.momentum, weight_decay=self.weight_decay)
        if self.optimizer == EIGHT_BIT:
            return eight_bit_adamw()(weights, self.lr, weight_decay=self.weight_decay)
        if self.optimizer == "adafactor":
            return torch.optim.Adafactor(weights, self.lr, eps=ADAFACTOR_EPS, weight_decay=self.weight_decay)
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(weights, self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Phase:
    """A stretch of a descent.

    Args:
        terms: One gradient per term; a sum of objectives is one term.
        rule: How to combine the gradients of the terms: a name, or your own rule.
        where: A multiplier in [0, 1] per weight; a weight with multiplier zero ends bit for bit unchanged.
        feed: The order in which examples arrive.
        idle: Allow a zero gradient at step 0, as of a loss that starts at its minimum; otherwise it is an
            error.
        share: The fraction of the steps, relative to the other phases.
        watch: Called before every step with the problem and the number of the step: for probes, and for edits
            of trainable weights.
        until: Ends the phase early once it returns true. It is called every `stop_every` steps, on the
            average of the weights if there is one.
    """

    terms: Sequence[Term]
    rule: RuleName | Rule = "total"
    where: Mask | None = None
    feed: FeedName = "paired"
    idle: bool = False
    share: float = 1.0
    watch: Callable[[Problem, int], None] | None = None
    until: Callable[[Problem], bool] | None = None

    def is_over(self, problem: Problem, how: Descent, train_state: TrainState) -> bool:
        """Whether the phase ends at this step."""
        follows_forget = any(term.parts & {"forget", "mixed"} for term in self.terms)
        if how.stop == "forgotten" and follows_forget and is_forgotten(problem, how.batch):
            return True
        if self.until is None:
            return False
        with train_state.use_average():
            return self.until(problem)
