"""Denoisers on disk, in the folders of diffusers: read from a local one, written as a copy of it.

A folder is a pipeline (`model_index.json`) or one model (`config.json`). Nothing is downloaded, and the
source is never written to. Needs the extra `unweave[diffusion]`.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unweave.files import sha256
from unweave.generate import MANIFEST as MANIFEST
from unweave.generate.adapters import adapted, conditions, shape_of
from unweave.generate.contents import WEIGHTS as WEIGHTS
from unweave.generate.contents import contents, copy
from unweave.generate.pipeline import component_of, read, schedule_of
from unweave.generate.schedule import Schedule
from unweave.generate.scopes import merged
from unweave.tasks.diffusion import Diffusion


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

    Low-rank additions are merged. Other files of weights that may hold the model as it was are left out, and
    the manifest lists them. The copy appears whole or not at all.

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
        made = Path(workplace) / target.name
        weights = made / source.component / WEIGHTS
        weights.parent.mkdir(parents=True)
        found = contents(place, source.component)
        copy(place, found.kept, made)
        save_file(state, weights, {"format": "pt"})
        said = manifest(source, place / source.component / WEIGHTS, weights)
        said |= {"left_out": list(found.left_out), **facts}
        (made / MANIFEST).write_text(json.dumps(said, indent=2) + "\n")
        os.replace(made, target)
    return target


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
