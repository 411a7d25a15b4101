"""A resident set hands out its own examples, normalised, and augments by (key, id) alone."""

import pytest
import torch
from torch import Tensor

from for_each import for_each
from unweave.data import Raw, Source
from unweave.data.in_memory import Resident


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 12, side: int = 6, *, crop: int = 0, flip: bool = False) -> Resident:
    generator = make_generator(1)
    pixels = torch.randint(1, 256, (n, 2, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (n,), generator=generator)
    return Resident(pixels, labels, mean=(0.25, 0.5), std=(0.5, 0.2), crop=crop, flip=flip)


def one(source: Source, ids: list[int], generator: torch.Generator | None = None) -> Raw:
    (raw,) = source.stream([torch.tensor(ids)], generator=generator)
    return raw


def first(raw: Raw) -> torch.Tensor:
    assert isinstance(raw.inputs, tuple)
    return raw.inputs[0]


def test_it_is_a_source() -> None:
    assert isinstance(images(), Source)


def test_a_batch_holds_the_examples_at_its_positions_in_order() -> None:
    source = images()
    raw = one(source, [7, 0, 7])
    by_hand = (source.inputs[[7, 0, 7]] / 255 - torch.tensor([0.25, 0.5]).view(1, 2, 1, 1)) / torch.tensor(
        [0.5, 0.2]
    ).view(1, 2, 1, 1)
    torch.testing.assert_close(first(raw), by_hand)
    assert raw.ids.tolist() == [7, 0, 7]
    assert torch.equal(raw.label, source.labels[[7, 0, 7]])


def test_images_without_mean_and_std_are_scaled_to_one() -> None:
    source = Resident(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0]))
    assert torch.equal(first(one(source, [0])), torch.ones(1, 1, 2, 2))


def test_floats_are_handed_out_as_they_are() -> None:
    numbers = torch.randn(5, 3, generator=make_generator())
    raw = one(Resident(numbers, torch.arange(5)), [4, 2])
    assert torch.equal(first(raw), numbers[[4, 2]])


def test_one_batch_for_each_index_tensor() -> None:
    order = torch.randperm(12, generator=make_generator()).split(5)
    assert [raw.ids.tolist() for raw in images().stream(order)] == [index.tolist() for index in order]


def test_an_endless_order_is_read_as_it_is_needed() -> None:
    def forever():
        while True:
            yield torch.tensor([1])

    stream = images().stream(forever())
    assert [next(stream).ids.item() for _ in range(3)] == [1, 1, 1]


def test_without_a_generator_nothing_is_augmented() -> None:
    plain, augmenting = images(), images(crop=2, flip=True)
    assert torch.equal(first(one(plain, [1, 2])), first(one(augmenting, [1, 2])))


def test_a_shard_is_augmented_as_in_the_whole_batch() -> None:
    source = images(crop=2, flip=True)
    batch = first(one(source, list(range(12)), make_generator(4)))
    for shard in ([0, 1, 2, 3, 4], [11, 5], [9]):
        assert torch.equal(first(one(source, shard, make_generator(4))), batch[shard])


def test_the_next_batch_is_augmented_otherwise() -> None:
    earlier, later = images(crop=2, flip=True).stream([torch.arange(12)] * 2, generator=make_generator())
    assert not torch.equal(first(earlier), first(later))


def shifts(image: Tensor, crop: int, *, flip: bool) -> list[Tensor]:
    """All that a crop and a mirror can make of an image [channel, side, side], by slicing."""
    side = image.shape[-1]
    padded_image = torch.nn.functional.pad(image, (crop,) * 4)
    windows = [
        padded_image[:, top : top + side, left : left + side]
        for top in range(2 * crop + 1)
        for left in range(2 * crop + 1)
    ]
    return windows + [window.flip(2) for window in windows] if flip else windows


@for_each(("crop", "flip"), [(1, False), (0, True), (1, True)])
def test_every_crop_and_mirror_appears_equally_often_and_nothing_else(crop: int, flip: bool) -> None:
    n = 3600
    image = torch.randint(1, 256, (2, 4, 4), generator=make_generator(1), dtype=torch.uint8)
    source = Resident(
        image.expand(n, 2, 4, 4).contiguous(), torch.zeros(n, dtype=torch.int64), crop=crop, flip=flip
    )
    crops = first(one(source, list(range(n)), make_generator())).mul(255).round().to(torch.uint8)
    possible = torch.stack(shifts(image, crop, flip=flip))
    matches = (crops.unsqueeze(1) == possible.unsqueeze(0)).flatten(2).all(2)
    assert bool((matches.sum(1) == 1).all())
    expected = n / len(possible)
    assert float((matches.sum(0) - expected).abs().max()) < 4 * expected**0.5


def test_a_source_that_does_not_augment_draws_nothing() -> None:
    generator = make_generator()
    one(images(), [0], generator)
    assert torch.equal(generator.get_state(), make_generator().get_state())


def test_to_moves_batches_and_keeps_labels_on_the_cpu() -> None:
    meta_images = images().to("meta")
    (raw,) = meta_images.stream([torch.tensor([3, 1], device="meta")])
    assert {raw.ids.device.type, first(raw).device.type, raw.label.device.type} == {"meta"}
    assert meta_images.labels.device.type == "cpu"


def test_the_digest_is_a_function_of_content() -> None:
    source = images()
    assert source.digest() == images().digest()
    assert len(source.digest()) == 64
    other_sources = [
        Resident(source.inputs.flip(0), source.labels, source.mean, source.std),
        Resident(source.inputs, source.labels.flip(0), source.mean, source.std),
        Resident(source.inputs, source.labels, (0.25, 0.4), source.std),
        Resident(source.inputs, source.labels, source.mean, source.std, names=tuple("abcdefghijkl")),
        images(crop=1),
        images(flip=True),
    ]
    assert len({source.digest(), *(other.digest() for other in other_sources)}) == 7


def test_the_digest_is_pinned() -> None:
    # sha256 of the bytes written out: a digest in a record must mean the same in the next release
    source = Resident(torch.tensor([[1.0, 2.0]]), torch.tensor([3]))
    import hashlib

    head = b"(torch.float32, (1, 2), (), (), 0, False, None)"
    content = bytes.fromhex("0000803f00000040") + bytes.fromhex("0300000000000000")
    assert source.digest() == hashlib.sha256(head + content).hexdigest()


BYTES, FLOATS, LABELS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 5), torch.tensor([0, 1])


@for_each(
    ("arguments", "message"),
    [
        ({"inputs": BYTES[:1], "labels": LABELS}, "found 1 and 2"),
        ({"inputs": BYTES, "labels": LABELS.int()}, "found torch.int32"),
        ({"inputs": BYTES, "labels": LABELS, "names": ("a",)}, "found 1 and 2"),
        ({"inputs": BYTES[:, 0], "labels": LABELS}, "inputs must be uint8 images"),
        ({"inputs": BYTES, "labels": LABELS, "mean": (0.5,)}, r"one number per channel \(3\), found 1"),
        ({"inputs": BYTES, "labels": LABELS, "std": (0.5, 0.0, 0.5)}, "std positive"),
        ({"inputs": BYTES, "labels": LABELS, "crop": -1}, "crop must be at least 0"),
        ({"inputs": FLOATS, "labels": LABELS, "flip": True}, "are for uint8 images"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resident(**arguments)
