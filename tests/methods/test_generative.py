"""Methods for denoisers: first steps against arithmetic written out, in float64, and numbers by hand."""

import copy
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from for_each import for_each

pytest.importorskip("diffusers")

from noisy import error, error_on, on_the_way, recorded, whole
from plain import Sgd, dot, grad, moved_apart
from smooth import Vector, flat, quadratic, step, vector_problem
from unweave.data.in_memory import Resident
from unweave.data.keyed_draws import normal, uniform
from unweave.descent.objective import Objective, clamped, distill, mislabel, nll, surrogate
from unweave.methods.erasediff import ConflictGradient, EraseDiff
from unweave.methods.esd import ESD, sample_partway
from unweave.methods.sa import SelectiveAmnesia
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.tasks import Batch
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sampler import Sampler
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

TIGHT = 1e-12


# --- ESD


class Constant(nn.Module):
    """A denoiser that says one number under each condition."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.said = nn.Parameter(torch.tensor(numbers, dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.said[condition].view(-1, 1, 1, 1).expand_as(x)


# the student says 7 under class 1, which is forgotten; the original 2, 5, 4 under the classes and 1 without
STUDENT, ORIGINAL = (2.0, 7.0, 4.0, 1.0), (2.0, 5.0, 4.0, 1.0)


def make_step(**settings) -> tuple[Step, Batch]:
    """A student at a step over four examples of class 1, and what was drawn of them."""
    model, task = Constant(*STUDENT), Diffusion(3, null=3, forgotten=(1,), **settings)
    source = Resident(torch.zeros(4, 1, 2, 2, dtype=torch.float64), torch.ones(4, dtype=torch.long))
    batch = task.draw(next(iter(source.stream([torch.arange(4)]))), torch.Generator().manual_seed(0))
    sizes = {"forget": 4, "retain": 4}
    parts = {"forget": [batch], "retain": [batch]}
    return Step(dict(model.named_parameters()), Runtime(model, task), parts, sizes), batch


def total_loss(objective: Objective, at: Step) -> float:
    with torch.no_grad():
        return float(sum(objective.losses(at)))


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"other": "next"}, 4.0),
        ({"other": "fixed", "anchor": 0}, 2.0),
        ({"other": "null"}, 1.0),
        ({"other": "away", "away": 0.5}, 1 - 0.5 * (5 - 1)),
    ],
    ids=["next", "fixed", "null", "away"],
)
def test_the_answer_under_another_condition_is_the_targets_by_hand(settings: dict, target: float):
    at, _ = make_step(**settings)
    loss = total_loss(mislabel(teacher=frozen_copy(Constant(*ORIGINAL))), at)
    assert loss == pytest.approx((7 - target) ** 2, rel=TIGHT)


def test_the_other_losses_of_a_denoiser_by_hand():
    at, batch = make_step(other="noise")
    original = frozen_copy(Constant(*ORIGINAL))
    errors = (7 - batch.target).square().mean((1, 2, 3))
    assert total_loss(nll("retain"), at) == pytest.approx(float(errors.mean()), rel=TIGHT)
    assert total_loss(-nll("forget"), at) == pytest.approx(-float(errors.mean()), rel=TIGHT)
    cap = float(errors.median())
    expected = -float(errors.clamp(max=cap).mean())
    assert total_loss(clamped(cap=cap), at) == pytest.approx(expected, rel=TIGHT)
    instead = at.runtime.task.surrogate(batch).target
    assert total_loss(surrogate(), at) == pytest.approx(float((7 - instead).square().mean()), rel=TIGHT)
    noise = at.runtime.task.mislabel(batch, lambda inputs: pytest.fail("noise is nobody's answer"))
    assert not torch.allclose(noise, batch.target)
    assert total_loss(mislabel(teacher=original), at) == pytest.approx(
        float((7 - noise).square().mean()), rel=TIGHT
    )
    assert total_loss(distill(original, "forget"), at) == total_loss(distill(original, "retain"), at) == 4.0


def make_guided_batch(method: ESD, answers: tuple[float, ...]) -> Batch:
    """The batch that a method makes of four examples of class 1, of a model of two classes."""
    model, task = Constant(*answers), Diffusion(2, null=2)
    source = Resident(torch.zeros(4, 1, 2, 2, dtype=torch.float64), torch.ones(4, dtype=torch.long))
    batch = task.draw(next(iter(source.stream([torch.arange(4)]))), torch.Generator().manual_seed(0))
    at = Step(dict(model.named_parameters()), Runtime(model, task), {"forget": [batch]}, {"forget": 4})
    return method.guided_batch(task, frozen_copy(model), at, batch)


# the model says 2 under class 0, 5 under class 1, which is forgotten, and 1 without a condition
@for_each(
    ("erase_from", "eta", "target", "trained"),
    [
        ("null", 0.5, 1 - 0.5 * (5 - 1), 1),
        ("class", 0.5, 5 - 0.5 * (5 - 1), 1),
        (0, 0.5, 2 - 0.5 * (5 - 1), 0),
        ("null", 1.0, -3.0, 1),
        ("class", 2.0, -3.0, 1),  # the release of 2025 at its default is the first one at its own
    ],
)
def test_the_target_of_esd_by_hand(erase_from, eta: float, target: float, trained: int):
    guided_batch = make_guided_batch(ESD(eta=eta, erase_from=erase_from, images="data"), (2.0, 5.0, 1.0))
    assert guided_batch.target.unique().tolist() == [target]
    assert guided_batch.inputs[2].tolist() == [trained] * 4


def test_twice_away_from_the_class_is_once_away_from_no_condition():
    (first, _), (second, _) = recorded(), recorded()
    whole(ESD(images="original"), steps=3)(first)
    whole(ESD(images="original", erase_from="class", eta=2.0), steps=3)(second)
    assert moved_apart(first.model, second.model) < TIGHT


@pytest.mark.parametrize("images", ["data", "original", "student"])
@for_each("erase_from", ["null", "class", 0])
def test_esd(images: str, erase_from):
    of, recorder = recorded()
    plain, original = copy.deepcopy(of.model), frozen_copy(of.model)
    sampler = Sampler(steps=5, guidance=3.0, spacing="leading")
    method = whole(ESD(eta=0.7, erase_from=erase_from, images=images, sampler=sampler), steps=2)
    method(of)
    sgd = Sgd(plain, method.how)
    for batch in recorder.drawn:
        x, time, label = batch.inputs.values()
        trained = torch.full_like(label, erase_from) if isinstance(erase_from, int) else label
        drawer = original if images == "original" else copy.deepcopy(plain)
        if images != "data":
            x = torch.stack([draw_image(drawer, batch, i, int(trained[i]), x) for i in range(len(batch))])
        with torch.no_grad():
            null, conditional = original(x, time, torch.full_like(label, 4)), original(x, time, label)
            start = {"null": null, "class": conditional}.get(str(erase_from), original(x, time, trained))
        sgd.step(grad(plain, error(plain, x, time, trained, start - 0.7 * (conditional - null))))
    # the betas of diffusers are float32
    assert moved_apart(of.model, plain) < (TIGHT if images == "data" else 1e-8)
    assert moved_apart(of.model, original) > 1e-3


def test_the_student_draws_with_its_own_weights():
    (first, _), (second, _) = recorded(), recorded()
    for of, images in ((first, "student"), (second, "original")):
        whole(ESD(images=images), steps=2)(of)
    assert first.curves["esd(forget)"][0] == second.curves["esd(forget)"][0]
    assert moved_apart(first.model, second.model) > 1e-6


@torch.no_grad()
def draw_image(model: nn.Module, batch: Batch, i: int, condition: int, like: Tensor) -> Tensor:
    """The image of one example on its way, from the noise of its id."""
    size = like[0].numel()
    noise = normal(uniform(batch.ids[i : i + 1], batch.key, 3 + size)[:, 3:]).view(like[0].shape)
    bin_of_five = int(batch.inputs["time"][i]) // 200
    return on_the_way(model, noise, condition, 4, 4 - bin_of_five, steps=5, scale=3.0)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_image_on_its_way_does_not_depend_on_those_beside_it(guidance: float):
    of, recorder = recorded()
    how, labels = Sampler(steps=6, guidance=guidance, spacing="leading"), torch.tensor([3, 0, 3, 1])
    noise = torch.randn(4, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stop = torch.tensor([0, 5, 2, 5])
    with torch.no_grad():
        images = sample_partway(of.model, recorder, noise, labels, stop, how)
        assert torch.equal(images[0], noise[0])
        for i in range(4):
            single = sample_partway(of.model, recorder, *(v[i : i + 1] for v in (noise, labels, stop)), how)[
                0
            ]
            torch.testing.assert_close(images[i], single, rtol=0, atol=1e-12)
            by_hand = on_the_way(of.model, noise[i], int(labels[i]), 4, int(stop[i]), steps=6, scale=guidance)
            torch.testing.assert_close(
                images[i], by_hand, rtol=0, atol=1e-5
            )  # betas of diffusers are float32


# --- Selective Amnesia


class Linear(nn.Module):
    """A denoiser of one pixel and one weight: it says that the noise is w x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return self.w * x


