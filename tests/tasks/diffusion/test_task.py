import inspect
from dataclasses import replace
from math import sqrt

import pytest
import torch
from scipy import stats
from torch import Tensor

from for_each import for_each
from unweave.data import Raw
from unweave.data.in_memory import Resident
from unweave.data.keyed_draws import draw_uniform, normal
from unweave.tasks import Task
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.schedule import Schedule, alphas_cumprod

PLAIN = Diffusion(4)
GUIDED = Diffusion(4, null=4, drop=0.5)


def raw(n: int = 64, *, dtype: torch.dtype = torch.float64, ids: Tensor | None = None) -> Raw:
    """Images in [-1, 1] by id."""
    ids = torch.arange(n) if ids is None else ids
    images = torch.rand(1000, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Raw(ids, ((images[ids] * 2 - 1).to(dtype),), ids % 4)


def draw(task: Diffusion, of: Raw, seed: int = 0):
    return task.draw(of, torch.Generator().manual_seed(seed))


def parts(task: Diffusion, of: Raw, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    inputs = draw(task, of, seed).inputs
    assert isinstance(inputs, tuple)
    return inputs


def test_it_is_a_task():
    assert isinstance(PLAIN, Task)


# --- what a draw depends on


@for_each("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_shard_is_drawn_as_in_the_whole_batch(prediction):
    task = replace(GUIDED, schedule=Schedule(prediction=prediction))
    batch, rows = draw(task, raw()), torch.tensor([40, 3, 17])
    shard = draw(task, raw(ids=rows))
    for a, b in zip(batch.inputs, shard.inputs, strict=True):
        assert torch.equal(a[rows], b)
    assert torch.equal(batch.target[rows], shard.target) and torch.equal(batch.other[rows], shard.other)


def test_every_draw_takes_one_key_and_is_another():
    generator = torch.Generator().manual_seed(0)
    first, second = (GUIDED.draw(raw(), generator) for _ in range(2))
    assert all(not torch.equal(a, b) for a, b in zip(first.inputs, second.inputs, strict=True))
    one_key = torch.Generator().manual_seed(0)
    draw_uniform(torch.arange(2), one_key), draw_uniform(torch.arange(2), one_key)
    assert torch.equal(generator.get_state(), one_key.get_state())


def test_a_switch_leaves_the_other_draws_as_they_were():
    noisy, time, condition = parts(replace(GUIDED, drop=0.0), raw())
    other_parts = parts(GUIDED, raw())
    assert torch.equal(noisy, other_parts[0]) and torch.equal(time, other_parts[1])
    assert not torch.equal(condition, other_parts[2])


# --- what is drawn


def test_the_noisy_image_is_that_of_the_formula():
    batch, images = draw(PLAIN, raw()), raw().inputs[0]
    noisy, time, condition = batch.inputs
    signal = alphas_cumprod(Schedule(), torch.device("cpu"))[time].view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, signal.sqrt() * images + (1 - signal).sqrt() * batch.target)
    assert torch.equal(condition, raw().label)


def test_times_are_uniform_and_the_noise_is_normal():
    batch = draw(PLAIN, raw(1000))
    assert stats.kstest(batch.inputs[1] / 1000 + 0.0005, "uniform").pvalue > 0.01
    assert stats.kstest(batch.target.flatten(), "norm").pvalue > 0.01
    flat = batch.target.flatten(1)
    assert float((flat.T @ flat / 1000 - torch.eye(6)).abs().max()) < 0.15  # pixels are independent


def test_normal_numbers_are_finite_at_the_ends_and_those_of_scipy():
    ends = torch.tensor([[0.0, 2.0**-53, 0.5, 0.975, 1 - 2.0**-53]], dtype=torch.float64)
    values = normal(ends)
    assert bool(values.isfinite().all())
    expected = torch.from_numpy(stats.norm.ppf(ends[0, 1:]))
    torch.testing.assert_close(values[0, 1:], expected, rtol=1e-9, atol=1e-12)


@for_each("n", [1, 2, 7, 8])
def test_antithetic_times_pair_the_halves(n: int):
    time = parts(replace(PLAIN, times="antithetic"), raw(n))[1]
    half = n // 2 + 1
    assert torch.equal(time[half:], 999 - time[: n - half]) and len(time) == n
    assert torch.equal(time[:half], parts(PLAIN, raw(n))[1][:half])


def test_a_condition_is_dropped_as_often_as_asked():
    condition = parts(replace(GUIDED, drop=0.1), raw(1000))[2]
    is_null = condition == 4
    assert stats.binomtest(int(is_null.sum()), 1000, 0.1).pvalue > 0.01
    assert torch.equal(condition[~is_null], raw(1000).label[~is_null])


def test_a_forgotten_class_is_never_dropped_and_never_a_counterfactual():
    task = replace(GUIDED, forgotten=(1, 2))
    batch = draw(task, raw(1000))
    forget = torch.isin(raw(1000).label, torch.tensor([1, 2]))
    assert bool((batch.inputs[2][forget] != 4).all()) and bool((batch.inputs[2][~forget] == 4).any())
    assert set(batch.other[forget].tolist()) == {0, 3}
    counts = torch.bincount(batch.other[forget], minlength=4)
    assert stats.binomtest(int(counts[0]), int(counts.sum()), 0.5).pvalue > 0.01


def test_no_condition_stays_none_under_the_counterfactual():
    batch = draw(GUIDED, raw(1000))
    is_null = batch.inputs[2] == 4
    assert bool(is_null.any()) and bool((batch.other[is_null] == 4).all())
    assert bool((batch.other[~is_null] != 4).all())


def test_counterfactuals_of_each_policy():
    label = raw(1000).label
    random = draw(PLAIN, raw(1000)).other
    assert bool((random != label).all())
    for c in range(4):
        counts = torch.bincount(random[label == c], minlength=4)
        assert counts[c] == 0 and stats.chisquare(counts[counts > 0]).pvalue > 0.01
    assert torch.equal(draw(replace(PLAIN, other="next"), raw()).other, (raw().label + 1) % 4)
    skipping = draw(replace(PLAIN, other="next", forgotten=(0,)), raw()).other
    assert torch.equal(skipping, torch.tensor([1, 2, 3, 1])[raw().label])
    assert bool((draw(replace(PLAIN, other="fixed", anchor=2), raw()).other == 2).all())
    assert bool((draw(Diffusion(4, null=4, other="null"), raw()).other == 4).all())


# --- counterfactuals that are no other condition's answer


def by_condition(inputs) -> Tensor:
    """A teacher that says the number of the condition in every pixel, and something of the image."""
    noisy, time, condition = inputs
    return 0.1 * noisy + time.view(-1, 1, 1, 1) + 10 * condition.view(-1, 1, 1, 1)


def test_away_leads_the_answer_without_a_condition_away_from_that_under_it():
    task = replace(GUIDED, other="away", away=0.7)
    batch = draw(task, raw())
    noisy, time, condition = batch.inputs
    plain = by_condition((noisy, time, torch.full_like(condition, 4)))
    expected = plain - 0.7 * 10 * (condition - 4).view(-1, 1, 1, 1)
    torch.testing.assert_close(task.mislabel(batch, by_condition), expected)
    is_null = condition == 4  # there the teacher's own answer holds the model
    assert bool(is_null.any()) and torch.equal(task.mislabel(batch, by_condition)[is_null], plain[is_null])


def test_away_by_nothing_is_the_answer_without_a_condition():
    answer, null = (
        task.mislabel(draw(task, raw()), by_condition)
        for task in (replace(GUIDED, other="away", away=0.0), replace(GUIDED, other="null"))
    )
    assert torch.equal(answer, null)


def refuse_call(inputs) -> Tensor:
    raise AssertionError("a teacher was asked")


def test_noise_is_fresh_normal_and_has_nothing_to_do_with_the_image():
    task = replace(PLAIN, other="noise")
    batch = draw(task, raw(1000))
    wrong = task.mislabel(batch, refuse_call).flatten()
    assert stats.kstest(wrong, "norm").pvalue > 0.01
    for values in (batch.target, batch.inputs[0], raw(1000).inputs[0]):
        assert stats.pearsonr(wrong, values.flatten()).pvalue > 0.01
    assert not torch.equal(wrong, task.mislabel(draw(task, raw(1000), seed=1), refuse_call).flatten())


def test_where_the_condition_is_dropped_noise_leaves_the_true_target():
    task = replace(GUIDED, other="noise")
    batch = draw(task, raw())
    is_null, wrong = batch.inputs[2] == 4, task.mislabel(batch, refuse_call)
    assert bool(is_null.any()) and torch.equal(wrong[is_null], batch.target[is_null])
    assert not bool((wrong[~is_null] == batch.target[~is_null]).any())


# --- the surrogate of Selective Amnesia


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@for_each("names", [None, ("x", "time", "condition")])
def test_a_surrogate_is_the_same_draw_of_images_of_uniform_pixels(prediction, names):
    task = replace(PLAIN, names=names, schedule=Schedule(prediction=prediction))
    batch = draw(task, raw(200))
    other = task.surrogate(batch)
    (noisy, time, condition), plain_parts = (task.parts(each) for each in (other, batch))
    assert torch.equal(time, plain_parts[1]) and torch.equal(condition, plain_parts[2])
    noise = draw(PLAIN, raw(200)).target
    signal, spread = task.schedule.scales(time, noisy)
    pixels = (noisy - spread * noise) / signal
    early = time < 700  # later there is too little of them left
    assert stats.kstest((pixels[early].flatten() + 1) / 2, "uniform").pvalue > 0.01
    expected = {"epsilon": noise, "v_prediction": signal * noise - spread * pixels, "sample": pixels}
    torch.testing.assert_close(other.target, expected[prediction], rtol=0, atol=1e-9)
    assert abs(stats.pearsonr(pixels.flatten(), raw(200).inputs[0].flatten())[0]) < 0.1


def test_a_surrogate_keeps_the_images_whose_condition_is_dropped():
    batch = draw(GUIDED, raw())
    other, is_null = GUIDED.surrogate(batch), batch.inputs[2] == 4
    assert bool(is_null.any()) and torch.equal(other.inputs[0][is_null], batch.inputs[0][is_null])
    assert torch.equal(other.target, batch.target)  # the noise is the same
    assert not bool((other.inputs[0][~is_null] == batch.inputs[0][~is_null]).any())


@pytest.mark.parametrize("later", ["surrogate", "noise"])
def test_what_is_drawn_later_is_that_of_the_whole_batch_in_every_part(later: str):
    task, rows = replace(GUIDED, other="noise"), torch.tensor([40, 3, 17])

    def of(batch) -> Tensor:
        return task.surrogate(batch).inputs[0] if later == "surrogate" else task.mislabel(batch, refuse_call)

    full_batch, shard = draw(task, raw()), draw(task, raw(ids=rows))
    assert torch.equal(of(full_batch)[rows], of(shard))
    assert torch.equal(torch.cat([of(part) for part in full_batch.split(9)]), of(full_batch))


@pytest.mark.parametrize("names", [None, ("x", "time", "condition")])
def test_the_teacher_sees_the_same_images_at_the_same_times(names):
    task = replace(GUIDED, names=names)
    batch, calls = draw(task, raw()), []

    def predict(inputs):
        calls.append(inputs)
        return torch.zeros(1)

    task.mislabel(batch, predict)
    (arguments,) = calls
    if names is not None:
        assert list(arguments) == list(names) == list(batch.inputs)
        arguments, inputs = tuple(arguments.values()), tuple(batch.inputs.values())
    else:
        inputs = batch.inputs
    assert arguments[0] is inputs[0] and arguments[1] is inputs[1] and torch.equal(arguments[2], batch.other)


def test_bytes_and_floats_are_the_same_images():
    images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    from_bytes = draw(PLAIN, Raw(torch.arange(4), (images,), torch.arange(4)))
    source = Resident(images, torch.arange(4), mean=(0.5,), std=(0.5,))
    from_floats = draw(PLAIN, next(source.stream([torch.arange(4)])))
    torch.testing.assert_close(from_bytes.inputs, from_floats.inputs)
    assert from_bytes.target.dtype == torch.float32
    by_name = draw(PLAIN, Raw(torch.arange(4), {"image": images}, torch.arange(4)))
    assert torch.equal(by_name.target, from_bytes.target)


# --- the loss


def test_the_loss_is_the_mean_squared_error_and_the_sum_is_so_many_times_it():
    output, target = torch.randn(2, 5, 3, 32, 32, dtype=torch.float64)
    expected = torch.stack([((a - b) ** 2).sum() / 3072 for a, b in zip(output, target, strict=True)])
    torch.testing.assert_close(PLAIN.loss(output, target), expected)
    torch.testing.assert_close(replace(PLAIN, reduction="sum").loss(output, target), 3072 * expected)
    assert torch.equal(PLAIN.divergence(output, target), PLAIN.loss(output, target))


def test_pinned_values():
    # by hand: (1^2 + 2^2 + 2^2 + 0^2) / 4
    output, target = torch.tensor([[[[1.0, 2.0], [2.0, 0.0]]]]), torch.zeros(1, 1, 2, 2)
    assert PLAIN.loss(output, target).tolist() == [2.25]
    # keyed.py with key of seed 0, id 7; the noise is the inverse normal of its fourth number (scipy)
    of = Raw(torch.tensor([7]), (torch.zeros(1, 1, 1, 1, dtype=torch.float64),), torch.tensor([0]))
    numbers = draw_uniform(of.ids, torch.Generator().manual_seed(0), 4)[0]
    batch = draw(PLAIN, of)
    assert float(batch.target) == pytest.approx(stats.norm.ppf(float(numbers[3])), rel=1e-12)
    assert int(batch.inputs[1]) == int(1000 * numbers[0])
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    spread = sqrt(1 - float((1 - beta[: int(batch.inputs[1]) + 1]).prod()))
    assert float(batch.inputs[0]) == pytest.approx(spread * float(batch.target), rel=1e-12)


# --- what is refused


@for_each(
    ("settings", "message"),
    [
        ({"drop": 0.1}, "need the index that stands for no condition: pass null="),
        ({"other": "null"}, "need the index that stands for no condition: pass null="),
        ({"other": "away"}, "need the index that stands for no condition: pass null="),
        ({"null": 3}, "null must not be one of the 4 classes, found 3"),
        ({"drop": 1.0, "null": 4}, r"drop in \[0, 1\), found 4 and drop=1.0"),
        ({"other": "fixed"}, "needs a class that is not forgotten as anchor, found None"),
        ({"other": "fixed", "anchor": 1, "forgotten": (1,)}, "not forgotten as anchor, found 1"),
        ({"forgotten": (4,)}, "must name some but not all of 4 classes"),
        ({"forgotten": (0, 1, 2, 3)}, "must name some but not all of 4 classes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Diffusion(4, **settings)


@for_each("field", ["times", "other", "reduction"])
def test_an_unknown_choice_is_no_silent_default(field: str):
    task = Diffusion(4)
    object.__setattr__(task, field, "none")  # at construction these tests check types before the library does
    with pytest.raises(ValueError, match=f"{field} must be one of .* found 'none'"):
        task.__post_init__()


def test_labels_beyond_the_classes_are_refused():
    # the first of them is the index of the null condition
    with pytest.raises(ValueError, match="labels must be in 0..3, found 0 to 4"):
        draw(GUIDED, replace(raw(5), label=torch.arange(5)))


@for_each(
    ("inputs", "message"),
    [
        ((torch.zeros(2, 64),), r"one image \[channel, height, width\], found \[\[64\]\]"),
        ((torch.zeros(2, 1, 2, 2), torch.zeros(2, 1)), r"found \[\[1, 2, 2\], \[1\]\]"),
        ((torch.zeros(2, 1, 2, 2, dtype=torch.int64),), r"bytes or floats in \[-1, 1\], found torch.int64"),
    ],
)
def test_what_is_no_image_is_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        draw(PLAIN, Raw(torch.arange(2), inputs, torch.zeros(2, dtype=torch.int64)))


def test_an_answer_of_another_shape_is_refused():
    # with one channel the two of a learnt variance would be broadcast
    loss = inspect.unwrap(Diffusion.loss)  # without the checks of shapes that tests have
    with pytest.raises(ValueError, match=r"must answer in the shape of the images, \[3, 1, 2, 2\]"):
        loss(PLAIN, torch.zeros(3, 2, 2, 2), torch.zeros(3, 1, 2, 2))


def test_repr_round_trips():
    task = replace(GUIDED, schedule=Schedule("scaled_linear"), forgotten=(1,), names=("a", "b", "c"))
    assert eval(repr(task)) == task and hash(eval(repr(task))) == hash(task)
