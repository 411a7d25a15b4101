import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import every_family
from for_each import for_each
from unweave.errors import Failed
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sample import chunk_for, guided_prediction, sample, to_bytes
from unweave.tasks.diffusion.sampler import SCHEDULERS, Sampler
from unweave.tasks.diffusion.schedule import Schedule, alphas_cumprod

diffusers = pytest.importorskip("diffusers")
DDIMScheduler, DPMSolverMultistepScheduler = diffusers.DDIMScheduler, diffusers.DPMSolverMultistepScheduler

TASK = Diffusion(4, schedule=Schedule(steps=20), null=4, drop=0.1)
SHAPE = (1, 4, 4)
SAMPLERS = (
    Sampler(steps=5),
    Sampler(steps=5, guidance=2.0, clip=True),
    Sampler(steps=5, guidance=0.0, spacing="leading"),
    Sampler(steps=5, eta=1.0, guidance=1.5),
    Sampler("dpm", steps=5, guidance=1.5),
)
CONDITIONS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


class Small(nn.Module):
    """A denoiser in double precision, whose dropout must be off."""

    def __init__(self) -> None:
        super().__init__()
        self.condition, self.mix = nn.Embedding(5, 16), nn.Conv2d(2, 1, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.calls: list[int] = []

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        self.calls.append(len(x))
        features = torch.cat([x, self.condition(condition).view(-1, 1, 4, 4)], 1)
        return self.drop(self.mix(features)) + x * (t / 20).view(-1, 1, 1, 1).to(x.dtype)


@pytest.fixture
def model() -> Small:
    return Small().double()


def draw(model: nn.Module, how: Sampler, conditions: Tensor = CONDITIONS, task: Diffusion = TASK, **settings):
    return sample(model, task, conditions, shape=SHAPE, how=how, rounded=False, **settings)


@for_each("how", SAMPLERS)
def test_an_image_depends_neither_on_the_batch_nor_on_its_neighbours(model: Small, how: Sampler):
    images = draw(model, how)
    assert images.shape == (7, *SHAPE) and bool(images.isfinite().all())
    for chunk in (1, 3, 100):
        torch.testing.assert_close(draw(model, how, chunk=chunk), images, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        draw(model, how, CONDITIONS[3:5], seeds=[3, 4]), images[3:5], rtol=0, atol=1e-6
    )


def test_wide_images_are_drawn_in_smaller_chunks(model: Small):
    assert [chunk_for(model, (1, side, side)) for side in (8, 32, 1000)] == [256, 16, 1]


@for_each("how", SAMPLERS)
def test_seed_and_condition_decide_and_nothing_else_is_touched(model: Small, how: Sampler):
    before, state = model.train().training, torch.get_rng_state()
    first = draw(model, how)
    assert torch.equal(first, draw(model, how)) and model.training == before and model.drop.training
    assert torch.equal(torch.get_rng_state(), state)
    second = draw(model, how, seeds=range(7, 14))
    assert not torch.isclose(first, second).flatten(1).all(1).any()
    other = draw(model, how, (CONDITIONS + 1) % 5)
    assert torch.equal(first, other) == (how.guidance == 0)


def test_guidance_is_that_of_diffusers_and_one_more_than_that_of_selective_amnesia(model: Small):
    x, time = torch.randn(3, *SHAPE, dtype=torch.float64), 7
    model.eval()
    condition, null = torch.tensor([0, 1, 2]), torch.full((3,), 4)
    conditional, plain = (model(x, torch.full((3,), time), c) for c in (condition, null))
    for s in (0.0, 1.0, 3.0):
        w = s - 1
        expected = (1 + w) * conditional - w * plain
        torch.testing.assert_close(guided_prediction(model, TASK, x, time, condition, s), expected)


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, 7), (1.5, 14)])
def test_each_step_is_one_call(model: Small, guidance: float, passes: int):
    draw(model, Sampler(steps=5, guidance=guidance))
    assert model.calls == [passes] * 5


@for_each("prediction", ["epsilon", "v_prediction", "sample"])
@for_each("how", SAMPLERS[:1] + SAMPLERS[4:])
def test_a_model_that_knows_the_image_draws_it(prediction, how: Sampler):
    task = replace(TASK, schedule=Schedule(steps=20, end=0.3, prediction=prediction))
    image = torch.linspace(-0.9, 0.9, 16).view(1, *SHAPE)

    class Knows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            signal, spread = task.schedule.scales(t, x)
            clean = image.expand_as(x)
            return task.schedule.target(clean, (x - signal * clean) / spread, t)

    images = draw(Knows(), how, task=task)
    torch.testing.assert_close(images, image.expand(7, *SHAPE), rtol=0, atol=0.02)


