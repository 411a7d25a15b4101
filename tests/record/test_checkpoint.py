"""A checkpoint comes back bit for bit, and one that is not what it should be leaves the model alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from unweave.record import checkpoint

NOTE = {"split": "5" * 64, "recipe": {"lr": 0.1, "epochs": 3}, "code": "0.1.0"}


def network(hidden: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 2))


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "run", network().state_dict(), NOTE)
    return tmp_path / "run"


def test_weights_and_buffers_come_back_bit_for_bit(folder: Path) -> None:
    for place in (folder, folder / "model.safetensors", str(folder)):
        model = network(seed=1)
        checkpoint.load(place, model, split_digest="5" * 64)
        assert same(bits(model), bits(network()))


def test_the_sidecar_comes_back_with_what_was_added(folder: Path) -> None:
    facts = checkpoint.load(folder, network())
    assert {key: facts[key] for key in NOTE} == NOTE
    assert facts["architecture"] == checkpoint.architecture(network(seed=3).state_dict())
    assert facts == json.loads((folder / "model.json").read_text())


def test_tied_and_strided_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).view(2, 3)
    checkpoint.save(tmp_path, {"a": weight, "b": weight, "c": weight.T}, NOTE)
    assert same(load_file(tmp_path / "model.safetensors"), {"a": weight, "b": weight, "c": weight.T})


def test_the_architecture_is_names_shapes_and_types() -> None:
    state = network().state_dict()
    digest = checkpoint.architecture(state)
    assert digest == checkpoint.architecture(dict(reversed(state.items())))
    assert digest == checkpoint.architecture(network(seed=1).state_dict())
    renamed_state = {f"net.{name}": value for name, value in state.items()}
    half_state = {name: value.half() for name, value in state.items()}
    digests = [
        checkpoint.architecture(other)
        for other in (renamed_state, half_state, network(hidden=5).state_dict())
    ]
    assert len({digest, *digests}) == 4


def test_nothing_but_the_two_files_is_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_who_may_read_it_is_what_the_process_says(tmp_path: Path, mask: int, mode: int) -> None:
    mask_before = os.umask(mask)
    try:
        checkpoint.save(tmp_path, network().state_dict(), NOTE)
    finally:
        os.umask(mask_before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


def test_a_save_that_fails_leaves_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def full_disk_in_safetensors(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")

    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="Out of range float values"):
        checkpoint.save(folder, network(seed=1).state_dict(), {**NOTE, "loss": float("nan")})
    for place, name, fail in (
        (checkpoint, "save_file", full_disk_in_safetensors),
        (Path, "write_text", full_disk),
        (os, "fsync", full_disk),
        (os, "replace", full_disk),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fail)
            with pytest.raises(OSError, match="No space left"):
                checkpoint.save(folder, network(seed=1).state_dict(), NOTE)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_save_cut_between_its_two_files_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_weights(source: Path, target: Path) -> None:
        if target.name == "model.json":
            raise KeyboardInterrupt
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", only_weights)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, network(seed=1).state_dict(), NOTE)
    with pytest.raises(ValueError, match="is not the file that its model.json describes"):
        checkpoint.load(folder, network())


def test_a_file_is_no_folder_to_save_in(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ValueError, match="found a file at"):
        checkpoint.save(tmp_path / "run", network().state_dict(), NOTE)
    assert (tmp_path / "run").read_text() == "mine"


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def pickle(folder: Path) -> None:
    torch.save(network().state_dict(), folder / "model.safetensors")


def exchange(folder: Path) -> None:
    save_file(network(seed=9).state_dict(), folder / "model.safetensors")


def poison(folder: Path) -> None:
    state = network().state_dict()
    state["3.weight"][1, 2] = float("nan")
    checkpoint.save(folder, state, NOTE)


def widen(folder: Path) -> None:
    checkpoint.save(folder, network(hidden=5).state_dict(), NOTE)


def shorten(folder: Path) -> None:
    checkpoint.save(folder, network()[:3].state_dict(), NOTE)


def lengthen(folder: Path) -> None:
    checkpoint.save(folder, {**network().state_dict(), "4.weight": torch.ones(2)}, NOTE)


def double(folder: Path) -> None:
    checkpoint.save(folder, network().double().state_dict(), NOTE)


def swap_split(folder: Path) -> None:
    checkpoint.save(folder, network().state_dict(), {**NOTE, "split": "6" * 64})


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def drop_note(folder: Path) -> None:
    (folder / "model.json").unlink()


def cut_note(folder: Path) -> None:
    (folder / "model.json").write_text('{"split": ')


def list_note(folder: Path) -> None:
    (folder / "model.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "truncated or not safetensors"),
        (pickle, "truncated or not safetensors"),
        (exchange, "is not the file that its model.json describes"),
        (poison, "NaN or infinity in tensor '3.weight'"),
        (widen, r"tensor '0.weight' must be float32 \[4, 3\], found float32 \[5, 3\]"),
        (shorten, r"tensor '3.weight' must be float32 \[2, 4\], found absent"),
        (lengthen, r"tensor '4.weight' must be absent, found float32 \[2\]"),
        (double, r"tensor '0.weight' must be float32 \[4, 3\], found float64 \[4, 3\]"),
        (swap_split, "trained on split 555555555555, found 666666666666"),
        (drop_weights, "found no such file"),
        (drop_note, "expected .*model.json next to the weights, found none"),
        (cut_note, "is not JSON"),
        (list_note, "must hold a JSON object, found list"),
    ],
)
def test_what_is_wrong_is_named_and_the_model_stays(
    folder: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(folder)
    model = network(seed=7)
    weights = bits(model)
    with pytest.raises(ValueError, match=message):
        checkpoint.load(folder, model, split_digest="5" * 64)
    assert same(bits(model), weights)


def test_any_split_will_do_when_none_is_asked_for(folder: Path) -> None:
    swap_split(folder)
    assert checkpoint.load(folder, network())["split"] == "6" * 64
