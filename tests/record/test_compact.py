"""A compact record is read back as the record that it was made of, and its files only together."""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from records import synthetic
from unweave.cli import main
from unweave.record import record
from unweave.record.compact import read_record
from unweave.record.digest import digest_of
from unweave.record.files import sha256

ROOT = Path(__file__).parents[2]
KEPT = sorted((ROOT / "records").glob("*.json"))
in_the_clone = pytest.mark.skipif(not KEPT, reason="the records are in the clone only")


@pytest.fixture(scope="module")
def compact():
    """The writer, which is a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import compact

        yield compact
    del sys.modules["compact"]


def uri(pixels: np.ndarray, form: str = "png") -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form.upper())
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


def draw_picture(rng: np.random.Generator, *, smooth: bool = False) -> np.ndarray:
    """A picture of eight colours, clear or not; or of a slope, which loss halves."""
    if smooth:
        slope = np.add.outer(np.arange(256), np.arange(256)) / 2
        return np.repeat((slope + rng.normal(0, 3, (256, 256))).clip(0, 255)[..., None], 3, -1).astype("u1")
    return rng.choice(np.array([0, 255], dtype=np.uint8), (24, 24, 4))


def test_a_record_of_a_run_is_the_same_in_its_compact_form(compact, tmp_path):
    record.write(synthetic(), tmp_path)
    data = json.loads((tmp_path / "record.json").read_text())
    compact.write_compact(record.load(tmp_path), tmp_path / "small.json")
    assert json.dumps(read_record(tmp_path / "small.json")) == json.dumps(data), "with its digest and order"
    assert record.load(tmp_path / "small.json") == record.load(tmp_path)
    summary = json.loads((tmp_path / "small.json").read_text())
    assert summary["files"].keys() == {each.name for each in (tmp_path / "small").iterdir()}
    assert "scores.parquet" in summary["files"]


leaf = st.one_of(st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.floats(), st.text(max_size=3))
tree = st.recursive(
    leaf,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=12,
)


@given(parts=st.lists(tree, min_size=6, max_size=6))
@settings(deadline=None, max_examples=25)
def test_any_values_at_the_places_of_tables_come_back_with_their_types(compact, tmp_path_factory, parts):
    one, two, three, four, five, six = parts
    method = {"per_seed": one, "scores": two, "repr": three}
    stage = {"methods": {"a": method, "b": dict(method)}, "search": {"a": four}, "recipe": {"methods": six}}
    data = {
        "question": "?",
        "stages": {"s/1": stage, "t": {"comparisons": five}},
        "runs": four,
        "summary": six,
    }
    place = tmp_path_factory.mktemp("any") / "made.json"
    compact.write_compact(data, place)
    assert json.dumps(read_record(place)) == json.dumps(data)


def test_methods_and_retrained_models_have_tables_of_their_own(compact, tmp_path):
    rows = {"methods": {"a": {"per_seed": {"ua": [1.0, 2.0]}}}, "reference": {"per_seed": {"ua": [3.0, 4.0]}}}
    compact.write_compact({"stages": {"s": rows}}, tmp_path / "made.json")
    assert read_record(tmp_path / "made.json") == {"stages": {"s": rows}}


@pytest.mark.parametrize("place", [[], ["schema", "picture"]])
def test_a_place_that_no_record_has_is_refused(tmp_path, place):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.webp").touch()
    files = {"a.webp": {"place": place, "sha256": sha256(tmp_path / "made" / "a.webp")}}
    (tmp_path / "made.json").write_text(json.dumps({"schema": record.SCHEMA, "files": files}))
    with pytest.raises(ValueError, match="made.json: 'files' must hold"):
        read_record(tmp_path / "made.json")


def test_the_columns_of_a_table_are_the_keys_of_its_values(compact, tmp_path):
    from pyarrow import parquet

    compact.write_compact({"runs": [{"seed": 7, "gap": 0.1, "failed": None}]}, tmp_path / "made.json")
    rows = parquet.read_table(tmp_path / "made" / "runs.parquet").to_pylist()
    assert [(row["run"], row["figure"], row["value"], row["text"]) for row in rows] == [
        (0, "seed", 7.0, "7"),
        (0, "gap", 0.1, None),
        (0, "failed", None, None),
    ]


def test_pictures_lose_no_pixel_unless_that_halves_them(compact, tmp_path):
    rng, data = np.random.default_rng(0), synthetic()
    noise, slope = draw_picture(rng), draw_picture(rng, smooth=True)
    data["stages"]["trace"]["sheets"] = {"lur:recover": uri(noise), "original": uri(slope)}
    compact.write_compact(data, tmp_path / "made.json")
    sheets = record.load(tmp_path / "made.json")["stages"]["trace"]["sheets"]
    assert (pixels(sheets["lur:recover"]) == noise).all()
    difference = pixels(sheets["original"])[..., :3].astype(int) - slope
    assert 0 < np.abs(difference).mean() < 5
    assert {each.name for each in (tmp_path / "made").glob("*.webp")} == {
        "trace-lur-recover.webp",
        "trace-original.webp",
    }
    assert digest_of(read_record(tmp_path / "made.json")) == read_record(tmp_path / "made.json")["digest"]
    compact.write_compact(record.load(tmp_path / "made.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "made.json").read_bytes(), "encoded once"


def test_a_record_without_pictures_keeps_everything_else(compact):
    data = synthetic()
    data["stages"]["trace"]["sheets"] = {"original": uri(draw_picture(np.random.default_rng(0)))}
    without = compact.drop_pictures(data)
    assert without["stages"]["trace"].pop("sheets") == {}
    assert data["stages"]["trace"].pop("sheets"), "the caller keeps them"
    assert without == json.loads(json.dumps(data))


def test_an_earlier_record_stays_if_another_would_be_read_back(compact, tmp_path, monkeypatch):
    compact.write_compact(synthetic(), tmp_path / "made.json")
    files = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    monkeypatch.setattr(compact, "read_record", lambda place: {})
    with pytest.raises(RuntimeError, match="would not be read back"):
        compact.write_compact(synthetic() | {"other": 1}, tmp_path / "made.json")
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == files


def test_a_record_without_large_parts_is_one_file_and_leaves_no_earlier_one(compact, tmp_path):
    compact.write_compact({"runs": [{"gap": 0.1}]}, tmp_path / "made.json")
    compact.write_compact({"question": "?", "runs": []}, tmp_path / "made.json")
    assert json.loads((tmp_path / "made.json").read_text()) == {"question": "?", "runs": []}
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    "command", [["report", "made.json", "--out", "page"], ["bench", "table", "made.json"]]
)
def test_a_part_that_is_missing_or_of_another_study_is_refused_by_name(
    compact, tmp_path, monkeypatch, capsys, command
):
    monkeypatch.chdir(tmp_path)
    compact.write_compact(synthetic(), tmp_path / "made.json")
    part = tmp_path / "made" / "scores.parquet"
    part.write_bytes(part.read_bytes()[:-9] + b"different")
    assert main(command) == 2
    assert "scores.parquet is not the file that the summary of its record names" in capsys.readouterr().err
    part.unlink()
    with pytest.raises(
        ValueError, match=r"expected .*scores\.parquet, a part of the record, found none: put"
    ):
        record.load("made.json")


def test_a_changed_summary_of_a_record_with_a_digest_is_refused(compact, tmp_path):
    compact.write_compact(synthetic(), tmp_path / "made.json")
    content = json.loads((tmp_path / "made.json").read_text())
    content["stages"]["trace"]["floor"] = 0.5
    (tmp_path / "made.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"made\.json was changed after it was written"):
        record.load(tmp_path / "made.json")


@in_the_clone
def test_every_record_in_the_tree_is_whole():
    for place in KEPT:
        assert read_record(place), place
    assert record.load(ROOT / "records" / "cifar10-partial.json")["stages"]


@in_the_clone
def test_the_records_stay_under_four_megabytes():
    assert sum(each.stat().st_size for each in (ROOT / "records").rglob("*") if each.is_file()) <= 4 * 2**20
