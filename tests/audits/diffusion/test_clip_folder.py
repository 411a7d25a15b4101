"""A CLIP of fresh weights in a folder, as transformers writes it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from stable_diffusion import tokenizer, write_clip  # noqa: E402  # after diffusers is known to be there
from unweave.audits.diffusion.clip_folder import read_clip  # noqa: E402
from unweave.audits.diffusion.clip_score import ClipScore  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


def images(n: int) -> Tensor:
    return torch.randint(0, 256, (n, 3, 40, 24), generator=torch.Generator().manual_seed(0)).byte()


def test_scores_are_the_cosines_of_transformers(folder: Path):
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    prepare = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    words = ["a red three", "two"]
    inputs = prepare(images=[image.permute(1, 2, 0).numpy() for image in images(3)], return_tensors="pt")
    tokens = tokenizer()(words, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens, **inputs).logits_per_image / model.logit_scale.exp()
    clip = read_clip(folder)
    embeddings = clip.embed_images(images(3))
    cosines = torch.stack([cosine_similarity(embeddings, clip.embed_text(text)) for text in words], dim=1)
    assert torch.allclose(cosines, expected, atol=1e-5) and expected.std() > 0.01


def test_the_mean_is_over_images_and_a_cosine_below_zero_counts_as_zero():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])
    clip = ClipScore(lambda _: torch.tensor([[2.0, 0.0]]), lambda batch: rows[: len(batch)], "")
    assert clip.scores("a", images(3)) == pytest.approx([100, 0, 100 / 2**0.5], abs=1e-4)
    assert clip.mean([("a", images(1)), ("b", images(2))]) == pytest.approx((100 + 100 + 0) / 3)


def test_the_digest_is_of_all_files_that_scores_depend_on(folder: Path, tmp_path: Path):
    other = write_clip(tmp_path / "clip", seed=1)
    assert read_clip(folder).digest == read_clip(folder).digest != read_clip(other).digest
    digest = read_clip(other).digest
    path = other / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))
    assert read_clip(other).digest != digest


def test_what_is_no_clip_and_prompts_that_are_too_long_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(
        ValueError, match="expected the folder of a CLIPModel in .*none, found no config.json"
    ):
        read_clip(tmp_path / "none")
    with pytest.raises(ValueError, match="a prompt must have at most 77 tokens, found 82"):
        read_clip(folder).scores("x" * 80, images(1))
    other = write_clip(tmp_path / "clip")
    path = other / "config.json"
    path.write_text(path.read_text().replace('"model_type": "clip"', '"model_type": "siglip"'))
    with pytest.raises(ValueError, match="must be a CLIPModel .model_type clip., found 'siglip'"):
        read_clip(other)
    (other / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="found no model.safetensors"):
        read_clip(other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_std": [0.27, 0.0, 0.28]}, "image_std must be numbers above 0, found .0.27, 0.0, 0.28."),
        ({"image_std": [0.27, math.inf, 0.28]}, "image_std must be numbers above 0"),
        ({"image_mean": [math.nan, 0.0, 0.0]}, "image_mean must be numbers, found .nan, 0.0, 0.0."),
        ({"rescale_factor": 0.0}, "rescale_factor must be a number above 0, found 0.0"),
    ],
)
def test_a_preparation_that_loses_the_image_is_named(tmp_path: Path, changes: dict[str, Any], said: str):
    other = write_clip(tmp_path / "clip")
    path = other / "preprocessor_config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, **changes}))
    with pytest.raises(ValueError, match=f"--clip {other} must hold .*{said}"):
        read_clip(other)


@pytest.mark.parametrize("broken", ["{", "[]", '{"size": "large"}', '{"image_mean": "grey"}'])
def test_a_preparation_that_can_not_be_read_is_named_with_its_folder_and_flag(tmp_path: Path, broken: str):
    other = write_clip(tmp_path / "clip")
    (other / "preprocessor_config.json").write_text(broken)
    with pytest.raises(ValueError, match=f"--clip {other} must hold the preparation of its images"):
        read_clip(other)


def test_a_preparation_of_another_size_than_the_model_takes_is_found_at_once(tmp_path: Path):
    other = write_clip(tmp_path / "clip")
    path = other / "preprocessor_config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "crop_size": {"height": 64, "width": 64}}))
    with pytest.raises(ValueError, match=rf"--clip {other} must hold .* size \(64\*64\) doesn't match model"):
        read_clip(other)