def one_pixel(n: int, task: Diffusion) -> Problem:
    """A request to forget a black pixel among others of two classes."""
    source = Resident(torch.zeros(n, 1, 1, 1, dtype=torch.float64), torch.arange(n) % 2)
    return Problem(task, Linear(), Split(source, [0], source), torch.Generator().manual_seed(0))


def squares(batches: list[Batch]) -> list[float]:
    r"""The gradient 2 x (w x - noise) of one example each, by hand."""
    return [2 * float(b.inputs[0] * (0.4 * b.inputs[0] - b.target)) for b in batches]


def test_the_fisher_information_of_a_linear_denoiser_by_hand():
    class Remembering(Diffusion):
        def draw(self, raw, generator):
            drawn_batches.append(super().draw(raw, generator))
            return drawn_batches[-1]

    drawn_batches: list[Batch] = []
    of = one_pixel(7, Remembering(2))
    (samples,) = SelectiveAmnesia(fisher_times=3).information(of).values()
    gs = squares(drawn_batches)
    assert len(gs) == 3 * 6 and float(samples) == pytest.approx(sum(g * g for g in gs) / 18, rel=1e-12)
    drawn_batches.clear()
    (released_estimate,) = SelectiveAmnesia(fisher_times=3, estimator="released").information(of).values()
    gs = squares(drawn_batches)
    expected = sum(sum(gs[i : i + 3]) ** 2 for i in range(0, 18, 3)) / 6
    assert float(released_estimate) == pytest.approx(expected, rel=1e-12)
    drawn_batches.clear()
    (batches,) = whole(SelectiveAmnesia(fisher_times=2, estimator="batches")).information(of).values()
    slopes = [float((2 * b.inputs[0] * (0.4 * b.inputs[0] - b.target)).mean()) for b in drawn_batches]
    assert len(slopes) == 2 and float(batches) == pytest.approx(sum(g * g for g in slopes) / 2, rel=1e-12)
    drawn_batches.clear()
    assert SelectiveAmnesia(fisher_images=2).information(of).keys() == {"w"} and len(drawn_batches) == 2


