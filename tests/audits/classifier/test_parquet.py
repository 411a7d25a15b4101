from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from audits.answers import SIZES, draw_evidence, replace_logits
from for_each import for_each
from unweave.audits.classifier.parquet import load, load_unseen, save


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logits.parquet"


def columns(n: int = 2) -> dict[str, list]:
    """A file as any other program may write it: two examples of each part."""
    parts = [part for part in ("forget", "retain", "calibration", "test") for _ in range(n)]
    return {
        "part": parts,
        "id": [f"image-{i}" for i in range(len(parts))],
        "label": [i % 2 for i in range(len(parts))],
        "logits": [[0.5, float(i)] for i in range(len(parts))],
    }


def write_evidence(path, **changes):
    pq.write_table(pa.table({**columns(), **changes}), path)
    return path


@pytest.mark.parametrize("names", [False, True])
def test_what_is_saved_is_loaded_bit_for_bit(path, names):
    evidence = replace(draw_evidence(0), forgotten_classes=(1, 3))
    if names:
        ids = {part: np.array([f"{part}/{i}" for i in part_ids]) for part, part_ids in evidence.ids.items()}
        evidence = replace(evidence, ids=ids)
    save(evidence, path)
    copy = load(path)
    assert copy.forgotten_classes == (1, 3)
    for part in evidence.logits:
        assert copy.logits[part].dtype == np.float32
        assert (copy.logits[part] == evidence.logits[part]).all()
        assert (copy.labels[part] == evidence.labels[part]).all()
        assert copy.ids[part].tolist() == evidence.ids[part].tolist()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_from_elsewhere_is_read(path):
    evidence = load(write_evidence(path), forgotten_classes=(1,))
    assert evidence.logits["retain"].tolist() == [[0.5, 2.0], [0.5, 3.0]]
    assert evidence.ids["test"].tolist() == ["image-6", "image-7"]
    assert evidence.forgotten_classes == (1,)


def test_a_failing_write_leaves_the_old_file(path, monkeypatch):
    save(draw_evidence(0), path)
    content = path.read_bytes()

    def full(writer, table):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        save(draw_evidence(1), path)
    assert path.read_bytes() == content
    assert len(list(path.parent.iterdir())) == 1


@for_each(
    ("changes", "message"),
    [
        ({"logits": [[0.5, float("nan")]] * 8}, "logits contain NaN or infinity .* first at id image-0"),
        ({"logits": [[0.5, float("inf")]] * 8}, "logits contain NaN or infinity"),
        ({"logits": [[0.5], [0.5, 1.0]] * 4}, r"one logit per class in every row .* found \[1, 2\]"),
        ({"part": ["forget"] * 8}, r"missing \['calibration', 'retain', 'test'\]"),
        (
            {"part": ["forget", "retain", "calibration", "test", "train"] + ["test"] * 3},
            r"unknown \['train'\]",
        ),
        ({"label": [0, 2] * 4}, r"must lie in 0..1, found 2"),
        ({"label": [0, -1] * 4}, r"must lie in 0..1, found -1"),
        ({"id": ["same"] * 8}, "names an id twice"),
        ({"label": [0, 0.9] * 4}, r"label of .* must be whole numbers, found: .*0\.9"),
        ({"label": [0.0, float("nan")] * 4}, "label of .* must be whole numbers"),
        ({"label": ["cat", "dog"] * 4}, "label of .* must be whole numbers, found: .*'(cat|dog)'"),
        ({"label": [{"class": 0}] * 8}, "label of .* must be whole numbers"),
        ({"label": [0, None] * 4}, r"label of .* is empty in row 1"),
        ({"logits": [[0.5, 1.0], None] * 4}, r"logits of .* is empty in row 1"),
        ({"logits": [0.5] * 8}, "logits of .* must be lists of numbers, found double"),
        ({"logits": [{"cat": 0.5}] * 8}, "logits of .* must be lists of numbers, found struct"),
        ({"logits": [["0.5", "high"]] * 8}, "logits of .* must be lists of numbers, found list"),
        ({"id": [*columns()["id"][:7], None]}, r"id of .* is empty in row 7"),
        ({"id": [{"name": i} for i in range(8)]}, "id of .* must be names or positions, found struct"),
        ({"part": [["forget"]] * 8}, "part of .* must be names, found list"),
    ],
)
def test_bad_files_are_refused_by_what_is_wrong(path, changes, message):
    with pytest.raises(ValueError, match=message):
        load(write_evidence(path, **changes))


def test_missing_files_and_columns_and_other_formats_are_refused(path):
    with pytest.raises(ValueError, match="found no such file"):
        load(path)
    path.write_bytes(b"part,id,label,logits\n" * 4)
    with pytest.raises(ValueError, match="expected a parquet file"):
        load(path)
    pq.write_table(pa.table({"part": ["forget"]}), path)
    with pytest.raises(ValueError, match="must have the columns"):
        load(path)


