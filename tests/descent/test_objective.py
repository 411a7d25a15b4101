"""Objectives: their algebra, their gradients, and the mean that micro-batches must not change."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import every_family
from for_each import for_each
from smooth import MODES, batch, direction, flat, net, problem, step
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.lookahead import Lookahead
from unweave.descent.objective import (
    Objective,
    bounded,
    clamped,
    distill,
    ewc,
    l1,
    mislabel,
    nll,
    on,
    retain_loss,
    surrogate,
    uniform,
)
from unweave.problem import Problem, frozen_copy
from unweave.targets import TARGETS
from unweave.tasks import Batch
from unweave.tasks.diffusion import Diffusion
from unweave.weights.step import Step


def teacher() -> nn.Module:
    return frozen_copy(net(5))


def penalty() -> Objective:
    start = {name: torch.randn_like(p).detach() for name, p in net().named_parameters()}
    return ewc(start, {name: p.abs() for name, p in start.items()})


EACH = {
    "nll": lambda: nll("retain"),
    "ascent": lambda: -nll("forget"),
    "bounded": bounded,
    "clamped": lambda: clamped(cap=1.2),
    "mislabel": mislabel,
    "uniform": uniform,
    "distill": lambda: distill(teacher(), "retain", temperature=0.7),
    "l1": lambda: l1(lambda progress: 1 - progress),
    "ewc": penalty,
    "sum": lambda: nll("retain") + 0.3 * bounded() - 2 * uniform() + 0.1 * penalty(),
}


def value(objective: Objective, at: Step) -> float:
    with torch.no_grad():
        return float(sum(at.recompute_losses(objective.losses(at))))


@for_each("name", EACH)
def test_gradients_are_slopes(name: str):
    """A central difference along a random direction, for every objective."""
    of, objective = problem(), EACH[name]()
    at = step(of)
    vector = {n: torch.randn_like(p) for n, p in of.params.items()}
    expected = float(flat(at.gradient(objective)) @ flat(vector))
    ends = []
    for size in (1e-5, -1e-5):
        with at.at(vector, size) as shifted_step:
            ends.append(value(objective, shifted_step))
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(expected, rel=1e-6)
    assert abs(expected) > 1e-3


def test_the_algebra_is_that_of_the_values():
    of = problem()
    a, b = nll("retain"), bounded()
    va, vb = value(a, step(of)), value(b, step(of))
    assert value(a + b, step(of)) == pytest.approx(va + vb, abs=1e-14)
    assert value(a - b, step(of)) == pytest.approx(va - vb, abs=1e-14)
    assert value(-(2 * a - 3 * b), step(of)) == pytest.approx(-2 * va + 3 * vb, abs=1e-14)
    assert value(0.5 * (a + 4 * a), step(of)) == pytest.approx(2.5 * va, abs=1e-14)


def test_the_gradient_of_a_sum_is_the_sum_of_gradients():
    of = problem()
    a, b, c = nll("retain"), bounded(), penalty()
    fused_gradient = step(of).gradient(a + 0.3 * b + 2 * c)
    parts = [flat(step(of).gradient(term)) for term in (a, b, c)]
    assert torch.allclose(flat(fused_gradient), parts[0] + 0.3 * parts[1] + 2 * parts[2], rtol=0, atol=1e-14)


def test_it_says_what_it_needs_and_what_it_is():
    objective = nll("retain") + 0.3 * -nll("forget") + penalty()
    assert objective.parts == {"retain", "forget"}
    assert objective.name == "nll(retain) + -0.3 nll(forget) + ewc"
    assert penalty().parts == frozenset()


def test_what_is_absent_is_left_out():
    of = problem()
    retain_batches = {"retain": step(of).batches["retain"]}
    terms = nll("retain") + bounded()
    assert terms.present(step(of, retain_batches))
    assert not bounded().present(step(of, retain_batches))
    assert penalty().present(step(of, {}))
    assert torch.equal(flat(step(of, retain_batches).gradient(terms)), flat(step(of).gradient(nll("retain"))))


def test_two_losses_on_one_batch_share_a_forward_pass():
    of, calls = problem(), []
    hook = of.model.register_forward_hook(lambda *_: calls.append(1))
    step(of).gradient(bounded() + uniform() + mislabel())
    hook.remove()
    assert len(calls) == 1
    assert of.cost.gradients == 1


def test_the_mean_is_over_examples_whatever_the_micro_batches():
    of = problem()
    objective = EACH["sum"]()
    full = step(of)
    pieces = {part: some[0].split(5) for part, some in full.batches.items()}
    assert [len(b) for b in pieces["forget"]] == [5, 5, 2]
    at = step(of, pieces)
    assert torch.allclose(flat(at.gradient(objective)), flat(full.gradient(objective)), rtol=0, atol=1e-13)
    (a,), (b,) = (
        [sum(map(float, shares)) for name, shares in each.runtime.losses if name == "nll(retain)"]
        for each in (full, at)
    )
    assert a == pytest.approx(b, abs=1e-14)


def test_a_batch_is_cut_with_all_that_was_drawn():
    of = problem()
    full = batch(of, range(7))
    marked = Batch(full.ids, {"x": full.inputs[0]}, full.target, full.counterfactual, full.ids < 3)
    pieces = marked.split(3)
    assert [len(p) for p in pieces] == [3, 3, 1]
    for name in ("ids", "target", "other", "forget"):
        assert torch.equal(torch.cat([getattr(piece, name) for piece in pieces]), getattr(marked, name))
    assert torch.equal(torch.cat([p.inputs["x"] for p in pieces]), marked.inputs["x"])
    assert marked.split(7) == [marked]


def test_only_forget_rows_of_mixed_data_are_mislabelled():
    of = problem()
    plain = batch(of, range(8))
    mixed_batch = Batch(
        plain.ids, plain.inputs, plain.target, plain.counterfactual, of.split.is_forget[plain.ids]
    )
    targets: list[Tensor] = []
    of.task = Recording(of.task, targets)
    step(of, {"mixed": [mixed_batch]}).gradient(mislabel("mixed"))
    assert torch.equal(targets[0], torch.where(of.split.is_forget[:8], plain.other, plain.target))
    assert bool((targets[0] != plain.target).any())
    assert not bool((plain.other == plain.target).any())


class Recording:
    """A task that remembers the targets it scored."""

    def __init__(self, task, targets: list[Tensor]) -> None:
        self.task, self.seen = task, targets

    def draw(self, raw, generator) -> Batch:
        return self.task.draw(raw, generator)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        self.seen.append(target)
        return self.task.loss(output, target)

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return self.task.divergence(output, reference)

    def mislabel(self, batch: Batch, predict) -> Tensor:
        return self.task.mislabel(batch, predict)


# --- teachers


def test_a_teacher_is_asked_once_a_step_also_at_shifted_weights():
    of, calls = problem(), []
    teacher_model = teacher()
    teacher_model.register_forward_hook(lambda *_: calls.append(1))
    at = step(of)
    objective = distill(teacher_model, "retain")
    with at.at(at.gradient(objective), -0.1) as shifted_step:
        shifted_step.gradient(objective)
    assert len(calls) == 1
    step(of).gradient(objective)
    assert len(calls) == 2


def test_two_teachers_and_two_temperatures_are_kept_apart():
    of = problem()
    first, second = teacher(), frozen_copy(net(6))
    for a, b in (
        (distill(first, "retain"), distill(second, "retain")),
        (distill(first, "retain"), distill(first, "retain", temperature=0.5)),
    ):
        at = step(of)
        assert not torch.equal(flat(at.gradient(a)), flat(at.gradient(b)))
        assert torch.equal(flat(at.gradient(b)), flat(step(of).gradient(b)))


@pytest.mark.parametrize("make", [lambda m: distill(m, "retain"), lambda m: mislabel(teacher=m)])
def test_a_teacher_that_moves_is_refused(make):
    with pytest.raises(ValueError, match="must not move, and this one has trainable weights"):
        make(net())


def test_a_task_that_asks_a_teacher_must_be_given_one():
    of = problem()

    class Asking(Recording):
        def mislabel(self, batch: Batch, predict) -> Tensor:
            return predict(batch.inputs).argmax(1)

    of.task = Asking(of.task, [])
    with pytest.raises(ValueError, match=r"pass teacher=frozen_copy\(model\)"):
        step(of).gradient(mislabel())
    step(of).gradient(mislabel(teacher=teacher()))


def test_frozen_is_a_copy_that_stays():
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))
    frozen_model = frozen_copy(model)
    assert not frozen_model.training
    assert model.training
    assert not any(p.requires_grad for p in frozen_model.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert frozen_model[0].weight is not model[0].weight


# --- limits


def test_uniform_is_for_classifiers():
    of = problem()
    of.model = nn.Sequential(net(), nn.Unflatten(1, (2, 2)))
    with pytest.raises(ValueError, match=r"needs logits of shape \[batch, class\], found \[12, 2, 2\]"):
        step(of).gradient(uniform())


@for_each("name", ["bounded", "ascent", "clamped", "mislabel", "uniform"])
def test_forget_losses_raise_the_loss_when_descended(name):
    of, how = problem(), Descent(lr=0.05, steps=10, max_norm=1.0)
    descend(of, Descent(lr=0.2, steps=40), Phase([nll("mixed")]))
    before = value(nll("forget"), step(of))
    descend(of, how, Phase([TARGETS[name](of, how)]))
    assert value(nll("forget"), step(of)) > before + 0.05


def test_clamped_leaves_an_example_alone_once_it_has_reached_the_cap():
    of = problem()
    (forget,) = step(of).batches["forget"]
    with torch.no_grad():
        losses = of.task.loss(of.model(*forget.inputs), forget.target)
    cap = float(losses.sort().values[5:7].mean())  # at a loss itself, rounding would decide
    low_batch = batch(of, forget.ids[losses < cap])
    assert len(low_batch) == 6 and len(forget) == 12
    expected = len(low_batch) / len(forget) * flat(step(of, {"forget": [low_batch]}).gradient(-nll("forget")))
    assert torch.allclose(flat(step(of).gradient(clamped(cap=cap))), expected, rtol=0, atol=1e-14)


def test_l1_follows_the_progress():
    of = problem()
    size = float(flat(of.params).abs().sum())
    assert value(l1(lambda progress: 1 - progress), step(of, index=25)) == pytest.approx(0.75 * size)


def test_curves_hold_each_loss_once_a_step_at_its_own_name():
    of = problem()
    objective = nll("retain") + 0.3 * -nll("forget")
    descend(of, Descent(lr=0.01, steps=3, batch=12, forget_batch=6, micro_batch=4), Phase([objective]))
    assert {name: len(curve) for name, curve in of.curves.items()} == {"nll(retain)": 3, "nll(forget)": 3}
    assert all(0.2 < loss < 5 for curve in of.curves.values() for loss in curve)


def test_a_users_own_loss_is_one_line():
    of: Problem = problem()
    brier = on("retain", "brier", lambda at, b: (at.predict(b).softmax(1) ** 2).sum(1))
    assert brier.name == "brier(retain)"
    assert 0 < value(brier, step(of)) <= 1
    assert math.isfinite(float(flat(step(of).gradient(brier)).norm()))


@pytest.mark.parametrize("parts", [1, 3])
def test_the_surrogate_is_the_training_loss_on_what_the_task_puts_there(parts: int):
    of = every_family.problem("denoiser", dtype=torch.float64, whole_class=True)
    at = step(of)
    (forget_batch,) = at.batches["forget"]
    cut_step = step(of, {"forget": forget_batch.split(len(forget_batch) // parts)})
    gradient = flat(cut_step.gradient(surrogate()))
    at.batches["forget"][:] = [of.task.surrogate(forget_batch)]
    assert torch.allclose(gradient, flat(at.gradient(nll("forget"))), rtol=0, atol=1e-12)
    assert not torch.allclose(gradient, flat(cut_step.gradient(nll("forget"))), rtol=0.1)


def test_a_surrogate_is_drawn_once_for_the_step_and_its_lookaheads():
    of = every_family.problem("denoiser", dtype=torch.float64, whole_class=True)
    batches = []

    @dataclass(frozen=True)
    class Counting(Diffusion):
        def surrogate(self, batch: Batch) -> Batch:
            batches.append(batch)
            return super().surrogate(batch)

    of.task = Counting(**vars(of.task))
    direction(step(of), MODES["nested"](nll("retain"), surrogate(), 0.01))
    assert len(batches) == 1


def test_a_task_without_a_surrogate_is_refused():
    with pytest.raises(ValueError, match="surrogate loss needs other data .* task Classifier draws none"):
        step(problem()).gradient(surrogate())


def test_retain_losses_of_each_name():
    of = problem()
    data, both, distillation = (retain_loss(name, of) for name in ("nll", "both", "distill"))
    with torch.no_grad():
        of.model[0].weight.mul_(1.3)
    at, original = step(of), distill(frozen_copy(problem().model), "retain")
    assert torch.equal(flat(at.gradient(data)), flat(at.gradient(nll("retain"))))
    assert torch.equal(flat(at.gradient(distillation)), flat(at.gradient(original)))
    expected = flat(at.gradient(data)) + flat(at.gradient(distillation))
    assert torch.allclose(flat(at.gradient(both)), expected, rtol=0, atol=1e-14)
    assert not bool(
        flat(step(problem()).gradient(distillation)).abs().max() > 1e-12
    )  # the original is where it was


def test_a_teacher_that_is_the_student_answers_as_the_weights_are_now():
    of = every_family.problem("denoiser", dtype=torch.float64)
    at, original_model = step(of), frozen_copy(of.model)
    by_student, by_original = mislabel(teacher="student"), mislabel(teacher=original_model)
    assert (
        by_student.follows_weights
        and not by_original.follows_weights
        and (nll("retain") + 0.3 * by_student).follows_weights
    )
    assert torch.equal(flat(at.gradient(by_student)), flat(at.gradient(by_original)))
    with torch.no_grad():
        of.model.condition.weight.mul_(3)
    moved_step = step(of)
    assert torch.equal(
        flat(moved_step.gradient(by_student)),
        flat(moved_step.gradient(mislabel(teacher=frozen_copy(of.model)))),
    )
    assert not torch.equal(flat(moved_step.gradient(by_student)), flat(moved_step.gradient(by_original)))


@for_each("mode", ["nested", "lagged", "exact", "first-order"])
def test_no_lookahead_follows_a_target_that_moves(mode: str):
    of = every_family.problem("denoiser", dtype=torch.float64)
    terms = MODES[mode](nll("retain"), 0.3 * mislabel(teacher="student"), 0.1)
    with pytest.raises(
        ValueError, match="target of 0.3 mislabel.forget. changes with the weights.* frozen teacher"
    ):
        direction(step(of), terms)
    through = Lookahead(nll("retain"), through=mislabel(teacher="student"), lr=0.1)
    with pytest.raises(ValueError, match="changes with the weights"):
        step(of).gradient(through)
