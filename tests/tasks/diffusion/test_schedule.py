import inspect

import pytest
import torch

from for_each import for_each
from unweave.tasks.diffusion.schedule import SCHEDULERS, STABLE, Schedule, alphas_cumprod

CPU = torch.device("cpu")
SCHEDULES = (
    Schedule(),
    Schedule("scaled_linear", start=0.00085, end=0.012),
    Schedule("squaredcos_cap_v2", steps=50),
    Schedule(steps=3, betas=(0.1, 0.2, 0.5)),
    Schedule("scaled_linear", start=0.00085, end=0.012, zero_snr=True),
    Schedule(steps=50, clip=0.5, ends_clean=False, offset=1),
)


@for_each("schedule", SCHEDULES)
def test_the_image_fades_and_never_comes_back(schedule: Schedule):
    alphas = alphas_cumprod(schedule, CPU)
    assert len(alphas) == schedule.steps and bool((alphas.diff() < 0).all())
    assert bool((alphas >= 0).all()) and bool((alphas < 1).all())
    assert bool(alphas[-1] == 0) == schedule.zero_snr


@for_each("schedule", SCHEDULES)
def test_noisy_images_of_unit_images_have_unit_variance(schedule: Schedule):
    time = torch.arange(0, schedule.steps, max(1, schedule.steps // 5))
    signal, spread = schedule.scales(time, torch.zeros(len(time), 1, 2, 2, dtype=torch.float64))
    assert signal.shape == (len(time), 1, 1, 1)
    torch.testing.assert_close(signal**2 + spread**2, torch.ones_like(signal))


@pytest.mark.parametrize("schedule", SCHEDULES[:4], ids=repr)
def test_image_and_noise_follow_from_the_velocity(schedule: Schedule):
    clean, noise = torch.randn(2, 5, 1, 2, 2, dtype=torch.float64)
    time = torch.randint(schedule.steps, (5,))
    other_schedule = Schedule(**{**vars_of(schedule), "prediction": "v_prediction"})
    x, v = other_schedule.add_noise(clean, noise, time), other_schedule.target(clean, noise, time)
    signal, spread = other_schedule.scales(time, clean)
    torch.testing.assert_close(signal * x - spread * v, clean)
    torch.testing.assert_close(spread * x + signal * v, noise)


def vars_of(schedule: Schedule) -> dict:
    return {name: getattr(schedule, name) for name in schedule.__dataclass_fields__}


def test_the_target_is_what_is_predicted():
    clean, noise = torch.randn(2, 3, 1, 2, 2)
    time = torch.tensor([0, 10, 999])
    assert torch.equal(Schedule().target(clean, noise, time), noise)
    assert torch.equal(Schedule(prediction="sample").target(clean, noise, time), clean)


def test_the_first_and_last_share_of_the_published_schedule():
    # DDPM (Ho et al., 2020): beta from 1e-4 to 0.02 in 1000 steps, computed with mpmath to 20 digits
    alphas = alphas_cumprod(Schedule(), CPU)
    assert float(alphas[0]) == pytest.approx(0.9999, rel=1e-15)
    assert float(alphas[-1]) == pytest.approx(4.035829765375676e-05, rel=1e-12)


@for_each("schedule", SCHEDULES)
def test_it_is_the_schedule_of_diffusers(schedule: Schedule):
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        schedule.steps,
        schedule.start,
        schedule.end,
        schedule.kind,
        trained_betas=list(schedule.betas) or None,
        rescale_betas_zero_snr=schedule.zero_snr,
        prediction_type="v_prediction",
    )
    rebuilt_schedule = Schedule.of(theirs.config)
    assert alphas_cumprod(rebuilt_schedule, CPU).equal(alphas_cumprod(schedule, CPU))
    assert rebuilt_schedule.prediction == "v_prediction"
    torch.testing.assert_close(
        alphas_cumprod(schedule, CPU).float(), theirs.alphas_cumprod, rtol=2e-3, atol=1e-6
    )
    clean, noise = torch.randn(2, 4, 1, 2, 2)
    time = torch.randint(schedule.steps // 2 + 1, (4,))  # late times differ by the rounding of theirs
    for ours, name in ((rebuilt_schedule.add_noise, "add_noise"), (rebuilt_schedule.target, "get_velocity")):
        torch.testing.assert_close(
            ours(clean, noise, time), getattr(theirs, name)(clean, noise, time), rtol=0, atol=1e-5
        )


def test_an_empty_config_has_the_defaults_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler()
    assert Schedule.of({}) == Schedule()
    assert Schedule.of(theirs.config) == Schedule(clip=1.0)  # a config that is written out says so


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
def test_of_another_solver_only_the_noise_is_read(name: str):
    diffusers = pytest.importorskip("diffusers")
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    rebuilt_schedule = Schedule.of(
        getattr(diffusers, name)(**settings, prediction_type="v_prediction").config
    )
    assert rebuilt_schedule == Schedule("scaled_linear", start=0.00085, end=0.012, prediction="v_prediction")


@for_each(
    ("config", "expected"),
    [
        ({"clip_sample": True}, Schedule(clip=1.0)),
        ({"clip_sample": True, "clip_sample_range": 3}, Schedule(clip=3.0)),
        ({"clip_sample": False, "clip_sample_range": 3.0}, Schedule()),
        ({"clip_sample_range": 3.0}, Schedule()),
        ({"set_alpha_to_one": False}, Schedule(ends_clean=False)),
        ({"steps_offset": 1}, Schedule(offset=1)),
        ({"thresholding": False, "sample_max_value": 2.0}, Schedule()),
    ],
)
def test_what_ddim_is_set_to_is_read(config: dict, expected: Schedule):
    assert Schedule.of(config) == expected


@for_each("name", [*SCHEDULERS, *STABLE])
def test_every_known_scheduler_has_the_default_betas_of_diffusers(name: str):
    diffusers = pytest.importorskip("diffusers")
    theirs = inspect.signature(getattr(diffusers, f"{name}Scheduler")).parameters
    config = {
        key: theirs[key].default for key in ("beta_schedule", "beta_start", "beta_end", "prediction_type")
    }
    name = f"{name}Scheduler"
    assert Schedule.of({"_class_name": name}) == Schedule.of({"_class_name": name, **config})


@for_each(
    ("config", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "found 'FlowMatchEulerDiscreteScheduler'"),
        (
            {"_class_name": "EDMEulerScheduler"},
            "a scheduler must be one of DDPM, .*found 'EDMEulerScheduler'",
        ),
        ({"use_flow_sigmas": True}, "use_flow_sigmas must be False, found True"),
        ({"timestep_type": "continuous"}, "timestep_type must be 'discrete', found 'continuous'"),
        ({"thresholding": True}, "thresholding must be False, found True: .* clip_sample"),
        ({"clip_sample": "yes"}, "clip_sample: .*found 'yes'"),
        ({"clip_sample": True, "clip_sample_range": 0.0}, r"clip must be in \(0, inf\), found 0.0"),
        ({"set_alpha_to_one": 1}, "set_alpha_to_one: .*found 1"),
        ({"steps_offset": -1}, r"offset must be in \[0, inf\), found -1"),
        ({"steps_offset": 0.5}, "steps_offset: .*found 0.5"),
        ({"beta_start": "x"}, "beta_start: .*found 'x'"),
        ({"num_train_timesteps": None}, "num_train_timesteps: .*found None"),
        ({"num_train_timesteps": 1000.0}, "num_train_timesteps: .*found 1000.0"),
        ({"trained_betas": ["a", "b"]}, "trained_betas.0: .*found 'a'"),
        ({"prediction_type": "flow"}, "prediction_type must be .*found 'flow'"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule must be .*found 'sigmoid'"),
    ],
)
def test_a_config_of_another_noise_or_of_no_sense_is_refused(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Schedule.of(config)


@for_each(
    ("settings", "message"),
    [
        ({"steps": 1}, "needs two steps, one per beta, found 1 steps"),
        ({"betas": (0.1, 0.2)}, "needs two steps, one per beta, found 1000 steps"),
        ({"start": 0.0}, r"betas must be in \(0, 1\), found 0.0 to 0.02"),
        ({"steps": 2, "betas": (0.1, 1.0)}, r"betas must be in \(0, 1\)"),
    ],
)
def test_a_schedule_that_is_none_is_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)


@pytest.mark.parametrize("field", ["kind", "prediction"])
def test_an_unknown_choice_is_no_silent_default(field: str):
    schedule = Schedule()
    object.__setattr__(schedule, field, "sigmoid")  # at construction these tests check types first
    with pytest.raises(ValueError, match=f"{field} must be one of .*found 'sigmoid'"):
        schedule.__post_init__()


def test_repr_round_trips():
    for schedule in SCHEDULES:
        assert eval(repr(schedule)) == schedule and hash(eval(repr(schedule))) == hash(schedule)
