"""Any map-style data set is a source; whatever does not fit is refused by item."""

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from for_each import for_each
from unweave.data import Raw, Source
from unweave.data.in_memory import Resident
from unweave.data.user_dataset import UserDataset
from unweave.data.user_items import Items, refuse_other_reading

# Python 3.12 and later warn when a process with threads starts another one, as a DataLoader does
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Listed(Dataset[Any]):
    """A data set that is a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Any:
        return self.items[position]


def vector(i: int) -> torch.Tensor:
    return torch.tensor([float(i), -float(i)])


def user_dataset(items: list[Any], **settings: Any) -> UserDataset:
    return UserDataset(Listed(items), **settings)


def one(source: Source, ids: list[int]) -> Raw:
    (raw,) = source.stream([torch.tensor(ids)])
    return raw


def first(raw: Raw) -> torch.Tensor:
    assert isinstance(raw.inputs, tuple)
    return raw.inputs[0]


def pairs(n: int = 7) -> list[tuple[torch.Tensor, int]]:
    return [(vector(i), i % 3) for i in range(n)]


def records(n: int = 5) -> list[dict[str, Any]]:
    return [{"tokens": vector(i), "mask": vector(-i), "label": i % 2, "id": f"user-{i}"} for i in range(n)]


def test_it_is_a_source() -> None:
    assert isinstance(user_dataset(pairs()), Source)


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_it_hands_out_what_a_resident_set_does(workers: int) -> None:
    numbers, labels = torch.stack([vector(i) for i in range(7)]), torch.tensor([i % 3 for i in range(7)])
    order = [torch.tensor([6, 0, 3]), torch.tensor([1]), torch.tensor([2, 5])]
    ours = user_dataset(pairs(), workers=workers)
    resident = Resident(numbers, labels)
    assert torch.equal(ours.labels, resident.labels)
    for left, right in zip(ours.stream(order), resident.stream(order), strict=True):
        assert torch.equal(left.ids, right.ids)
        assert torch.equal(left.label, right.label)
        assert torch.equal(first(left), first(right))


def test_a_tensor_data_set_needs_nothing() -> None:
    source = UserDataset(TensorDataset(torch.arange(6.0).view(3, 2), torch.tensor([2, 0, 1])))
    assert source.labels.tolist() == [2, 0, 1]
    assert first(one(source, [2])).tolist() == [[4.0, 5.0]]


def test_a_dict_with_several_tensors_gives_keywords_and_names() -> None:
    raw = one(user_dataset(records()), [4, 1])
    assert isinstance(raw.inputs, dict)
    assert list(raw.inputs) == ["tokens", "mask"]
    assert raw.inputs["mask"].tolist() == [[-4.0, 4.0], [-1.0, 1.0]]
    assert user_dataset(records()).names == ("user-0", "user-1", "user-2", "user-3", "user-4")


def test_a_dict_with_one_tensor_gives_a_positional_argument() -> None:
    raw = one(user_dataset([{"x": vector(i), "labels": i} for i in range(3)]), [2])
    assert first(raw).tolist() == [[2.0, -2.0]]
    assert raw.label.tolist() == [2]
    assert user_dataset([{"x": vector(0), "labels": 0}]).names is None


def test_a_tuple_with_several_inputs_gives_them_in_order() -> None:
    raw = one(user_dataset([(vector(i), vector(10 + i), i) for i in range(3)]), [1])
    assert isinstance(raw.inputs, tuple)
    assert [value.tolist() for value in raw.inputs] == [[[1.0, -1.0]], [[11.0, -11.0]]]


def test_label_and_id_can_be_elsewhere() -> None:
    leading = user_dataset([(i, vector(i)) for i in range(3)], label=0)
    assert leading.labels.tolist() == [0, 1, 2]
    assert first(one(leading, [2])).tolist() == [[2.0, -2.0]]
    dataset = user_dataset(
        [{"x": vector(i), "kind": i, "key": f"k{i}"} for i in range(3)], label="kind", id="key"
    )
    assert dataset.labels.tolist() == [0, 1, 2]
    assert dataset.names == ("k0", "k1", "k2")


def test_reading_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    source = user_dataset(pairs())
    assert source.digest()
    one(source, [0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_endless_order_is_read_as_it_is_needed() -> None:
    def forever():
        while True:
            yield torch.tensor([1])

    stream = user_dataset(pairs()).stream(forever())
    assert [next(stream).ids.item() for _ in range(3)] == [1, 1, 1]


def test_to_moves_batches_and_keeps_what_was_read() -> None:
    class Counting(Listed):
        reads = 0

        def __getitem__(self, position: int) -> Any:
            self.reads += 1
            return self.items[position]

    dataset = Counting(pairs())
    source = UserDataset(dataset)
    assert source.labels.device.type == "cpu"
    reads = dataset.reads
    meta_source = source.to("meta")
    assert torch.equal(meta_source.labels, source.labels)
    assert dataset.reads == reads
    raw = one(meta_source, [0])
    assert {raw.ids.device.type, first(raw).device.type, raw.label.device.type} == {"meta"}


@forks
def test_the_digest_is_a_function_of_content() -> None:
    source = user_dataset(records())
    assert source.digest() == user_dataset(records(), workers=1).digest()
    variants = [records() for _ in range(4)]
    variants[0][2]["tokens"] = vector(9)
    variants[1][2]["label"] = 5
    variants[2][2]["id"] = "someone else"
    variants[3][2]["mask"] = variants[3][2]["mask"].double()
    digests = {
        source.digest(),
        *(user_dataset(items).digest() for items in variants),
        user_dataset(records()[::-1]).digest(),
    }
    assert len(digests) == 6


def test_values_without_a_numpy_type_have_a_digest() -> None:
    items = [(torch.ones(2, dtype=torch.bfloat16), 0), (torch.zeros((), dtype=torch.bfloat16), 1)]
    assert len(user_dataset(items).digest()) == 64


def test_a_data_set_that_draws_at_random_is_refused() -> None:
    class Augmenting(Listed):
        def __getitem__(self, position: int) -> Any:
            return torch.rand(4), 0

    with pytest.raises(
        ValueError, match=r"item 0 must be the same at every read.*without its random transforms"
    ):
        UserDataset(Augmenting(pairs()))


def replace_item(position: int, item: Any) -> list[Any]:
    """A good list of dicts with one item replaced."""
    items: list[Any] = records(9)
    items[position] = item
    return items


@for_each(
    ("item", "message"),
    [
        (
            {"tokens": vector(0), "mask": vector(0), "id": "a"},
            "item 6 must have one label under 'label' or 'lab",
        ),
        ({"tokens": vector(0), "label": 0, "labels": 0}, "item 6 must have one label"),
        ({"tokens": vector(0), "mask": vector(0), "label": 0.5, "id": "a"}, "item 6 .* label, found 0.5"),
        (
            {"tokens": vector(0), "mask": vector(0), "label": -1, "id": "a"},
            "item 6 .* at least 0 .* found -1",
        ),
        (
            {"tokens": vector(0), "mask": vector(0), "label": 0, "id": 3},
            r"item 6 .* string as its id, found 3",
        ),
        ({"tokens": vector(0), "mask": [1.0], "label": 0, "id": "a"}, "item 6, field 'mask' .* found list"),
        ({"label": 0, "id": "a"}, "item 6 must have a tensor besides its label"),
        ({"tokens": vector(0), "mask": vector(0), "label": 0}, "every item must have an id .* in item 6"),
        ({"tokens": vector(0), "mask": vector(0), "label": 0, "id": "user-2"}, "found 'user-2' in 2 items"),
        ((vector(0),), r"item 6 must be \(input..., label\) with the label at -1, found 1"),
        (vector(0), r"item 6 must be a tuple .* or a dict, found torch.Tensor"),
    ],
)
def test_an_item_that_does_not_fit_is_named(item: Any, message: str) -> None:
    source = user_dataset(replace_item(6, item))
    with pytest.raises(ValueError, match=message):
        _ = source.labels


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"tokens": torch.ones(3), "mask": vector(0), "label": 0},
            r"shape \[2\] in item 5 and \[3\] in item 6",
        ),
        (
            {"tokens": vector(0), "other": vector(0), "label": 0},
            "tokens, mask in item 5 and tokens, other in item 6",
        ),
    ],
)
def test_items_that_make_no_batch_are_named(item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one(user_dataset(replace_item(6, item)), [5, 6])


@forks
def test_an_error_in_a_worker_still_names_the_item() -> None:
    with pytest.raises(ValueError, match="^item 6 must have one label"):
        one(user_dataset(replace_item(6, {"tokens": vector(0)}), workers=1), [5, 6])


@forks
def test_workers_need_no_import_of_the_data_set() -> None:
    class Local(Listed):
        pass

    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert one(UserDataset(Local(pairs()), workers=1), [4]).label.tolist() == [1]
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_settings_for_dicts_are_refused_on_tuples() -> None:
    for settings in ({"label": "kind"}, {"id": "key"}):
        with pytest.raises(ValueError, match="found a tuple in item 0"):
            user_dataset(pairs(), **settings)
    with pytest.raises(ValueError, match="with the label at 5"):
        user_dataset(pairs(), label=5)
    with pytest.raises(ValueError, match="item 0 must have an id under 'key', found none"):
        user_dataset(records(), id="key")


def test_a_data_set_that_cannot_be_refuse_other_reading_is_refused() -> None:
    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(pairs())

    class Lengthless(Dataset[Any]):
        pass

    with pytest.raises(ValueError, match="found an IterableDataset"):
        UserDataset(Endless())
    with pytest.raises(ValueError, match="must have a length"):
        UserDataset(Lengthless())
    with pytest.raises(ValueError, match="must have an example"):
        user_dataset([])
    with pytest.raises(ValueError, match="found a DataLoader: give its data set, loader.dataset"):
        refuse_other_reading(DataLoader(user_dataset(pairs()).dataset))


def test_fields_of_two_types_are_named_with_their_items() -> None:
    items = [(torch.zeros(2, dtype=torch.float64 if i == 3 else torch.float32), i % 2) for i in range(6)]
    source = user_dataset(items)
    with pytest.raises(ValueError, match="'0' is torch.float32 in item 2 and torch.float64 in item 3: bring"):
        list(source.stream([torch.tensor([2, 3])]))


def test_inputs_that_ask_for_a_gradient_are_read_without_it() -> None:
    inputs = torch.ones(4, 2, requires_grad=True)
    (raw,) = user_dataset([(inputs[i] * 2, i) for i in range(4)]).stream([torch.arange(4)])
    assert isinstance(raw.inputs, tuple) and not raw.inputs[0].requires_grad


def test_items_that_are_views_across_a_tensor_have_the_digest_of_their_values() -> None:
    columns = torch.arange(12.0).view(4, 3)
    views = user_dataset([(columns[:, i], i) for i in range(3)])
    copies = user_dataset([(columns[:, i].clone(), i) for i in range(3)])
    assert views.digest() == copies.digest()
    assert first(one(views, [1])).tolist() == [[1.0, 4.0, 7.0, 10.0]]


@for_each("error", [KeyError("path"), ZeroDivisionError("by zero"), OSError("no such disk")])
def test_an_error_of_the_data_set_itself_names_the_item(error: Exception) -> None:
    class Failing(Listed):
        def __getitem__(self, position: int) -> Any:
            if position == 6:
                raise error
            return self.items[position]

    with pytest.raises(ValueError, match=f"item 6 .* raised {type(error).__name__}: ") as caught:
        _ = UserDataset(Failing(pairs(9))).labels
    assert caught.value.__cause__ is error


def tensors(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A label, a vector that asks for a gradient, and a grid, of each of some examples."""
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(count, 3, generator=generator, requires_grad=True)
    return torch.arange(count, dtype=torch.int32) % 4, vectors, torch.randn(count, 2, 2, generator=generator)


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: TensorDataset(*tensors()), 0),
        (lambda: TensorDataset(*tensors()), -3),
        (lambda: TensorDataset(*reversed(tensors())), None),
        (lambda: Subset(TensorDataset(*tensors(9)), [8, -1, 3, 3, 0, 5]), 0),
        (lambda: Subset(Subset(TensorDataset(*tensors(9)), range(1, 8)), [6, 0, 2, 2, 4, 1]), 0),
    ],
)
def test_rows_of_tensors_are_what_items_one_by_one_are(make, place) -> None:
    """The values, types and order are those of a list of the same items, which is read one by one."""
    dataset = make()
    ours, theirs = (UserDataset(each, label=place) for each in (dataset, Listed(list(dataset))))
    assert type(ours.dataset) is not Listed and ours.digest() == theirs.digest()
    order = [4, 0, 4, 5]
    own, other = one(ours, order), one(theirs, order)
    assert isinstance(own.inputs, tuple) and isinstance(other.inputs, tuple) and len(own.inputs) == 2
    tensor_pairs = zip(
        (own.ids, own.label, *own.inputs), (other.ids, other.label, *other.inputs), strict=True
    )
    for actual, expected in tensor_pairs:
        assert torch.equal(actual, expected) and actual.dtype == expected.dtype and not actual.requires_grad