def test_ddim_is_its_formula(model: Small):
    # Song et al., 2021, Equation 12, at the leading times 0, 5, 10, 15 and abar = 1 before the first
    how = Sampler(steps=4, eta=1.0, spacing="leading")
    alphas = torch.cat(
        [torch.ones(1, dtype=torch.float64), alphas_cumprod(TASK.schedule, torch.device("cpu"))]
    )
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(1, *SHAPE, generator=generator).double()
    model.eval()
    for time, before in ((15, 10), (10, 5), (5, 0), (0, -1)):
        noise = torch.randn(1, *SHAPE, generator=generator).double()
        with torch.no_grad():
            noise_estimate = model(x, torch.tensor([time]), torch.tensor([2]))
        a, b = alphas[time + 1], alphas[before + 1]
        sigma = ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
        clean = (x - (1 - a).sqrt() * noise_estimate) / a.sqrt()
        x = b.sqrt() * clean + (1 - b - sigma**2).clamp(min=0).sqrt() * noise_estimate + sigma * noise
    image = draw(model, how, torch.tensor([2]), seeds=[11])
    torch.testing.assert_close(image, x, rtol=0, atol=1e-5)


def drawn_by_diffusers(theirs, model: nn.Module, steps: int, seed: int, eta: float = 0.0) -> Tensor:
    """A scheduler's own loop over one image of class 2."""
    theirs.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *SHAPE, generator=generator).double()
    for time in theirs.timesteps:
        noise = torch.randn(1, *SHAPE, generator=generator).double() if eta else None
        with torch.no_grad():
            answer = model(x, time.expand(1), torch.tensor([2]))
        extra = {"eta": eta, "variance_noise": noise} if eta else {}
        x = theirs.step(answer, time, x, **extra).prev_sample
    return x


OPTIONS = (
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 0.5},
    {"clip_sample": False, "set_alpha_to_one": False},
    {"clip_sample": False, "steps_offset": 1},
    {"clip_sample": True, "clip_sample_range": 0.7, "set_alpha_to_one": False, "steps_offset": 2},
)


@for_each("prediction", ["epsilon", "v_prediction", "sample"])
@for_each("eta", [0.0, 1.0])
@for_each("options", OPTIONS)
def test_ddim_draws_as_the_scheduler_of_diffusers_with_that_config(
    model: Small, options: dict, eta: float, prediction
):
    theirs = DDIMScheduler(num_train_timesteps=20, beta_end=0.3, prediction_type=prediction, **options)
    rebuilt_schedule = Schedule.of(theirs.config)
    how, seeds = Sampler(steps=4, eta=eta, spacing="leading"), [11]
    images = draw(model, how, torch.tensor([2]), replace(TASK, schedule=rebuilt_schedule), seeds=seeds)
    expected = drawn_by_diffusers(theirs, model.eval(), 4, 11, eta)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    plain = replace(TASK, schedule=replace(rebuilt_schedule, clip=None, ends_clean=True, offset=0))
    assert float((draw(model, how, torch.tensor([2]), plain, seeds=seeds) - images).abs().max()) > 1e-3


def test_the_other_solver_takes_the_offset_and_no_more_as_in_diffusers(model: Small):
    options = {"set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"}
    config = DDIMScheduler(num_train_timesteps=20, clip_sample=True, **options).config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = DPMSolverMultistepScheduler.from_config(config)
        expected = drawn_by_diffusers(theirs, model.eval(), 4, 11)
    task = replace(TASK, schedule=Schedule.of(config))
    image = draw(model, Sampler("dpm", steps=4, spacing="leading"), torch.tensor([2]), task, seeds=[11])
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-5)


def test_a_sampler_clips_where_the_schedule_does_not(model: Small):
    how, clips = Sampler(steps=5, clip=True), replace(TASK, schedule=replace(TASK.schedule, clip=1.0))
    assert torch.equal(draw(model, how), draw(model, Sampler(steps=5), task=clips))
    narrow = replace(TASK, schedule=replace(TASK.schedule, clip=0.5))
    assert torch.equal(draw(model, how, task=narrow), draw(model, Sampler(steps=5), task=narrow))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_offset_beyond_the_last_time_is_refused(model: Small, scheduler):
    task = replace(TASK, schedule=replace(TASK.schedule, offset=5))
    how = Sampler(scheduler, steps=5, spacing="leading")
    with pytest.raises(ValueError, match=r"steps_offset 5 .* time 2\d, .* times 0..19"):
        draw(model, replace(how, steps=19), task=task)
    assert not model.calls
    assert draw(model, replace(how, spacing="trailing"), task=task).shape == (7, *SHAPE)


