"""Data sets in Arrow files are read by columns, and give what reading item by item gives."""

import itertools
import shutil

import pytest
import torch

from for_each import for_each
from unweave.cli.project.user_code import source
from unweave.data.arrow_dataset import ArrowDataset, read_by_columns
from unweave.data.other_libraries import OfAnotherLibrary
from unweave.data.user_dataset import UserDataset

datasets = pytest.importorskip("datasets")

# Python 3.12 and later warn when a process with threads starts another one, as a DataLoader does
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

N = 7
ROWS = {
    "x": [[[float(i), 2.0], [i + 0.5, 1.0]] for i in range(N)],
    "n": list(range(N)),
    "label": [i % 3 for i in range(N)],
    "id": [f"r{i}" for i in range(N)],
}
ORDER = [torch.tensor([3, 1, 6]), torch.tensor([0])]


def rows(columns=tuple(ROWS), **changed):
    return datasets.Dataset.from_dict({name: ROWS[name] for name in columns} | changed)


def format_columns(data, *tensors):
    return data.with_format("torch", columns=list(tensors), output_all_columns=True)


@pytest.mark.parametrize(
    ("columns", "tensors"),
    [
        (("x", "label", "id"), ("x",)),
        (("x", "n", "label", "id"), ("x", "n")),
        (("label", "n"), ("n", "label")),
    ],
)
@for_each("has_selection", [False, True])
def test_it_gives_what_single_items_give(columns, tensors, has_selection):
    data = format_columns(rows(columns), *tensors)
    data = data.select([5, 2, 0, 6, 1, 4, 3]) if has_selection else data
    ours, slow = source(data, "train"), UserDataset(OfAnotherLibrary(data))
    assert isinstance(ours, ArrowDataset)
    assert torch.equal(ours.labels, slow.labels) and ours.labels.dtype == torch.int64
    assert ours.names == slow.names
    for a, b in zip(ours.stream(ORDER), slow.stream(ORDER), strict=True):
        assert (
            torch.equal(a.ids, b.ids) and torch.equal(a.label, b.label) and type(a.inputs) is type(b.inputs)
        )
        pairs = zip(dict(enumerate_inputs(a)).items(), dict(enumerate_inputs(b)).items(), strict=True)
        assert all(i == j and torch.equal(u, v) and u.dtype == v.dtype for (i, u), (j, v) in pairs)


@forks
@pytest.mark.parametrize("prefetch", [1, 3])
def test_workers_read_the_same_bits_in_the_same_order(prefetch):
    data = read(rows(), "x", "n")
    order = [torch.tensor(each) for each in ([3, 1, 6], [0], [5, 2], [4, 4], [1])]
    reader = data.read_ahead(workers=2, prefetch=prefetch)
    assert (reader.workers, reader.prefetch, data.workers) == (2, prefetch, 0)
    ours, theirs = list(reader.stream(order)), list(data.stream(order))
    assert [each.ids.tolist() for each in ours] == [each.tolist() for each in order]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.label, b.label)
        for key in ("x", "n"):
            assert torch.equal(a.inputs[key], b.inputs[key]) and a.inputs[key].dtype == b.inputs[key].dtype
    for a, b in zip(reader.stream(order[2:]), ours[2:], strict=True):
        assert torch.equal(a.inputs["x"], b.inputs["x"])


@forks
def test_an_endless_order_is_read_as_far_as_is_asked():
    reader = read(rows(("x", "label")), "x").read_ahead(workers=1)
    order = (torch.tensor([i % N]) for i in itertools.count())
    assert [raw.ids.item() for raw in itertools.islice(reader.stream(order), 9)] == [i % N for i in range(9)]


@pytest.mark.gpu
@forks
def test_workers_pin_memory_for_an_accelerator():
    data = read(rows(("x", "label")), "x")
    for a, b in zip(data.read_ahead(workers=1).to("cuda").stream(ORDER), data.stream(ORDER), strict=True):
        assert a.inputs[0].is_cuda and torch.equal(a.inputs[0].cpu(), b.inputs[0])


def read(data, *tensors) -> ArrowDataset:
    dataset = source(format_columns(data, *tensors), "train")
    assert isinstance(dataset, ArrowDataset)
    return dataset


def enumerate_inputs(raw):
    return sorted(raw.inputs.items()) if isinstance(raw.inputs, dict) else enumerate(raw.inputs)


