from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from for_each import for_each
from unweave.data.captioned_drawings import (
    FACTORS,
    HELD_OUT_TEMPLATES,
    TEMPLATES,
    Drawings,
    caption,
    factor_numbers,
    write_captioned,
)
from unweave.data.captions import CaptionedImages, Concept, read_captioned
from unweave.data.colours_and_styles import COLOURS, STYLES, paint, resize
from unweave.data.datasets import load

FEW = Drawings(copies=3, limit=300)


def pairs(data: CaptionedImages) -> set[tuple[str, str]]:
    return {(row["object"], row["colour"]) for row in data.rows}


def test_a_seed_gives_the_same_drawings():
    first, second, other = (Drawings(copies=2, limit=50, seed=seed).draw() for seed in (1, 1, 2))
    for one, repetition, different in zip(first, second, other, strict=True):
        assert torch.equal(one.images, repetition.images) and one.rows == repetition.rows
        assert one.rows != different.rows


def test_sizes():
    train, held_out = Drawings().draw()
    assert train.images.shape == (4 * 1437, 3, 16, 16) and held_out.images.shape == (360, 3, 16, 16)
    assert train.images.dtype == torch.uint8


def test_captions_say_what_an_image_shows():
    for data in FEW.draw():
        for row in data.rows:
            factors = [factor for factor in FACTORS if row[factor] in row["text"].split()]
            possible = {caption(template, row) for template in TEMPLATES}
            assert row["text"] in possible and "object" in factors


def test_an_article_goes_by_the_letter_as_in_the_data_of_kept_models():
    assert caption("a {style} {object}", {"style": "outlined", "object": "one"}) == "an outlined one"
    assert caption("a photo of a {object}", {"object": "one"}) == "a photo of an one"


def test_an_image_has_the_colour_and_the_shape_of_its_row():
    train, _ = FEW.draw()
    paints = {name: torch.tensor(value, dtype=torch.float64) for name, value in COLOURS.items()}
    for image, row in zip(train.images.double(), train.rows, strict=True):
        brightest = image.flatten(1)[:, image.sum(0).argmax()]
        nearest = min(
            paints, key=lambda name: float(torch.dist(brightest / brightest.max(), paints[name] / 255))
        )
        assert nearest == row["colour"]


def test_objects_are_the_labels_of_the_data():
    train, held_out = Drawings(copies=2).draw()
    for data, source, copies in zip((train, held_out), load("digit-images"), (2, 1), strict=True):
        numbers = factor_numbers(data, FEW.names)["object"]
        assert torch.equal(numbers, source.labels.repeat_interleave(copies))


def test_a_pair_of_each_object_is_never_drawn():
    left_out = set(FEW.held_out_pairs)
    assert len({name for name, _ in left_out}) == 10
    for data in FEW.draw():
        assert not pairs(data) & left_out
    train, _ = Drawings().draw()
    assert len(pairs(train)) == 10 * 6 - 10
    all_pairs, _ = FEW.draw_every_pair()
    assert pairs(all_pairs) >= left_out


def test_copies_differ_and_looks_are_balanced():
    train, _ = Drawings().draw()
    looks = [(row["object"], row["colour"], row["style"]) for row in train.rows]
    for start in range(0, len(looks), 4):
        assert len(set(looks[start : start + 4])) == 4
    counts = Counter(looks).values()
    assert len(counts) == 200 and max(counts) - min(counts) <= 4


def test_prompts_that_were_never_trained():
    train, _ = Drawings().draw()
    train_captions = set(train.captions)
    all_captions = {row["text"] for row in FEW.prompts()}
    assert train_captions <= all_captions and len(all_captions) > 300
    for rows in (FEW.prompts(held_out=True), FEW.prompts(HELD_OUT_TEMPLATES)):
        assert rows and not {row["text"] for row in rows} & all_captions
    assert {(row["object"], row["colour"]) for row in FEW.prompts(held_out=True)} == set(FEW.held_out_pairs)


def test_a_prompt_names_only_the_factors_of_its_template():
    rows = {row["text"]: row for row in FEW.prompts()}
    assert rows["a photo of an eight"] == {"text": "a photo of an eight", "object": "eight"}
    assert rows["a bold blue zero"] == {
        "text": "a bold blue zero",
        "object": "zero",
        "colour": "blue",
        "style": "bold",
    }


def test_words_of_an_object_hold_no_other_object():
    for subject in ("digits", "garments"):
        names = Drawings(subject).names
        words = [word for values in names.values() for word in values]
        assert len(set(words)) == len(words) == 20 and all(word.isalpha() for word in words)


def test_a_folder_holds_the_drawings(tmp_path: Path):
    parts = Drawings(copies=1, limit=40).draw()
    for before, after in zip(parts, read_captioned(write_captioned(tmp_path / "data", *parts)), strict=True):
        assert after is not None and after.rows == before.rows and torch.equal(after.images, before.images)
        concept = Concept(column="object", values=("three",))
        assert torch.equal(concept.holds(after), Concept(words=("a three",)).holds(after))
    with pytest.raises(ValueError, match="exists"):
        write_captioned(tmp_path / "data", *parts)


def test_an_unknown_factor_is_refused():
    data, _ = FEW.draw()
    with pytest.raises(ValueError, match="style of 00000.png must be one of flat, found"):
        factor_numbers(data, {"style": ("flat",)})


@for_each(
    ("settings", "message"),
    [
        ({"subject": "digit"}, "unknown subject 'digit' .did you mean 'digits'"),
        ({"copies": 0}, "copies must be in"),
        ({"copies": 21}, "copies must be in"),
        ({"size": 4}, "size at least 8"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Drawings(**settings)


def test_a_frame_surrounds_the_plain_shape():
    shapes = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    styles = torch.tensor([list(STYLES).index(name) for name in ("plain", "framed")])
    plain_shape, framed_shape = paint(shapes, torch.zeros(2, dtype=torch.int64), styles)
    interior = torch.zeros(16, 16, dtype=torch.bool)
    interior[1:-1, 1:-1] = True
    assert torch.equal(framed_shape[:, interior], plain_shape[:, interior])
    assert (framed_shape[:, ~interior] == torch.tensor(COLOURS["red"])[:, None]).all()


def test_a_bold_shape_covers_the_plain_one_and_an_outline_lies_within_it():
    shapes = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1, 1)
    styles = torch.tensor([list(STYLES).index(name) for name in ("outlined", "plain", "bold")])
    outline, plain, bold = paint(shapes, torch.zeros(3, dtype=torch.int64), styles)
    assert (outline <= plain).all() and (plain <= bold).all() and not torch.equal(plain, bold)


def test_a_digit_is_resized_as_pillow_does():
    level = load_digits().images[0].astype(np.float32) / 16
    expected = np.asarray(Image.fromarray(level).resize((16, 16), Image.Resampling.BICUBIC)).clip(0, 1)
    result = resize(torch.from_numpy(np.rint(level * 255).astype(np.uint8))[None, None], 16)[0, 0].numpy()
    assert np.abs(result - expected).max() < 1 / 255
