"""The configuration of a diffusers folder: a pipeline (`model_index.json`) or one model (`config.json`).

Only JSON is read here, before any weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unweave.record.files import read_object
from unweave.tasks.diffusion.class_denoisers import CLASS_DENOISERS, refuse_other_class
from unweave.tasks.diffusion.file_names import INDEX
from unweave.tasks.diffusion.schedule import Schedule

LATENT = ("vae", "vqvae", "vqmodel", "movq", "vqgan")
"""Components that convert between images and latents."""


def refuse_unsupported(folder: str | Path) -> None:
    """Raises if a folder holds no supported model of images or of the latents of an AutoencoderKL.

    It reads no weights.
    """
    place = Path(folder)
    component = component_of(place)
    refuse_other_class(read(place / component / "config.json"))
    autoencoder_of(place, component)


def component_of(place: Path) -> str:
    """The folder of the denoiser, relative to the given one: a component of a pipeline, or itself."""
    if not place.is_dir():
        raise ValueError(f"expected a folder, found none at {place}")
    if not (place / INDEX).exists():
        return "."
    kinds = components(place)
    names = [name for name, kind in kinds.items() if kind in CLASS_DENOISERS]
    if len(names) == 1:
        return names[0]
    if names:
        raise ValueError(
            f"the pipeline in {place} has {len(names)} denoisers, {' and '.join(names)}, and only one can be "
            f"edited: take the others out of the folder and its {INDEX}"
        )
    pipeline = read(place / INDEX).get("_class_name")
    other_kinds = [kind for name, kind in kinds.items() if name in ("unet", "transformer")]
    raise ValueError(
        f"the pipeline {pipeline!r} in {place} has no denoiser that is supported "
        f"({', '.join(CLASS_DENOISERS)}), found {', '.join(other_kinds) or 'none'}"
    )


def autoencoder_of(place: Path, component: str) -> Path | None:
    """The folder of the autoencoder whose latents a component denoises; None if it denoises images.

    Raises:
        ValueError: If the latents are of another kind than those of an AutoencoderKL.
    """
    folder = (place / component).absolute()
    pipeline = folder.parent if component == "." else place
    kinds = components(pipeline) if (pipeline / INDEX).exists() else {}
    if folder.name not in kinds:
        return None
    for name, kind in kinds.items():
        if kind == "AutoencoderKL":
            return pipeline / name
        if name in LATENT or kind.startswith(("Autoencoder", "VQ")):
            raise ValueError(
                f"the pipeline in {pipeline} denoises the latents of its {name} ({kind}), and only those of "
                "an AutoencoderKL are supported"
            )
    return None


def components(place: Path) -> dict[str, str]:
    """The class of each component of a pipeline, by the name of its folder."""
    index = read(place / INDEX)
    parts = {name: entry for name, entry in index.items() if not name.startswith("_") and is_component(entry)}
    for name in ("unet", "transformer"):
        if index.get(name) not in (None, [None, None]) and name not in parts:
            raise ValueError(
                f"{name} in {place / INDEX} must be its library and class, found {index[name]!r}"
            )
    return {name: kind for name, (_, kind) in parts.items()}


def is_component(entry: object) -> bool:
    """Whether an entry of a pipeline is a component (library and class), not a setting."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(each, str) for each in entry)


def schedule_of(place: Path, component: str, default: Schedule | None) -> Schedule:
    """The noise schedule of a pipeline, next to a single model, or in the manifest of an edited one."""
    folder = (place / component).absolute()
    for path in (folder / "scheduler_config.json", folder.parent / "scheduler" / "scheduler_config.json"):
        if path.exists():
            with name_file_in_errors(path):
                return Schedule.of(read(path))
    if default is None:
        raise ValueError(
            f"{place} has no scheduler_config.json, so its noise is not known: put that of its training there"
        )
    return default


@contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Puts the name of a file in front of errors about its content."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def read(path: Path) -> dict[str, Any]:
    """Reads a JSON object."""
    if not path.exists():
        raise ValueError(f"{path.parent} has no {path.name}: expected a pipeline or a model of diffusers")
    return read_object(path)
