"""A request to erase a concept of a text-to-image model."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")

import torch

import text_to_image
from unweave.data.captions import CaptionedImages
from unweave.data.latents import Latents
from unweave.tasks.diffusion import autoencoder as autoencoder_module
from unweave.tasks.diffusion import concept_request
from unweave.tasks.diffusion.concept_request import Erasure, make_request

CAPTIONS = ["a three", "a three", "a red three", "a blue three"] * 3
COLOURS = ["red", "blue", "red", "blue"] * 3


def test_a_caption_shared_with_retained_images_is_no_prompt_of_the_concept():
    pixels = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    rows = [
        {"file_name": f"{i}.png", "text": text, "colour": colour}
        for i, (text, colour) in enumerate(zip(CAPTIONS, COLOURS, strict=True))
    ]
    data = CaptionedImages(pixels, tuple(rows), Path())
    erasure = Erasure(concepts=("red",), column="colour")
    request = make_request(text_to_image.pipeline(), data, data, erasure)
    assert len(request.split.forget) == 6
    assert {request.prompts.texts[each] for each in request.prompts.forgotten} == {"red", "a red three"}
    assert [request.prompts.texts[each] for each in request.prompts.concepts] == ["red"]


@pytest.mark.parametrize("by", [{"column": "number"}, {"captions": ("a red three", "a three")}])
def test_captions_to_forget_that_do_not_name_the_concept_are_its_prompts(by: dict[str, Any]):
    pixels = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    captions = ["a three", "a red three", "a four", "a blue four"] * 3
    rows = [
        {"file_name": f"{i}.png", "text": text, "number": "3" if "three" in text else "4"}
        for i, text in enumerate(captions)
    ]
    data = CaptionedImages(pixels, tuple(rows), Path())
    request = make_request(text_to_image.pipeline(), data, data, Erasure(concepts=("3",), **by))
    concepts = [request.prompts.texts[each] for each in request.prompts.concepts]
    assert concepts == ["a red three", "a three"]
    assert sorted(request.prompts.concepts) == sorted(request.prompts.forgotten)


def test_every_named_concept_is_one_of_the_prompts_wherever_its_images_are():
    pixels = torch.zeros((6, 3, 16, 16), dtype=torch.uint8)
    captions = ["a three", "a four", "a four", "a four", "a seven", "a four"]
    rows = [{"file_name": f"{i}.png", "text": text, "number": text[2:]} for i, text in enumerate(captions)]
    train, test = (CaptionedImages(pixels[:4], tuple(each), Path()) for each in (rows[:4], rows[2:]))
    erasure = Erasure(concepts=("a three", "a four hundred"))
    with pytest.raises(ValueError, match="holds 'a four hundred'"):
        make_request(text_to_image.pipeline(), train, test, erasure)
    assert Erasure(concepts=("a three", "a seven")).prompts(["a three"]) == ("a three", "a seven")
    by_column = Erasure(concepts=("three",), column="number")
    assert by_column.prompts([]) == ("three",)  # every caption to forget is also one to keep
    images = CaptionedImages(
        pixels[:4], tuple({k: r[k] for k in ("file_name", "text")} for r in rows[2:]), Path()
    )
    with pytest.raises(ValueError, match="has|have no column 'number': add it"):
        make_request(text_to_image.pipeline(), train, images, by_column)


def test_a_held_out_image_holds_a_value_by_its_column_alone():
    rows = [{"file_name": f"{i}.png", "text": text, "colour": "blue"} for i, text in enumerate(CAPTIONS)]
    for row, colour in zip(rows, COLOURS, strict=True):
        row["colour"] = colour
    pixels = torch.zeros((12, 3, 16, 16), dtype=torch.uint8)
    data = CaptionedImages(pixels, tuple(rows), Path())
    other = CaptionedImages(
        pixels[:2],
        ({**rows[0], "text": "a red hat", "colour": "blue"}, {**rows[0], "text": "a rose", "colour": "red"}),
        Path(),
    )
    request = make_request(text_to_image.pipeline(), data, other, Erasure(concepts=("red",), column="colour"))
    texts = {request.prompts.texts[each] for each in request.prompts.forgotten}
    assert texts == {"red", "a red three", "a rose"}


def test_a_retained_caption_stays_retained_where_a_held_out_image_has_it_and_its_words_name_the_concept():
    pixels = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    rows = tuple({"file_name": f"{i}.png", "text": text} for i, text in enumerate(CAPTIONS))
    data = CaptionedImages(pixels, rows, Path())
    erasure = Erasure(concepts=("three",), captions=("a red three",))
    request = make_request(text_to_image.pipeline(), data, data, erasure)
    assert len(request.split.forget) == 3
    assert {request.prompts.texts[each] for each in request.prompts.forgotten} == {"three", "a red three"}


def test_a_held_out_caption_that_a_list_leaves_out_is_not_of_the_concept():
    pixels = torch.randint(256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    rows = tuple({"file_name": f"{i}.png", "text": text} for i, text in enumerate(CAPTIONS))
    data = CaptionedImages(pixels, rows, Path())
    other = CaptionedImages(
        pixels[:2], ({**rows[0], "text": "a green three"}, {**rows[0], "text": "a red three"}), Path()
    )
    erasure = Erasure(concepts=("three",), captions=("a red three",))
    request = make_request(text_to_image.pipeline(), data, other, erasure)
    assert {request.prompts.texts[each] for each in request.prompts.forgotten} == {"three", "a red three"}


def test_equal_images_have_the_latents_of_each_and_one_is_encoded(monkeypatch: pytest.MonkeyPatch):
    pixels = torch.randint(256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    rows = tuple({"file_name": f"{i}.png", "text": text} for i, text in enumerate(CAPTIONS))
    counts: list[int] = []

    def encode(autoencoder: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        counts.append(len(images))
        return autoencoder_module.encode(autoencoder, images)

    monkeypatch.setattr(concept_request, "encode", encode)
    pipeline, erasure = text_to_image.pipeline(), Erasure(concepts=("three",), captions=("a red three",))
    requests = []
    for images in (pixels.expand(12, -1, -1, -1), pixels.repeat(12, 1, 1, 1)):
        data = CaptionedImages(images, rows, Path())
        requests.append(make_request(pipeline, data, data, erasure))
    assert counts == [1, 1, 1, 1]
    for request in requests:
        mean, deviation = autoencoder_module.encode(pipeline.autoencoder, pixels)
        for source in (request.split.train, request.split.held_out):
            assert isinstance(source, Latents) and len(source) == 12
            assert torch.equal(source.mean, mean.expand_as(source.mean))
            assert torch.equal(source.deviation, deviation.expand_as(source.deviation))