def test_the_fisher_information_converges_to_its_expectation():
    # a black pixel is s e at time t, so that g = 2 s (w s - 1) e^2, and the mean of e^4 is 3
    spread = (1 - (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)).sqrt()
    expected = float((12 * (spread * (0.4 * spread - 1)).square()).mean())
    (estimate,) = SelectiveAmnesia(fisher_times=3).information(one_pixel(200, Diffusion(2))).values()
    # the deviation of e^4 is 9.8, that is 3.3 of its mean, over the root of 597 draws, always the same
    assert float(estimate) == pytest.approx(expected, rel=2 * 3.3 / 597**0.5)


def test_selective_amnesia():
    of, recorder = recorded()
    plain = copy.deepcopy(of.model)
    method = whole(SelectiveAmnesia(retain_weight=0.8, pull=5.0, replay="real", fisher_times=2), steps=3)
    method(of)
    retained, sgd = len(of.split.retain), Sgd(plain, method.how)
    singles, steps = recorder.drawn[: 2 * retained], recorder.drawn[2 * retained :]
    squared_gradients = [[g.square() for g in grad(plain, error_on(plain, batch))] for batch in singles]
    fisher = [sum(gs) / len(singles) for gs in zip(*squared_gradients, strict=True)]
    start = [p.detach().clone() for p in plain.parameters()]
    assert len(steps) == 6
    for forget, retain in zip(steps[::2], steps[1::2], strict=True):
        assert set(forget.inputs["condition"].tolist()) == {3}
        loss = error_on(plain, recorder.surrogate(forget)) + 0.8 * error_on(plain, retain)
        pulls = [
            (f * (p - s).square()).sum() for f, p, s in zip(fisher, plain.parameters(), start, strict=True)
        ]
        sgd.step(grad(plain, loss + 5.0 * torch.stack(pulls).sum()))
    assert moved_apart(of.model, plain) < TIGHT


def test_the_replay_is_of_the_retained_classes_and_of_the_original():
    of, _ = recorded()
    method = SelectiveAmnesia(per_class=4, sampler=Sampler(steps=3))
    split = method.replay_split(of)
    images, labels = split.train.inputs, split.train.labels
    assert labels[split.retain].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert labels[split.forget].tolist() == [3] * len(of.split.forget)
    second, _ = recorded()
    assert torch.equal(method.replay_split(second).train.inputs, images)  # the seed alone decides
    assert of.cost.examples == 12 * 3
    with torch.no_grad():
        second.model.last.weight.mul_(2)
    second.memory.clear()
    assert not torch.equal(method.replay_split(second).train.inputs[split.retain], images[split.retain])


