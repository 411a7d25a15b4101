"""Denoisers on disk: reads a local diffusers folder, and writes an edited copy of it.

A folder is a pipeline (`model_index.json`) or one model (`config.json`). Nothing is downloaded, and the
source is never changed. Needs the extra `unweave[diffusion]`.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor, nn

from unweave.record.files import sha256
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.autoencoder import read_autoencoder
from unweave.tasks.diffusion.class_denoisers import build_class_denoiser, conditions, shape_of
from unweave.tasks.diffusion.file_names import MANIFEST as MANIFEST
from unweave.tasks.diffusion.file_names import WEIGHTS as WEIGHTS
from unweave.tasks.diffusion.folder_config import (
    autoencoder_of,
    component_of,
    name_file_in_errors,
    read,
    schedule_of,
)
from unweave.tasks.diffusion.folder_files import Contents, contents, copy
from unweave.tasks.diffusion.manifest import Manifest, Step, manifest_of
from unweave.tasks.diffusion.schedule import Schedule
from unweave.tasks.diffusion.scopes import merge_low_rank
from unweave.tasks.diffusion.weights import fill, refuse_other, weights_of


@dataclass(frozen=True)
class Denoiser:
    """A denoiser read from a folder.

    Args:
        model: `f(x_t, t, condition)` in float32 and evaluation mode, on the CPU.
        schedule: The noise schedule of its training, and its prediction target.
        n_classes: Labels are `0 .. n_classes - 1`.
        null: The index of the null condition; None if there is none, which rules out guidance.
        shape: Channels, height and width of its images, or latents.
        folder: The folder that it was read from.
        component: The folder of its weights, relative to `folder`.
        contents: The files that a copy of the folder keeps.
        past: The earlier edits by unweave.
        autoencoder: Converts images to the latents that the model denoises; None if it denoises pixels.
    """

    model: nn.Module
    schedule: Schedule
    n_classes: int
    null: int | None
    shape: tuple[int, int, int]
    folder: Path
    component: str
    contents: Contents
    past: tuple[Step, ...]
    autoencoder: AutoencoderKL | None = None

    @property
    def forgotten_classes(self) -> tuple[int, ...]:
        """The classes forgotten by earlier edits."""
        return tuple(sorted({label for step in self.past for label in step.forgotten_classes}))

    @property
    def task(self) -> Diffusion:
        """Its task; a tenth of the conditions is dropped, as usual, if it has a null condition."""
        drop = 0.0 if self.null is None else 0.1
        space = "pixels" if self.autoencoder is None else "latents"
        return Diffusion(self.n_classes, schedule=self.schedule, null=self.null, drop=drop, space=space)

    def fresh(self) -> nn.Module:
        """The same architecture with fresh weights from torch's global generator."""
        return build_class_denoiser(read(self.folder / self.component / "config.json"))


def load(folder: str | Path, *, n_classes: int | None = None, schedule: Schedule | None = None) -> Denoiser:
    """Reads a denoiser from a local folder.

    Args:
        folder: A pipeline, or one model of a class in `CLASS_DENOISERS`.
        n_classes: The number of classes of the data. A U-Net does not tell whether its last embedding is the
            null condition; the manifest of an edited one does.
        schedule: The noise schedule, if the folder has none.

    Raises:
        ValueError: If a file is missing, unsupported, sharded or truncated, files do not fit together, or the
            weights differ from the manifest of an edited model.
    """
    place = Path(folder)
    component = component_of(place)
    stored_manifest = manifest_of(place)
    manifest_or_default = Manifest() if stored_manifest is None else stored_manifest
    path = place / component / "config.json"
    config = read(path)
    noise = schedule_of(place, component, manifest_or_default.schedule) if schedule is None else schedule
    with name_file_in_errors(path), torch.random.fork_rng(devices=[]):
        shape, model = shape_of(config), build_class_denoiser(config)
        latent = autoencoder_of(place, component)
        autoencoder = None if latent is None else read_autoencoder(latent)
    classes, null = conditions(model, manifest_or_default.n_classes if n_classes is None else n_classes)
    files = contents(place, component)
    fill(model, weights_of(place / component))
    refuse_other_file(place / component / WEIGHTS, manifest_or_default.weights_after)
    history = () if stored_manifest is None else stored_manifest.past
    return Denoiser(model.eval(), noise, classes, null, shape, place, component, files, history, autoencoder)


def save(source: Denoiser, model: nn.Module, out: str | Path, facts: Mapping[str, object]) -> Path:
    """Writes a copy of the source folder with the new weights of the denoiser, and a manifest.

    Low-rank additions are merged. Other files of weights, which may hold the original model, are left out and
    listed in the manifest. The copy is written atomically.

    Args:
        source: The denoiser as it was read.
        model: The edited model.
        out: A folder that does not exist yet, outside of the source.
        facts: Further facts for the manifest: the method, the split, the seed.

    Raises:
        ValueError: If the folder exists or overlaps the source, or the weights do not fit the source.
    """
    state = {name: p.detach().cpu().contiguous() for name, p in merge_low_rank(model).state_dict().items()}
    refuse_other(source.model.state_dict(), state)
    model_facts = {"n_classes": source.n_classes, "null": source.null, "schedule": asdict(source.schedule)}
    edit = Edit(source.folder, source.component, WEIGHTS, source.contents, source.past)
    return write_copy(edit, state, out, model_facts | dict(facts))


@dataclass(frozen=True)
class Edit:
    """What a copy of a folder changes.

    Args:
        folder: The source.
        component: The folder of the edited model, relative to it.
        weights: The file of its weights.
        contents: The files that the copy keeps.
        past: The earlier edits by unweave.
    """

    folder: Path
    component: str
    weights: str
    contents: Contents
    past: tuple[Step, ...]


def write_copy(edit: Edit, state: Mapping[str, Tensor], out: str | Path, facts: Mapping[str, object]) -> Path:
    """Writes a copy of a folder with other weights of one model, and a manifest; see `save`."""
    place, target = edit.folder.resolve(), Path(out).resolve()
    if place == target or place in target.parents or target in place.parents:
        raise ValueError(f"the result must lie outside of the source folder {edit.folder}, found {out}")
    if target.exists():
        raise ValueError(f"{out} exists: name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as workplace:
        copy_folder = Path(workplace) / target.name
        weights = copy_folder / edit.component / edit.weights
        weights.parent.mkdir(parents=True)
        copy(place, edit.contents.kept, copy_folder)
        save_file(dict(state), weights, {"format": "pt"})
        content = manifest(edit, place / edit.component / edit.weights, weights) | dict(facts)
        (copy_folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")
        os.replace(copy_folder, target)
    return target


def refuse_other_file(weights: Path, expected: str | None) -> None:
    """Raises if a file differs from the manifest."""
    if expected is not None and sha256(weights) != expected:
        raise ValueError(
            f"{weights} is not the file that {MANIFEST} describes, it has changed since: copy it again"
        )


def manifest(edit: Edit, before: Path, after: Path) -> dict[str, object]:
    """The manifest: digests of the weights before and after, and the version of unweave."""
    return {
        "component": edit.component,
        "weights_before": sha256(before),
        "weights_after": sha256(after),
        "left_out": list(edit.contents.left_out),
        "history": [asdict(step) for step in edit.past],
        "versions": {name: version(name) for name in ("unweave", "torch", "diffusers")},
    }
