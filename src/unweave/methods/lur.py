"""Learning to Unlearn while Retaining (Patel & Qiu, ICCV 2025), https://arxiv.org/abs/2503.06339.

Our implementation: the paper's step sizes, loss weights and tables are not public, so none is reproduced
here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from unweave.audit.conflict import Probe
from unweave.choices import refuse_no_pattern, refuse_outside, refuse_unknown_choices
from unweave.curvature import curvature_along, top_eigenvalue
from unweave.descend import Descent, Phase, descend, lengths_of, training
from unweave.edit import shrink_and_perturb
from unweave.estimators import FREE, EstimatorName, estimator_named
from unweave.feed import FeedName
from unweave.importance import Mask, multiplied, named, saliency, top
from unweave.level import Level
from unweave.lookahead import exact, lagged, nested
from unweave.measuring import Restored, first_step, norms_of_gradients
from unweave.methods.about import About
from unweave.methods.space import Choice, Log, Range, Rest, Uniform, Whole
from unweave.objective import (
    ForgetLoss,
    Objective,
    RetainLoss,
    distill,
    forget_loss,
    frozen,
    nll,
    retain_loss,
)
from unweave.problem import Problem
from unweave.rules import RuleName
from unweave.step import Term
from unweave.targets import Proxy, held_out_level, pull, quantiles, toward
from unweave.tasks.classifier import Classifier
from unweave.trim import trim

Mode = Literal["nested", "lagged", "exact", "first-order", "joint"]

AVERAGE = 0.95
"""The decay of the average of the weights that a measured recovery looks at: at a rate that doesn't fall the
weights themselves are worse than what they settle to."""

LOOKS = 5
"""A measured recovery is at a standstill after so many looks at least."""


@dataclass(frozen=True)
class LUR:
    r"""Retains, and forgets where one retaining step would have led, so that the two gradients come to agree.

    Descends :math:`J = L_r(\theta) + \lambda L_u(\theta - \alpha \nabla L_r(\theta))`, whose gradient is that
    of :math:`L_r + \lambda L_u - \alpha \lambda \langle g_r, g_u \rangle` up to :math:`O(\alpha^2)`.

    Args:
        mode: How the gradient of J is followed: "nested" takes three gradients a step and no second
            derivative, "lagged" two, "exact" two and a double backward; "first-order" drops the Hessian and
            half of the alignment; "joint" is alpha = 0.
        alpha: The size of the virtual retaining step.
        alpha_in: The unit of `alpha`: 1 if "absolute", or 1 / (curvature of the retain loss at the start):
            the top one ("curvature"), or that along the retain gradient ("along"), which needs no second
            derivative.
        weight: The weight of the forget loss, lambda.
        weight_in: The unit of `weight`: 1 if "absolute", or the norm of the retain gradient over that of the
            forget gradient, at the start and on the first batches ("gradients").
        forget: The forget loss, or an estimate of where a retrained model would stand: "level" raises each
            forget loss to the held-out loss at its own rank, as the model is now; "match" pulls each forget
            output to that of a proxy model that never saw it, "quantile" each forget margin to the original's
            held-out margin at its own rank, "estimate" each forget output to that of an estimator.
        retain: The retain loss: the training loss, the divergence from the original ("distill"), or "both".
        cap: The loss at which "clamped" leaves an example alone, in the unit of the task.
        sharpen: The temperature of the proxy's answers for "match". If None, a classifier's answers are moved
            to the confidence that the original has on held-out data, and those of other families are taken as
            they are.
        proxy: How the proxy is trained; its cost is the method's.
        ranks: Who orders the forget examples for "quantile".
        estimator: Whose estimate "estimate" takes; what it trains is trained as the proxy is.
        refresh: The number of steps between two looks at the losses that "level" compares.
        keep: What stays of the weights at the start: all if 1; the rest is drawn anew.
        redraw: The fraction of the eligible weights, most sensitive to forget data (SNIP), that is redrawn
            first.
        eligible: A pattern for the names of weights that may be redrawn; by default the last third of the
            weight-bearing modules that may move.
        fraction: The fraction of weights, most salient to the forget data, that may move at all.
        where: A pattern for the names of weights that may move.
        rule: How the two directions are combined.
        feed: The order of data.
        probe: Measures the conflict of the two gradients every so many steps; never if 0.
        recover: Steps on retain data alone, after those of `how` and under the same schedule: they mend what
            forgetting has damaged, and let the forget outputs settle where nothing pushes them.
        recover_in: The unit of `recover`: steps, or passes over the retain data ("epochs").
        until: What ends the recovery: the last of its steps ("end"), or being as good on retain data as the
            original was ("restored"). That is asked every `how.stop_every` steps of the average of the last
            weights (`how.ema`, 0.95 if None), which becomes the result. The learning rate then has no
            schedule: it stays until the loss has stood still for a pass over the retain data, and is halved.
            `recover` is the most; the last row of the trace "restored" says whether it was enough.
        near: How good that is: the loss on retain data is at most so many times the original's.
        how: The descent.
    """

    about: ClassVar[About] = About(
        paper="Patel & Qiu, ICCV 2025, arXiv 2503.06339",
        data="forget, retain; calibration for the targets 'level', 'match', 'quantile' and 'estimate'",
        step="3 gradients (nested), 2 (lagged, first-order, joint), 2 + double backward (exact)",
        deviations="modes nested and lagged, the targets, and what is done before (redraw, keep) and after "
        "(recover) are ours; the paper's settings are not public",
    )

    mode: Mode = "nested"
    alpha: float = 0.1
    alpha_in: Literal["absolute", "curvature", "along"] = "absolute"
    weight: float = 0.3
    weight_in: Literal["absolute", "gradients"] = "absolute"
    forget: ForgetLoss | Literal["level", "match", "quantile", "estimate"] = "bounded"
    retain: RetainLoss = "nll"
    cap: float = 4.0
    sharpen: float | None = None
    proxy: Proxy = Proxy()
    ranks: Literal["proxy", "original"] = "proxy"
    estimator: EstimatorName = "proxy"
    refresh: int = 10
    keep: float = 1.0
    redraw: float = 0.03
    eligible: str | None = None
    fraction: float | None = None
    where: str | None = None
    rule: RuleName = "total"
    feed: FeedName = "paired"
    probe: int = 0
    recover: float = 200
    recover_in: Literal["steps", "epochs"] = "steps"
    until: Literal["end", "restored"] = "end"
    near: float = 1.0
    how: Descent = Descent(lr=0.1, steps=60, forget_batch=64, max_norm=1.0, schedule="cosine", warmup=0.05)

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "alpha", "weight", "probe", "recover")
        refuse_outside(self, "(0, inf)", "cap", "sharpen", "near")
        refuse_outside(self, "[1, inf)", "refresh")
        refuse_outside(self, "[0, 1]", "keep", "redraw", "fraction")
        refuse_no_pattern(self, "eligible", "where")
        if self.recover_in == "steps" and self.recover != round(self.recover):
            raise ValueError(
                f"recover must be a whole number of steps, found {self.recover}: use recover_in='epochs'"
            )

    def space(self, budget: int) -> Mapping[str, Range]:
        """What a search chooses from: forgetting takes up to 0.45 of the budget, recovery the rest.

        A budget is spent whole, so recovery ends where it does.
        """
        step = 3 if self.mode == "nested" else 2
        longest, prices = max(1, round(0.45 * budget / step)), {"how.steps": step}
        proxied = (
            self.forget == "match"
            or (self.forget == "quantile" and self.ranks == "proxy")
            or (self.forget == "estimate" and self.estimator not in FREE)
        )
        proxy = {"proxy.how.steps": Choice((max(1, round(0.2 * budget)),))} if proxied else {}
        usual = {"forget": Choice(("bounded", "clamped"))} if self.forget in ("bounded", "clamped") else {}
        far = 0.1 if self.mode == "lagged" else 0.3
        unit = 1 if self.alpha_in == "absolute" else 10  # losses are about so curved
        ahead = {} if self.mode == "joint" else {"alpha": Log(0.01 * unit, far * unit)}
        return {
            **ahead,
            **proxy,
            **usual,
            "how.lr": Log(0.05, 0.3),
            "how.steps": Whole(max(1, longest // 5), longest),
            "weight": Log(0.02, 1.5),
            "keep": Uniform(0.3, 1.0),
            "recover": Rest(budget, prices | dict.fromkeys(proxy, 1)),
            "recover_in": Choice(("steps",)),
            "until": Choice(("end",)),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        retain, level = retain_loss(self.retain, problem.model), Level(self.refresh, self.how)
        restored = self.restored(problem, retain) if self.until == "restored" else None
        forget = self.weight * (level.objective if self.forget == "level" else self.forgetting(problem))
        moving = self.moving(problem)
        if self.keep < 1:
            shrink_and_perturb(problem, self.keep, moving)
        if self.redraw:
            trim(problem, self.redraw, eligible=self.eligible, within=moving)
        if self.forget == "level":
            level.look(problem)
        forget = self.balanced(problem, retain, forget, moving)
        alpha = self.step_size(problem, retain, forget, moving)
        probe = Probe(retain, forget, every=self.probe, where=moving)

        def watch(problem: Problem, index: int) -> None:
            if self.probe:
                probe(problem, index)
            if self.forget == "level":
                level(problem, index)

        terms = self.terms(retain, forget, alpha)
        # the original does not diverge from itself, and a level may be reached from the start
        idle = self.forget == "level" or self.retain == "distill"
        forgetting = Phase(terms, self.rule, moving, self.feed, idle, watch=watch)
        self.follow(problem, forgetting, Phase([retain], where=moving), restored)

    def follow(
        self, problem: Problem, forgetting: Phase, recovering: Phase, restored: Restored | None
    ) -> None:
        """Forgets, then recovers, under one schedule or until the model is restored."""
        (steps,), mending = lengths_of(problem, [forgetting], self.how), self.recovery(problem, recovering)
        whole = replace(self.how, steps=steps + mending, epochs=None)
        phases = [replace(forgetting, share=steps), replace(recovering, share=mending)][: 1 + bool(mending)]
        if restored is None or not mending:
            descend(problem, whole, *phases)
            return
        average = AVERAGE if self.how.ema is None else self.how.ema
        whole = replace(whole, schedule="constant", warmup=0.0, ema=average)
        descend(problem, whole, phases[0], replace(phases[1], until=restored))
        mending -= self.how.stop_every * len(restored.seen)
        while mending > 0 and restored.stands and not restored.reached:
            restored, whole = replace(restored, seen=[]), replace(whole, lr=whole.lr / 2, steps=mending)
            descend(problem, whole, replace(recovering, until=restored))
            mending -= self.how.stop_every * len(restored.seen)

    def recovery(self, problem: Problem, phase: Phase) -> int:
        """The number of steps of recovery, at most."""
        if self.recover_in == "steps" or not self.recover:
            return round(self.recover)
        return steps_in(problem, phase, self.how, self.recover)

    def restored(self, problem: Problem, retain: Objective) -> Restored:
        """The question that ends a measured recovery, while the model is still the original."""
        a_pass = steps_in(problem, Phase([retain]), self.how, 1.0) / self.how.stop_every
        return Restored.of(problem, self.how, self.near, patience=max(LOOKS, round(a_pass)))

    def terms(self, retain: Objective, forget: Objective, alpha: float) -> list[Term]:
        """The rows of the mode; the first always carries the retain loss."""
        match self.mode:
            case "nested":
                return nested(retain, forget, alpha)
            case "lagged":
                return lagged(retain, forget, alpha)
            case "exact":
                return exact(retain, forget, alpha)
            case "first-order":
                return exact(retain, forget, alpha, hessian=None)
            case "joint":
                return [retain, forget]

    def forgetting(self, problem: Problem) -> Objective:
        """The forget objective that stays as it is, made while the model is still the original."""
        if self.forget == "match":
            proxy = self.proxy(problem)
            if self.sharpen is None and isinstance(problem.task, Classifier):
                return toward(held_out_level(problem, proxy))
            return distill(proxy, "forget", temperature=self.sharpen or 1.0)
        if self.forget == "quantile":
            return pull(quantiles(problem, self.proxy(problem) if self.ranks == "proxy" else problem.model))
        if self.forget == "estimate":
            return toward(estimator_named(self.estimator, self.proxy)(problem).table(problem))
        assert self.forget != "level"
        teacher = frozen(problem.model) if self.forget == "mislabel" else None
        return forget_loss(self.forget, cap=self.cap, teacher=teacher)

    def moving(self, problem: Problem) -> Mask | None:
        """The weights that may move; None for all."""
        masks = [] if self.where is None else [named(problem.params, self.where)]
        if self.fraction is not None:
            masks.append(top(saliency(problem, nll("forget")), self.fraction))
        return multiplied(masks) if masks else None

    def balanced(
        self, problem: Problem, retain: Objective, forget: Objective, moving: Mask | None
    ) -> Objective:
        """The weighted forget loss in the unit that `weight_in` says."""
        if self.weight_in == "absolute":
            return forget
        pull, push = norms_of_gradients(problem, self.how, moving, retain, forget)
        return (self.weight * pull / push) * forget

    def step_size(self, problem: Problem, retain: Objective, forget: Objective, moving: Mask | None) -> float:
        """The absolute alpha, checked against the bound of mode "lagged".

        Raises:
            ValueError: If lagged would not converge: it needs alpha^2 h_r h_u < 1 with h the top curvatures
                of the retain loss and the weighted forget loss, and is refused above 0.7 of that alpha.
        """
        lagged = self.mode == "lagged"
        if self.mode == "joint" or (self.alpha_in == "absolute" and not lagged):
            return self.alpha
        with training(problem.model, self.how):
            step = first_step(problem, self.how, moving, retain, forget)
            unit = float(curvature_along(step, retain)) if self.alpha_in == "along" else 1.0
            top = lagged or self.alpha_in == "curvature"
            h_r = float(top_eigenvalue(problem, retain, step)) if top else 0.0
            unit = h_r if self.alpha_in == "curvature" else unit
            h_u = float(top_eigenvalue(problem, forget, step)) if lagged else 0.0
        if not unit:
            raise ValueError(
                f"alpha_in={self.alpha_in!r} needs a curvature that is not zero: use alpha_in='absolute'"
            )
        alpha = self.alpha / unit
        bound = (h_r * h_u) ** -0.5 if h_r * h_u > 0 else float("inf")
        if alpha > 0.7 * bound:
            raise ValueError(
                f"mode 'lagged' converges below alpha {bound:.3g} here and is used below 0.7 of that, "
                f"found {alpha:.3g}: lower alpha, or use mode 'nested'"
            )
        return alpha


def steps_in(problem: Problem, phase: Phase, how: Descent, epochs: float) -> int:
    """The number of steps in so many passes."""
    (steps,) = lengths_of(problem, [phase], replace(how, steps=None, epochs=epochs))
    return steps


UNTUNED = LUR(
    alpha=1.0,
    alpha_in="along",
    weight_in="gradients",
    forget="clamped",
    keep=0.6,
    redraw=0.0,
    recover=30,
    recover_in="epochs",
    until="restored",
    how=replace(LUR().how, lr=0.2, steps=20),
)
"""Settings for a model that nobody searches settings for: what can be measured at the start is.

The looked-ahead step is as long as the curvature along it allows, the forgetting gradient is at first a
fixed fraction of the retaining one, and recovery ends when the retained data is known again. The numbers
that are left were chosen on `records/hyperparameters.json`; see docs/hyperparameters.md.
"""