def test_of_the_forget_images_nothing_is_read():
    def forgets(images: float) -> nn.Module:
        of, _ = recorded()
        inputs, forget_ids = of.split.train.inputs[0].clone(), of.split.forget
        inputs[forget_ids] = images
        source = Resident(inputs, of.split.train.labels)
        of.split = Split(source, forget_ids, of.split.held_out)
        whole(SelectiveAmnesia(per_class=4, sampler=Sampler(steps=3)), steps=3)(of)
        return of.model

    assert moved_apart(forgets(0.0), forgets(0.7)) == 0


# --- EraseDiff


def steps_of(recorder, of: Problem, count: int) -> list[tuple[Batch, Batch]]:
    """The forget and the retain batch of each of the steps drawn last."""
    last = recorder.drawn[-2 * count :]
    assert all(bool(of.split.is_forget[b.ids].all()) for b in last[::2])
    return list(zip(last[::2], last[1::2], strict=True))


@pytest.mark.parametrize("weight", [0.3, None])
@for_each("eta", [0.1, 1.5])
def test_erasediff(weight: float | None, eta: float):
    of, recorder = recorded()
    plain, original = copy.deepcopy(of.model), frozen_copy(of.model)
    method = whole(EraseDiff(weight=weight, eta=eta, passes=0), steps=3)
    method(of)
    sgd, weights = Sgd(plain, method.how), []
    for forget, retain in steps_of(recorder, of, 3):
        x, time, _ = forget.inputs.values()
        with torch.no_grad():
            other = original(x, time, forget.other)
        g_r, g_f = grad(plain, error_on(plain, retain)), grad(plain, error_on(plain, forget, other))
        cosine = dot(g_r, g_f) / (dot(g_r, g_r) * dot(g_f, g_f)) ** 0.5
        weights.append(max(0.0, eta - cosine) if weight is None else weight)
        sgd.step([r + weights[-1] * f for r, f in zip(g_r, g_f, strict=True)])
    assert any(weights) and moved_apart(of.model, plain) < TIGHT


def test_the_value_function_is_the_mean_loss_of_passes_that_are_undone():
    of, recorder = recorded()
    original, inner = frozen_copy(of.model), copy.deepcopy(of.model)
    method = whole(EraseDiff(outer=2, passes=2), steps=4)
    method(of)
    inner_batches = recorder.drawn[2:4]  # after the batches of the first step
    losses, sgd = [], Sgd(inner, method.how)
    for batch in inner_batches:
        assert sorted(batch.ids.tolist()) == of.split.forget.tolist()
        x, time, _ = batch.inputs.values()
        loss = error_on(inner, batch, original(x, time, batch.other))
        losses.append(float(loss.detach()))
        sgd.step(grad(inner, loss))
    looks = of.traces["least forget loss"]
    assert [index for index, _, _ in looks] == [0, 2]
    assert looks[0][1] == pytest.approx(sum(losses) / 2, rel=1e-10)
    first = recorder.drawn[0]
    x, time, _ = first.inputs.values()
    gap = float(error_on(original, first, original(x, time, first.other))) - looks[0][1]
    assert of.curves["gap(forget)"][0] == pytest.approx(gap, rel=1e-9)


def test_the_value_function_changes_no_weight_and_is_charged():
    problems = {}
    for passes in (0, 2):
        problems[passes], _ = recorded()
        whole(EraseDiff(passes=passes, outer=2), steps=4)(problems[passes])
    assert moved_apart(problems[0].model, problems[2].model) == 0
    assert problems[2].cost.gradients == problems[0].cost.gradients + 4
    assert "least forget loss" not in problems[0].traces


@for_each(("eta", "expected"), [(0.0, [1.0, 0.0]), (0.6, [1.0, 0.0]), (0.8, [1.12, 0.16])])
def test_the_weight_follows_the_conflict_by_hand(eta: float, expected: list[float]):
    # at the origin the gradients are (1, 0) and (0.6, 0.8): their cosine is 0.6
    of, eye = vector_problem(torch.zeros(2, dtype=torch.float64)), torch.eye(2, dtype=torch.float64)
    terms = [quadratic(eye, torch.tensor(c, dtype=torch.float64)) for c in ([-1.0, 0.0], [-0.6, -0.8])]
    gradient: Mapping[str, Tensor] = step(of, {}).gradient(ConflictGradient(*terms, eta))
    assert isinstance(of.model, Vector) and flat(gradient).tolist() == pytest.approx(expected, abs=1e-12)
