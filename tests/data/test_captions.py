import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unweave.data.captions import Concept, hold_out, holds_phrase, read_captioned

CAPTIONS = ["a red three", "A blue Three!", "thirty-three reds", "a red two", "a two"]


def write(folder: Path, rows: list[dict], *, form: str = "jsonl", size: int = 4) -> Path:
    folder.mkdir(parents=True)
    for i, row in enumerate(rows):
        pixels = np.full((size, size, 3), i, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / row["file_name"])
    if form == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (folder / f"metadata.{form}").write_text("\n".join(lines) + "\n")
    return folder


def rows(captions: list[str] = CAPTIONS) -> list[dict]:
    return [{"file_name": f"{i}.png", "text": text, "n": i % 2} for i, text in enumerate(captions)]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_images_are_read_with_their_captions(form: str, tmp_path: Path):
    data, test = read_captioned(write(tmp_path / "images", rows(), form=form))
    assert test is None and data.captions == CAPTIONS and data.names[2] == "2.png"
    assert data.images.shape == (5, 3, 4, 4) and data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert data.part(torch.tensor([3])).captions == ["a red two"]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_metadata_may_begin_with_a_byte_order_mark(form: str, tmp_path: Path):
    place = write(tmp_path / "images", rows(), form=form)
    path = place / f"metadata.{form}"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_captioned(place)[0].captions == CAPTIONS


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_caption_that_is_empty_is_refused(empty: str | None, tmp_path: Path):
    place = write(tmp_path / "images", [*rows(), {"file_name": "5.png", "text": empty}])
    with pytest.raises(ValueError, match="row 6 of .* has no 'text'"):
        read_captioned(place)


def test_a_test_part_is_read(tmp_path: Path):
    for part in ("train", "test"):
        write(tmp_path / "images" / part, rows())
    train, test = read_captioned(tmp_path / "images")
    assert test is not None and len(train) == len(test) == 5


@pytest.mark.parametrize(
    ("concept", "expected"),
    [
        (Concept(words=("a three",)), [0, 1, 2]),
        (Concept(words=("three", "red two")), [0, 1, 2, 3]),
        (Concept(words=("red",)), [0, 3]),
        (Concept(prompts=("a red three", "a two")), [0, 4]),
        (Concept(column="n", values=("1",)), [1, 3]),
    ],
)
def test_captions_that_hold_a_concept(concept: Concept, expected: list[int], tmp_path: Path):
    data, _ = read_captioned(write(tmp_path / "images", rows()))
    assert concept.holds(data).nonzero()[:, 0].tolist() == expected


def test_a_listed_caption_is_found_whatever_space_surrounds_it(tmp_path: Path):
    padded_rows = [{**row, "text": f" {row['text']} "} for row in rows()]
    data, _ = read_captioned(write(tmp_path / "images", padded_rows))
    assert Concept(prompts=("a two",)).holds(data).nonzero()[:, 0].tolist() == [4]


def test_a_phrase_may_have_the_other_article():
    assert holds_phrase("a photo of an one", "a photo of a one")
    assert holds_phrase("a photo of an eight", "photo of a eight") and holds_phrase("a one", "an one")
    assert not holds_phrase("a photo of the one", "a photo of a one")


def test_a_name_that_ends_in_a_letter_has_no_article_there():
    assert holds_phrase("a vaccine for hepatitis A", "hepatitis a")
    assert not holds_phrase("hepatitis an", "hepatitis a") and not holds_phrase("an hour", "a")


def test_a_phrase_without_a_word_is_nowhere():
    assert not holds_phrase("a red cat...", "...") and not holds_phrase("a red cat", "")


def test_a_phrase_is_whole_words_in_a_row():
    assert holds_phrase("a bold, blue zero", "Blue zero") and not holds_phrase("a bluezero", "blue zero")
    assert not holds_phrase("a blue bold zero", "blue zero") and not holds_phrase("freedom", "red")