def test_rows_of_tensors_are_read_at_once(monkeypatch) -> None:
    dataset = UserDataset(Subset(TensorDataset(*tensors()), range(5)), label=0)
    monkeypatch.setattr(TensorDataset, "__getitem__", lambda *_: pytest.fail("read one by one"))
    assert one(dataset, [1, 3]).label.tolist() == [1, 3]


def test_a_class_derived_from_a_tensor_data_set_reads_its_own_way() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, position: int) -> Any:
            label, *rest = super().__getitem__(position)
            return (label, *(2 * each for each in rest))

    dataset = Doubled(*tensors())
    assert torch.equal(first(one(UserDataset(dataset, label=0), [2])), 2 * tensors()[1][[2]].detach())


@pytest.mark.parametrize(
    ("labels", "message"),
    [(torch.tensor([0, -1]), "item 1 must have an integer"), (torch.tensor([0.0, 1.0]), "item 0 must have")],
)
def test_wrong_labels_among_rows_are_named_as_elsewhere(labels, message) -> None:
    with pytest.raises(ValueError, match=message):
        one(UserDataset(TensorDataset(torch.zeros(2, 3), labels)), [0, 1])


@pytest.mark.parametrize("wrong", [99, "five"])
def test_a_subset_with_a_wrong_position_names_the_item(wrong: Any) -> None:
    items = Items(Subset(TensorDataset(*tensors()), [0, wrong, 2]), label=0)
    with pytest.raises(ValueError, match="item 1 of the data set raised "):
        items.stack([0, 1])