def test_labels_and_logits_of_other_types_are_read(path):
    names = pa.array(columns()["part"]).dictionary_encode()
    logits = pa.array(columns()["logits"], pa.list_(pa.float64(), 2))
    evidence = load(write_evidence(path, part=names, label=[0.0, 1.0] * 4, logits=logits))
    assert evidence.labels["test"].tolist() == [0, 1]
    assert evidence.logits["retain"].tolist() == [[0.5, 2.0], [0.5, 3.0]]


def test_pieces_of_different_widths_are_refused(path, monkeypatch):
    monkeypatch.setattr("unweave.audits.classifier.columns.PIECE", 2)
    with pytest.raises(ValueError, match=r"one logit per class in every row .* found \[2, 3\]"):
        load(write_evidence(path, logits=[[0.5, 1.0]] * 4 + [[0.5, 1.0, 2.0]] * 4))


@pytest.mark.parametrize("at", [0, 5])
def test_an_empty_cell_is_named_by_its_row_in_the_file(path, monkeypatch, at):
    monkeypatch.setattr("unweave.audits.classifier.columns.PIECE", 2)
    logits = [[0.5, 1.0] if i != at else None for i in range(8)]
    with pytest.raises(ValueError, match=f"logits of .* is empty in row {at}"):
        load(write_evidence(path, logits=logits))


@pytest.mark.parametrize("kind", [pa.int16(), pa.float16(), pa.decimal128(8, 2)])
def test_other_numbers_are_read_as_float32(path, kind):
    logits = pa.array([[0.0, float(i)] for i in range(8)]).cast(pa.list_(kind))
    column = load(write_evidence(path, logits=logits)).logits["test"]
    assert column.dtype == np.float32 and column.tolist() == [[0, 6], [0, 7]]


@pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_garbled_file_is_refused_as_no_parquet(path, at):
    data = write_evidence(path).read_bytes()
    start = int(at * len(data))
    path.write_bytes(data[:start] + bytes(b ^ 0x5A for b in data[start : start + 40]) + data[start + 40 :])
    with pytest.raises(ValueError, match="expected a parquet file"):
        load(path)


def test_the_first_logit_that_is_none_is_named_in_the_order_of_the_file(path):
    table = {name: values[::-1] for name, values in columns().items()}
    table["logits"] = [[0.5, 1.0]] * 3 + [[0.5, float("nan")]] * 5
    with pytest.raises(ValueError, match="first at id image-4"):
        load(write_evidence(path, **table))


def test_rows_that_are_not_wanted_may_hold_nan(path):
    logits = [[0.5, 1.0]] * 3 + [[0.5, float("nan")]] + [[0.5, 1.0]] * 4
    evidence = load_unseen(write_evidence(path, logits=logits))
    assert evidence is not None and evidence.ids["retain"].tolist() == ["image-2"]


def test_nan_evidence_of_our_own_can_be_kept_but_is_refused_as_input(path):
    save(replace_logits(draw_evidence(0), test=np.full((120, 4), np.nan)), path)
    with pytest.raises(ValueError, match="NaN"):
        load(path)


@pytest.mark.parametrize("group", [7, 10**6])
def test_groups_of_rows_make_no_difference(path, monkeypatch, group):
    monkeypatch.setattr("unweave.audits.classifier.parquet.GROUP", 16 * group)
    names = {part: np.array([f"{part}/{i}" for i in range(n)]) for part, n in SIZES.items()}
    evidence = replace(draw_evidence(0), ids=names)
    save(evidence, path)
    copy = load(path)
    for part in SIZES:
        assert (copy.logits[part] == evidence.logits[part]).all()
        assert (copy.labels[part] == evidence.labels[part]).all()
        assert (copy.ids[part] == evidence.ids[part]).all()


def test_ids_that_are_objects_have_one_type_in_all_groups(path, monkeypatch):
    monkeypatch.setattr("unweave.audits.classifier.parquet.GROUP", 16 * 7)
    numbers = {
        part: np.array([0.5 * i if i > 10 else i for i in range(n)], object) for part, n in SIZES.items()
    }
    evidence = replace(draw_evidence(0), ids=numbers)
    save(evidence, path)
    assert pq.read_table(path)["id"].type == "double"


def test_rows_in_any_order_are_read(path, monkeypatch):
    monkeypatch.setattr("unweave.audits.classifier.parquet.GROUP", 16 * 30)
    evidence = draw_evidence(0)
    save(evidence, path)
    table = pq.read_table(path)
    order = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(order), path, row_group_size=70)
    copy = load(path).like(evidence)
    assert all((copy.logits[part] == evidence.logits[part]).all() for part in SIZES)
    assert all((copy.labels[part] == evidence.labels[part]).all() for part in SIZES)
