"""Denoisers on disk, in the folders of diffusers: read from a local one, written as a copy of it.

A folder is a pipeline (`model_index.json`) or one model (`config.json`). Nothing is downloaded, and the
source is never written to. Needs the extra `unweave[diffusion]`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unweave.files import sha256
from unweave.generate import MANIFEST as MANIFEST
from unweave.generate.adapters import ADAPTERS, adapted, conditions, refuse_other_class, shape_of
from unweave.generate.schedule import Schedule
from unweave.generate.scopes import merged
from unweave.tasks.diffusion import Diffusion

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Denoiser:
    """A denoiser that was read from a folder.

    Args:
        model: `f(x_t, t, condition)` in float32 and evaluation mode, on the CPU.
        schedule: The noise that it was trained at, and what it predicts.
        n_classes: Labels are `0 .. n_classes - 1`.
        null: The condition that stands for none; None if there is none, and then no guidance.
        shape: Channels, height and width of what it denoises.
        folder: Where it came from.
        component: The folder of its weights, relative to that.
    """

    model: nn.Module
    schedule: Schedule
    n_classes: int
    null: int | None
    shape: tuple[int, int, int]
    folder: Path
    component: str

    @property
    def task(self) -> Diffusion:
        """How it is trained; a tenth of the conditions is dropped, as is usual, if it knows none."""
        drop = 0.0 if self.null is None else 0.1
        return Diffusion(self.n_classes, schedule=self.schedule, null=self.null, drop=drop)

    def fresh(self) -> nn.Module:
        """The same architecture with fresh weights from torch's global generator."""
        return adapted(read(self.folder / self.component / "config.json"))


def load(folder: str | Path, *, n_classes: int | None = None, schedule: Schedule | None = None) -> Denoiser:
    """Reads a denoiser from a local folder.

    Args:
        folder: A pipeline, or one model of a class in `ADAPTERS`.
        n_classes: As the data has it; a U-Net does not say whether its last embedding stands for no class,
            but the manifest of an edited one does.
        schedule: The noise schedule, where the folder has none.

    Raises:
        ValueError: If something is missing, not supported, sharded, truncated, or does not fit together.
    """
    place = Path(folder)
    component = component_of(place)
    config = read(place / component / "config.json")
    known = read(place / MANIFEST) if (place / MANIFEST).exists() else {}
    noise = schedule_of(place, component, known) if schedule is None else schedule
    with torch.random.fork_rng(devices=[]):
        model = adapted(config)
    classes, null = conditions(model, known.get("n_classes") if n_classes is None else n_classes)
    fill(model, weights_of(place / component))
    return Denoiser(model.eval(), noise, classes, null, shape_of(config), place, component)


def save(source: Denoiser, model: nn.Module, out: str | Path, facts: Mapping[str, object]) -> Path:
    """Writes a copy of the source folder in which only the weights of the denoiser are other, and a manifest.

    Low-rank additions are merged. The copy appears whole or not at all.

    Args:
        source: What was read.
        model: The edited model.
        out: A folder that does not exist yet, outside of the source.
        facts: What the manifest says beside digests and versions: the method, the split, the seed.

    Raises:
        ValueError: If the folder is taken or touches the source, or the weights are not those of the source.
    """
    place, target = source.folder.resolve(), Path(out).resolve()
    if place == target or place in target.parents or target in place.parents:
        raise ValueError(f"the result must lie outside of the source folder {source.folder}, found {out}")
    if target.exists():
        raise ValueError(f"{out} exists: name a new folder")
    state = {name: p.detach().cpu().contiguous() for name, p in merged(model).state_dict().items()}
    refuse_other(source.model.state_dict(), state)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as workplace:
        copy = Path(workplace) / target.name
        shutil.copytree(place, copy)
        weights = copy / source.component / WEIGHTS
        weights.chmod(0o644)  # a read-only source is copied with its modes
        save_file(state, weights, {"format": "pt"})
        content = manifest(source, place / source.component / WEIGHTS, weights) | dict(facts)
        (copy / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")
        os.replace(copy, target)
    return target


def refuse_unsupported(folder: str | Path) -> None:
    """Raises if a folder holds no model of a class that can be read; reads no weights."""
    place = Path(folder)
    refuse_other_class(read(place / component_of(place) / "config.json"))


def component_of(place: Path) -> str:
    """The folder of the denoiser, relative to the given one: a component of a pipeline, or itself."""
    if not place.is_dir():
        raise ValueError(f"expected a folder, found none at {place}")
    if not (place / "model_index.json").exists():
        return "."
    index = read(place / "model_index.json")
    found = {name: index[name][1] for name in ("unet", "transformer") if index.get(name)}
    for name, kind in found.items():
        if kind in ADAPTERS:
            return name
    raise ValueError(
        f"the pipeline {index.get('_class_name')!r} in {place} has no denoiser that is supported "
        f"({', '.join(ADAPTERS)}), found {', '.join(found.values()) or 'none'}"
    )


def schedule_of(place: Path, component: str, known: Mapping[str, Any]) -> Schedule:
    """The noise schedule of a pipeline, or beside one model, or in the manifest of an edited one."""
    own = place / component
    for path in (own / "scheduler_config.json", own.parent / "scheduler" / "scheduler_config.json"):
        if path.exists():
            return Schedule.of(read(path))
    if "schedule" in known:
        return Schedule(**known["schedule"] | {"betas": tuple(known["schedule"]["betas"])})
    raise ValueError(f"{place} has no scheduler_config.json, so its noise is not known: pass schedule=")


def weights_of(component: Path) -> dict[str, Tensor]:
    """The weights in float32.

    Raises:
        ValueError: If they are sharded, in another format, or truncated.
    """
    path = component / WEIGHTS
    if not path.exists():
        others = sorted(f.name for f in component.iterdir() if f.suffix in (".safetensors", ".bin", ".ckpt"))
        if list(component.glob("*.index.json")):
            raise ValueError(f"the weights in {component} are sharded: save them as one {WEIGHTS} first")
        raise ValueError(f"{component} has no {WEIGHTS}, found {', '.join(others) or 'no weights'}")
    try:
        return {
            name: value.float() if value.is_floating_point() else value
            for name, value in load_file(path).items()
        }
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or no safetensors file: {error}") from error


def fill(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts weights into the model that its configuration describes."""
    refuse_other(model.state_dict(), state)
    model.load_state_dict(state)


def refuse_other(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises if the names or shapes of weights differ."""
    for name in sorted(expected.keys() | found.keys()):
        shapes = [list(state[name].shape) if name in state else None for state in (expected, found)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"weights must fit the configuration: of {name!r} expected shape {shapes[0]}, "
                f"found {shapes[1]}"
            )


def manifest(source: Denoiser, before: Path, after: Path) -> dict[str, object]:
    """Digests of the weights before and after, and what wrote them."""
    return {
        "component": source.component,
        "weights_before": sha256(before),
        "weights_after": sha256(after),
        "n_classes": source.n_classes,
        "null": source.null,
        "schedule": asdict(source.schedule),
        "versions": {name: version(name) for name in ("unweave", "torch", "diffusers")},
    }


def read(path: Path) -> dict[str, Any]:
    """A JSON object."""
    if not path.exists():
        raise ValueError(f"{path.parent} has no {path.name}: expected a pipeline or a model of diffusers")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(content).__name__}")
    return content