def test_the_digest_is_of_the_values():
    def digest(data, *tensors):
        return source(format_columns(data, *tensors), "train").digest()

    base = digest(rows(), "x", "n")
    assert (
        digest(datasets.concatenate_datasets([rows().select(range(3)), rows().select(range(3, N))]), "x", "n")
        == base
    )
    variants = [
        rows(label=[0] * N),
        rows(id=[f"s{i}" for i in range(N)]),
        rows(id=["r", "0r1", *ROWS["id"][2:]]),
        rows(n=[9, *range(1, N)]),
        rows(n=[float(i) for i in range(N)]),
        rows(x=[[[*a, *b]] for a, b in ROWS["x"]]),
        rows().select(range(N - 1)),
        rows().select([1, 0, *range(2, N)]),
    ]
    digests = {digest(each, "x", "n") for each in variants} | {digest(rows(("x", "label", "id")), "x"), base}
    assert len(digests) == len(variants) + 2


@for_each(
    "data",
    [
        rows(),
        format_columns(rows(), "x"),  # "n" is no tensor
        rows().with_transform(lambda batch: batch),
        format_columns(rows(x=[[1.0] * (1 + i % 2) for i in range(N)]), "x", "n"),
        format_columns(rows(label=[0.5] * N), "x", "n"),
        format_columns(rows(n=[None, *range(1, N)]), "x", "n"),
        format_columns(rows(id=list(range(N))), "x", "n"),
    ],
)
def test_other_data_is_read_item_by_item(data):
    assert read_by_columns(OfAnotherLibrary(data)) is None


def test_torch_data_is_read_item_by_item():
    assert read_by_columns(torch.utils.data.TensorDataset(torch.zeros(2))) is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", *ROWS["id"][1:-1], "a"]}, "ids must be unique, found 'a' in 2 items"),
        (
            {"label": [0, 1, 2, 3, -4, 0, 0]},
            "item 4 must have an integer of at least 0 as its label, found -4",
        ),
    ],
)
def test_a_repeated_id_and_a_negative_label_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        _ = source(format_columns(rows(**columns), "x", "n"), "train").labels


@for_each("kind", ["int8", "uint16", "int32", "int64", "float16", "float32", "float64", "bool"])
def test_numbers_have_the_types_that_the_library_gives(kind):
    pa = pytest.importorskip("pyarrow")
    numbers = (
        pa.array([0, 1, 1], "int8").cast("float32").cast(kind)
        if kind != "float16"
        else pa.array([torch.tensor(v).half().numpy()[()] for v in (0.0, 1.0, 1.0)])
    )
    table = pa.table({"x": numbers, "label": pa.array([0, 1, 0])})
    data = format_columns(datasets.Dataset(table), "x")
    (a,), (b,) = (
        source(data, "train").stream(ORDER[1:]),
        UserDataset(OfAnotherLibrary(data)).stream(ORDER[1:]),
    )
    assert a.inputs[0].dtype == b.inputs[0].dtype and torch.equal(a.inputs[0], b.inputs[0])


@for_each("blocks", [1, 3])
def test_a_file_that_ends_early_is_refused(blocks, tmp_path):
    """Cut between two blocks it reads without an error, as shorter data."""
    pa = pytest.importorskip("pyarrow")
    schema, file = pa.schema({"x": pa.list_(pa.float32(), 2), "label": pa.int64()}), tmp_path / "rows.arrow"
    ends = []
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for i in range(3):
            x = pa.array([[0.0, float(i)]] * 4, schema.field("x").type)
            writer.write_batch(pa.record_batch([x, pa.array([i] * 4)], schema=schema))
            ends.append(sink.tell())
    dataset = source(format_columns(datasets.Dataset.from_file(str(file)), "x"), "train")
    assert isinstance(dataset, ArrowDataset) and len(dataset) == 12
    cut_file = tmp_path / f"cut{blocks}.arrow"
    cut_file.write_bytes(file.read_bytes()[: ends[blocks - 1]])
    rows = datasets.Dataset.from_file(str(cut_file))
    assert len(rows) == 4 * blocks
    with pytest.raises(ValueError, match=f"cut{blocks}.arrow ends early: .* write or download it again"):
        source(format_columns(rows, "x"), "train")


def test_mapped_rows_whose_file_was_removed_are_read(tmp_path):
    rows = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 4, "label": [0, 1, 0, 1]})
    rows.save_to_disk(tmp_path / "rows")
    mapped_rows = datasets.load_from_disk(tmp_path / "rows")
    shutil.rmtree(tmp_path / "rows")
    assert len(source(format_columns(mapped_rows, "x"), "train")) == 4
