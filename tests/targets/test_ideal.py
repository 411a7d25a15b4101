"""The ideal denoiser of the retain set: closed forms, and what it makes of an image that it never saw."""

import pytest
import torch

import every_family
from every_family import problem
from for_each import for_each
from smooth import batch
from unweave.descent.descend import Descent
from unweave.targets.ideal import Ideal, ideal_target
from unweave.tasks import require_task
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.schedule import Schedule
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

TIMES = torch.tensor([20, 200, 500, 900])


def clean(target: torch.Tensor, x: torch.Tensor, time: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """The clean image that a prediction stands for, by the definitions of the three targets."""
    signal, noise = schedule.scales(time, x)
    match schedule.prediction:
        case "epsilon":
            return (x - noise * target) / signal
        case "v_prediction":
            return signal * x - noise * target
        case "sample":
            return target


@for_each("prediction", ["epsilon", "v_prediction", "sample"])
def test_of_two_points_it_is_a_tanh(prediction):
    schedule = Schedule(prediction=prediction)
    images = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    x = torch.tensor([0.9, -0.4, 0.3, 1.1], dtype=torch.float64).view(4, 1, 1, 1)
    signal, noise = schedule.scales(TIMES, x)
    result = clean(ideal_target(images, x, TIMES, schedule), x, TIMES, schedule)
    torch.testing.assert_close(result, torch.tanh(signal * x / noise**2), rtol=1e-9, atol=1e-9)


def test_its_error_is_orthogonal_to_what_it_sees():
    """So it is the mean of the clean images given the noisy one, and no other has a smaller squared error."""
    schedule = Schedule(prediction="sample")
    generator = torch.Generator().manual_seed(0)
    images = torch.tensor([-1.5, -0.2, 0.4, 1.3], dtype=torch.float64).view(4, 1, 1, 1)
    true = images[torch.randint(4, (40_000,), generator=generator)]
    noise = torch.randn(true.shape, generator=generator, dtype=torch.float64)
    time = torch.full((len(true),), 300)
    x = schedule.add_noise(true, noise, time)
    error = true - ideal_target(images, x, time, schedule)
    for values in (torch.ones_like(x), x, x**2, x.sin()):
        assert abs(float((error * values).mean())) < 0.02
    assert abs(float(((true - 0.9 * (true - error)) * x).mean())) > 0.05, "another estimate is not"


def test_under_little_noise_an_unseen_image_becomes_the_nearest_to_keep():
    schedule = Schedule(prediction="v_prediction")
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(30, 4, 4, 4, generator=generator)
    unseen = images[:5] + 0.3 * torch.randn(5, 4, 4, 4, generator=generator)
    time = torch.full((5,), 20)
    x = schedule.add_noise(unseen, torch.randn(unseen.shape, generator=generator), time)
    result = clean(ideal_target(images, x, time, schedule), x, time, schedule)
    torch.testing.assert_close(result, images[:5], rtol=0, atol=1e-3)


@for_each("family", every_family.DENOISERS)
def test_it_reads_the_retain_set_alone_and_weighs_by_the_noise(family: str):
    of = problem(family, whole_class=True)
    task, target = require_task(of.task, Diffusion, "denoisers"), Ideal()
    images = target.retain_images(of, task)
    assert len(images) == len(of.split.retain)
    forget = batch(of, of.split.forget[:6])
    noisy, time, _ = task.parts(forget)
    step = Step(of.params, Runtime(of.model, of.task), {"forget": [forget]}, {"forget": len(forget)})
    with torch.no_grad():
        (losses,) = target(of, Descent(steps=1)).losses(step)
        answer = of.model(*forget.inputs) if isinstance(forget.inputs, tuple) else of.model(**forget.inputs)
        errors = (answer - ideal_target(images, noisy, time, task.schedule)).square().flatten(1).mean(1)
        expected = (errors * task.schedule.scales(time, noisy)[1].flatten() ** 2).mean()
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)


def test_a_part_of_the_retain_set_is_drawn_by_the_seed():
    subsets = []
    for seed in (0, 0, 1):
        of = problem("unet", seed=seed, whole_class=True)
        subsets.append(Ideal(most=7).retain_images(of, require_task(of.task, Diffusion, "denoisers")))
    assert len(subsets[0]) == 7
    assert torch.equal(subsets[0], subsets[1]) and not torch.equal(subsets[0], subsets[2])
    with pytest.raises(ValueError, match="most must be in"):
        Ideal(most=0)
