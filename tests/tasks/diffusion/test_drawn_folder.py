"""Images that a tiny pipeline draws itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from for_each import for_each

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch  # noqa: E402  # after diffusers is known to be there

import text_to_image  # noqa: E402
from folders import contents  # noqa: E402
from stable_diffusion import scheduler, write_pipeline  # noqa: E402
from unweave.data.captions import read_captioned  # noqa: E402
from unweave.errors import Failed  # noqa: E402
from unweave.tasks.diffusion import drawn_folder  # noqa: E402
from unweave.tasks.diffusion.drawn_folder import ImagesToDraw, draw_folder, prompts_of  # noqa: E402
from unweave.tasks.diffusion.sampler import Sampler  # noqa: E402
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load  # noqa: E402

WANTED = ImagesToDraw(("a three", "a photo of a three"), ("a four",), 5, 7, Sampler("ddim", 2, guidance=7.5))


@pytest.fixture
def pipeline() -> StableDiffusion:
    return text_to_image.pipeline()


def test_the_images_are_data_that_the_pipeline_drew(pipeline: StableDiffusion, tmp_path: Path):
    draw_folder(pipeline, WANTED, tmp_path / "images")
    data, test = read_captioned(tmp_path / "images")
    assert test is None and data.images.shape == (10, 3, 16, 16)
    assert data.captions == ["a three", "a photo of a three"] * 2 + ["a three"] + ["a four"] * 5
    facts = json.loads((tmp_path / "images" / "drawn.json").read_text())
    assert [facts["seeds"][name] for name in data.names] == [7, 8, 9, 10, 11] * 2
    assert facts["weights"] == pipeline.digest() and facts["sampler"]["guidance"] == 7.5


def test_diffusers_draws_the_same_image(pipeline: StableDiffusion, tmp_path: Path):
    """DDIM with leading times is the pipeline of diffusers with the scheduler of its folder."""
    how = Sampler("ddim", 4, guidance=7.5, spacing="leading")
    draw_folder(pipeline, replace(WANTED, sampler=how), tmp_path / "images")
    data, _ = read_captioned(tmp_path / "images")
    theirs = diffusers.StableDiffusionPipeline(
        vae=pipeline.autoencoder,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        unet=pipeline.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    theirs.set_progress_bar_config(disable=True)
    noise = torch.randn(1, *pipeline.shape, generator=torch.Generator().manual_seed(8))
    images = theirs("a photo of a three", latents=noise, num_inference_steps=4, output_type="pt").images
    assert (data.images[1].double() - 255 * images[0].double()).abs().max() < 2


def test_an_interrupted_run_goes_on_and_another_copies(
    pipeline: StableDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    full, part, other = (tmp_path / name for name in ("whole", "part", "other"))
    draw_folder(pipeline, WANTED, full)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_folder(pipeline, WANTED, part, progress=stop)
    first = contents(part)
    assert len(first) == drawn_folder.AT_ONCE and first.items() <= contents(full).items()
    with pytest.raises(ValueError, match="must hold one of metadata.jsonl"):
        read_captioned(part)
    reports: list[tuple[int, int]] = []
    draw_folder(pipeline, WANTED, part, progress=lambda *each: reports.append(each))
    assert reports == [(2, 2)] and contents(part) == contents(full)
    draw_folder(
        pipeline, replace(WANTED, each=6), other, earlier=[tmp_path / "absent", full], progress=expect(2)
    )
    assert len(read_captioned(other)[0]) == 12
    monkeypatch.setattr(drawn_folder, "draw_absent_images", None)
    draw_folder(pipeline, WANTED, tmp_path / "copy", earlier=[other])
    assert contents(tmp_path / "copy") == contents(full)


def expect(expected: int):
    """Fails unless this number of images is drawn."""

    def check(done: int, total: int) -> None:
        assert total == expected

    return check


def test_a_name_stands_for_all_that_an_image_depends_on(pipeline: StableDiffusion):
    model = {"weights": "one", "schedule": {}}
    names = WANTED.names(model)
    assert len(set(names)) == 10 and names[:4] == replace(WANTED, each=4).names(model)[:4]
    other_names = [
        replace(WANTED, seed=20).names(model),
        replace(WANTED, sampler=replace(WANTED.sampler, steps=3)).names(model),
        replace(WANTED, sampler=replace(WANTED.sampler, guidance=3.0)).names(model),
        replace(WANTED, forgotten=("three",), kept=("four",)).names(model),
        WANTED.names({**model, "weights": "other"}),
        WANTED.names({**model, "schedule": {"steps": 500}}),
    ]
    assert not any({*names} & {*each} for each in other_names)


def test_weights_that_diverged_fail_and_leave_no_image(pipeline: StableDiffusion, tmp_path: Path):
    place = write_pipeline(tmp_path / "sd")
    for part in ("unet", "autoencoder"):
        broken_pipeline = load(place)
        with torch.no_grad():
            next(iter(getattr(broken_pipeline, part).parameters())).fill_(torch.nan)
        if part == "autoencoder":
            with torch.no_grad():
                broken_pipeline.autoencoder.decoder.conv_out.weight.fill_(torch.nan)
        with pytest.raises(Failed, match="image is not finite"):
            draw_folder(broken_pipeline, WANTED, tmp_path / part)
        assert not (tmp_path / part).exists()


@for_each(
    ("concepts", "prompt_list", "forget_prompts", "retain_prompts"),
    [
        (["a three"], [], ["a three", "an image of a three", "a photo of a three"], ["a four"]),
        (["a three"], ["three boats", "a boat"], ["three boats"], ["a four", "a boat"]),
        (
            ["a three", "red"],
            ["three boats", "a boat", "a boat with three oars", "a four"],
            ["three boats", "red", "a boat with three oars", "an image of red", "a photo of red"],
            ["a four", "a boat"],
        ),
        (["a three", "red"], ["a red three"], ["a red three"], ["a four"]),
    ],
)
def test_listed_prompts_replace_templates_or_are_kept(concepts, prompt_list, forget_prompts, retain_prompts):
    prompts = prompts_of(concepts, prompt_list, ["a four"])
    assert prompts == (tuple(forget_prompts), tuple(retain_prompts))
