"""Model weights on disk: `model.safetensors`, and `model.json` with facts about them.

There is no pickle, so a checkpoint of any origin is safe to read. What modules keep beside tensors
(`get_extra_state`) is among the facts, and must be JSON values or a tensor. Both files are replaced
atomically, and a model changes only after all checks of the files.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unweave.record.files import draft, follow_umask, read_object, sha256, sync

WEIGHTS = "model.safetensors"
SIDECAR = "model.json"


EXTRA = "extra_state"
"""The fact with the values of a model's state that are no tensors, by name; absent without any."""


def save(folder: str | Path, model_state: Mapping[str, object], sidecar: Mapping[str, object]) -> None:
    """Writes a model's weights and facts about them.

    Args:
        folder: Created if it is missing. An existing checkpoint is replaced as a whole, or stays.
        model_state: `model.state_dict()`; tied weights are written once per name.
        sidecar: JSON values, "split" (digest of the split trained on), "recipe" among them.
            "architecture" (digest of names, shapes and types) and "weights" (SHA-256 of the file) are added.

    Raises:
        ValueError: If there is a file in place of the folder, or a value is neither a tensor nor JSON.
    """
    extra = json_state(model_state)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"expected a folder to save the model in, found a file at {folder}: choose another")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tensors_of(model_state)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with draft(folder / WEIGHTS) as weights, draft(folder / SIDECAR) as note:
        _write_weights(state, weights)
        facts = {**sidecar, "architecture": architecture(model_state), "weights": sha256(weights)}
        facts |= {EXTRA: extra} if extra else {}
        note.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        sync(weights)
        sync(note)
        # both are on the disk; the digest in the sidecar detects an interruption between these two lines
        os.replace(weights, folder / WEIGHTS)
        os.replace(note, folder / SIDECAR)


def load(place: str | Path, model: nn.Module, split_digest: str | None = None) -> dict[str, object]:
    """Fills a model with the weights of a checkpoint and returns its sidecar.

    Args:
        place: The folder of a checkpoint, or its weights file (with the sidecar next to it, ending in .json).
        model: A model of the same architecture; stays unchanged after an error.
        split_digest: The digest of the split that the model must have been trained on; any if None.
    """
    weights = Path(place) / WEIGHTS if Path(place).is_dir() else Path(place)
    facts = _read_sidecar(weights.with_suffix(".json"))
    state = _read_weights(weights)
    if facts.get("weights") != sha256(weights):
        raise ValueError(f"{weights} is not the file that its {weights.stem}.json describes: save both again")
    extra = facts.get(EXTRA, {})
    assert isinstance(extra, dict)
    _check_architecture({**state, **extra}, model, weights)
    _check_finite(state, weights)
    if split_digest is not None and facts.get("split") != split_digest:
        raise ValueError(
            f"{weights} must have been trained on split {split_digest[:12]}, "
            f"found {str(facts.get('split'))[:12]}: the original model must have seen exactly the forget and "
            "the retain part; train it on this split"
        )
    model.load_state_dict({**state, **extra})
    return facts


def tensors_of(state: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors of a model's state."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def extra_state(state: Mapping[str, object]) -> dict[str, object]:
    """What a model's state holds beside tensors."""
    return {name: value for name, value in state.items() if not isinstance(value, Tensor)}


def json_state(state: Mapping[str, object]) -> dict[str, object]:
    """What a model's state holds beside tensors, which must be JSON values.

    Raises:
        ValueError: If JSON would not give a value back as it is; the message has its name.
    """
    extra = extra_state(state)
    for name, value in extra.items():
        if not survives_json(value):
            raise ValueError(
                f"{name!r} must be a tensor or JSON values, found {value!r:.60}: let get_extra_state() "
                "return such values, lists for tuples, and texts for keys"
            )
    return extra


def survives_json(value: object) -> bool:
    """Whether JSON gives a value back as it is."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False


def architecture(state: Mapping[str, object]) -> str:
    """SHA-256 of the names, shapes and types of a model's tensors, in order of their names."""
    rows = [
        (name, list(value.shape), str(value.dtype)) if isinstance(value, Tensor) else (name, EXTRA)
        for name, value in sorted(state.items())
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def shapes(state: Mapping[str, object]) -> dict[str, str]:
    """The shape of each tensor, as text for errors."""
    return {
        name: str(list(value.shape)) if isinstance(value, Tensor) else "extra state"
        for name, value in state.items()
    }


def difference(expected: Mapping[str, str], actual: Mapping[str, str]) -> str:
    """A sentence on the first tensor, in the expected order, that differs; empty if none does."""
    for name in [*expected, *actual]:
        expected_form, actual_form = (forms.get(name, "absent") for forms in (expected, actual))
        if expected_form != actual_form:
            return f"tensor {name!r} must be {expected_form}, found {actual_form}"
    return ""


def contents(state: Mapping[str, object], gather: Callable[[Tensor], Tensor] = Tensor.detach) -> str:
    """SHA-256 of a model's tensors, names, types, shapes and bytes, in order of their names, and extra state.

    Args:
        state: `model.state_dict()`.
        gather: Makes a tensor whole, if the state is sharded; each is freed before the next.

    Raises:
        ValueError: If a value is neither a tensor nor JSON.
    """
    extra = json_state(state)
    digest = hashlib.sha256(architecture(state).encode())
    for _, tensor in sorted(tensors_of(state).items()):
        # bytes, because NumPy lacks some types of torch; a scalar has no dimension to view as bytes
        digest.update(gather(tensor).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if extra:
        digest.update(json.dumps(extra, sort_keys=True).encode())
    return digest.hexdigest()


def _write_weights(state: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(state, path, metadata={"format": "pt"})
        follow_umask(path)
    except SafetensorError as error:  # a full disk raises this
        raise OSError(f"{path.parent} cannot be written: {error}") from error


def _read_sidecar(path: Path) -> dict[str, object]:
    if not path.is_file():
        raise ValueError(f"expected {path} next to the weights, found none: it names their training data")
    return read_object(path, ": save the model again")


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"expected the weights in {path}, found no such file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or not safetensors ({error}): save the model again") from error


def _check_architecture(state: Mapping[str, object], model: nn.Module, path: Path) -> None:
    """Raises if a tensor differs; names the first one, in the model's order."""
    problem = difference(_forms(model.state_dict()), _forms(state))
    if problem:
        raise ValueError(f"{path} is of another architecture: {problem}; build the model that was saved")


def _forms(state: Mapping[str, object]) -> dict[str, str]:
    types = {name: f"{p.dtype} ".removeprefix("torch.") for name, p in tensors_of(state).items()}
    return {name: f"{types.get(name, '')}{shape}" for name, shape in shapes(state).items()}


def _check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path} holds NaN or infinity in tensor {name!r}: train the model again")


def as_float32(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights of a file in float32.

    Raises:
        ValueError: If one of them is not finite.
    """
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"weights must be finite, found NaN or infinity in {key!r} of {path}")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