@for_each("spacing", ["trailing", "leading"])
@for_each("scheduler", SCHEDULERS)
def test_no_time_is_taken_twice(scheduler: str, spacing: str):
    # PNDM begins with one time twice
    times, _ = SCHEDULERS[scheduler](Sampler(scheduler, steps=10, spacing=spacing), Schedule())
    assert len(times) == 10 and all(one > other for one, other in pairwise(times))


def test_bytes_are_cut_and_rounded_and_keep_their_contrast():
    images = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 1.5]).view(1, 1, 1, 6)
    assert to_bytes(images).flatten().tolist() == [0, 0, 128, 255, 255, 255]
    dull = torch.linspace(-0.2, 0.2, 16).view(1, 1, 4, 4)
    assert int(to_bytes(dull).min()) == 102 and int(to_bytes(dull).max()) == 153


def test_samples_are_bytes_and_progress_is_told(model: Small):
    reports = []
    images = sample(
        model,
        TASK,
        CONDITIONS,
        shape=SHAPE,
        how=Sampler(steps=2),
        chunk=3,
        progress=lambda done, of: reports.append((done, of)),
    )
    assert images.dtype == torch.uint8 and images.shape == (7, *SHAPE)
    assert reports == [(3, 7), (6, 7), (7, 7)]


def test_a_denoiser_may_take_its_inputs_by_name():
    class Named(Small):
        def forward(self, noisy: Tensor, step: Tensor, label: Tensor) -> Tensor:
            return super().forward(noisy, step, label)

    model = Named().double()
    by_name = draw(model, SAMPLERS[1], task=replace(TASK, names=("noisy", "step", "label")))
    assert torch.equal(by_name, draw(model, SAMPLERS[1]))


@for_each(
    ("change", "message"),
    [
        ({"conditions": torch.tensor([5])}, "conditions must be in 0..3, or 4 for none, found 5"),
        ({"conditions": torch.tensor([-1])}, "found -1"),
        ({"how": Sampler(steps=21)}, "a model of 20 times can't take 21 steps"),
        ({"seeds": [1]}, "expected a seed per image and chunk >= 1, found 1 seeds for 7 images"),
        ({"chunk": 0}, "chunk=0"),
        ({"task": Diffusion(5), "how": Sampler(guidance=1.5)}, "guidance 1.5 needs a null condition"),
        ({"task": Diffusion(4)}, "conditions must be in 0..3, found 4"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_model_is_called(model: Small, change: dict, message: str):
    settings = {"how": Sampler(steps=5), "conditions": CONDITIONS} | change
    with pytest.raises(ValueError, match=message):
        draw(model, **settings)
    assert not model.calls


@for_each(
    ("settings", "message"),
    [
        ({"steps": 0}, r"steps must be in \[1, inf\)"),
        ({"guidance": -1.0}, r"guidance must be in \[0, inf\)"),
        ({"eta": 1.5}, r"eta must be in \[0, 1\]"),
        ({"scheduler": "dpm", "eta": 0.5}, "eta and clip are for DDIM"),
        ({"scheduler": "dpm", "clip": True}, "eta and clip are for DDIM"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)


def test_a_diverged_model_draws_nothing(model: Small):
    with torch.no_grad():
        model.mix.weight.fill_(float("nan"))
    with pytest.raises(Failed, match="a drawn image is not finite"):
        draw(model, Sampler(steps=2))


@for_each("family", ["unet", "dit"])
@for_each("how", [SAMPLERS[3], SAMPLERS[4]])
def test_the_denoisers_of_diffusers_draw_alike_in_every_batch_size(family: str, how: Sampler):
    # four classes with the null condition after them: diffusers' own pipeline takes 1000 for it
    of = every_family.problem(family)
    batched = draw(of.model, how, task=of.task)
    single = draw(of.model, how, task=of.task, chunk=1)
    torch.testing.assert_close(single, batched, rtol=0, atol=1e-4)
    exact = draw(of.model.double(), how, task=of.task)
    torch.testing.assert_close(draw(of.model, how, task=of.task, chunk=2), exact, rtol=0, atol=1e-6)