@pytest.mark.parametrize(
    ("concept", "message"),
    [
        (Concept(words=("four",)), "no caption in .* holds 'four', such as 'a red three': name"),
        (Concept(prompts=("a red",)), "no caption in .* holds 'a red'"),
        (Concept(column="n", values=("7",)), "no image in .* has the value '7', found others, such as '0'"),
        (Concept(column="m", values=("0",)), "metadata of .* has no column 'm', found n, text"),
    ],
)
def test_a_concept_that_no_caption_holds_is_refused(concept: Concept, message: str, tmp_path: Path):
    data, _ = read_captioned(write(tmp_path / "images", rows()))
    with pytest.raises(ValueError, match=message):
        concept.holds(data)


def test_images_may_lie_in_folders(tmp_path: Path):
    folder = write(tmp_path / "images", rows())
    (folder / "more").mkdir()
    (folder / "4.png").rename(folder / "more" / "4.png")
    with pytest.raises(ValueError, match=r"1 captions without an image, such as 4\.png"):
        read_captioned(folder)
    lines(folder, (folder / "metadata.jsonl").read_text().replace("4.png", "more/4.png"))
    data, _ = read_captioned(folder)
    assert data.names[4] == "more/4.png" and data.images[4].unique().tolist() == [4]
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "5.png")
    for name, path in (("whole", f"{tmp_path}/5.png"), ("above", "../5.png")):
        bad = write(tmp_path / name, [{"file_name": "5.png", "text": "a"}])
        lines(bad, json.dumps({"file_name": path, "text": "a"}))
        with pytest.raises(ValueError, match="1 captions without an image, such as .*5.png"):
            read_captioned(bad)
    (folder / "more" / "5.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(ValueError, match="1 images without a caption, such as more/5.png"):
        read_captioned(folder)


def test_a_fifth_of_each_kind_is_held_out():
    holds = torch.arange(30) < 10
    train_ids, test_ids = hold_out(holds)
    assert sorted([*train_ids.tolist(), *test_ids.tolist()]) == list(range(30))
    assert int(holds[test_ids].sum()) == 2 and len(test_ids) == 6
    with pytest.raises(ValueError, match="two images with the concept are needed, .* found 1"):
        hold_out(torch.arange(30) < 1)


def other_size(folder: Path) -> None:
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(folder / "1.png")


def sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder / "1.png")


def floats(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(folder / "1.tiff")
    (folder / "1.png").unlink()
    lines(folder, (folder / "metadata.jsonl").read_text().replace('"1.png"', '"1.tiff"'))


def lines(folder: Path, text: str) -> None:
    (folder / "metadata.jsonl").write_text(text)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda f: (f / "metadata.jsonl").unlink(),
            "must hold one of metadata.jsonl and metadata.csv .*neither",
        ),
        (lambda f: (f / "metadata.csv").write_text("a"), "found metadata.jsonl and metadata.csv"),
        (lambda f: (f / "1.png").unlink(), "has 1 captions without an image, such as 1.png"),
        (
            lambda f: (f / "x.png").write_bytes((f / "1.png").read_bytes()),
            "1 images without a caption.*x.png",
        ),
        (
            lambda f: lines(f, json.dumps(rows()[0]) + "\n" + json.dumps(rows()[0])),
            "images without a caption",
        ),
        (lambda f: lines(f, "{"), "metadata.jsonl can't be read"),
        (lambda f: lines(f, "[]"), "must hold a JSON object"),
        (lambda f: lines(f, ""), "has no rows"),
        (lambda f: lines(f, '{"file_name": "0.png", "caption": "x"}'), "row 1 of .* has no 'text', found"),
        (other_size, "images must be of one size, found 4 x 4 in .* and 4 x 5 in .*1.png"),
        (sixteen_bits, "must have eight bits a channel"),
        (floats, "images must be .png, .jpg, .jpeg, found 1.tiff in .*: convert it"),
        (lambda f: (f / "1.png").write_bytes(b"no"), "is truncated or no image"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(harm, message: str, tmp_path: Path):
    folder = write(tmp_path / "images", rows())
    harm(folder)
    with pytest.raises(ValueError, match=message):
        read_captioned(folder)
    with pytest.raises(ValueError, match="expected a folder of images with captions"):
        read_captioned(tmp_path / "nowhere")
