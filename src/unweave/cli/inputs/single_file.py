"""A model as one file of weights: a folder is made of it, for the run and for a later audit."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unweave.cli.inputs.extra import require_diffusion
from unweave.tasks.diffusion.file_names import INDEX

CONVERTED = "converted"
"""The folder of the original as a pipeline."""

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def is_single_file(model: str | Path) -> bool:
    """Whether a model is named as one file of weights."""
    return Path(model).suffix in SUFFIXES and not Path(model).is_dir()


@contextmanager
def as_folder(model: str, config: Path | None, out: Path) -> Iterator[Path]:
    """The folder of a model; of a file, a temporary one beside the result.

    Raises:
        ValueError: If the file can't be used, or has no configuration.
    """
    if not is_single_file(model):
        if config is not None:
            raise ValueError(f"--config goes with a model in one .safetensors file, found {model}: leave it")
        yield Path(model)
        return
    if config is None:
        raise ValueError(
            f"{model} holds weights alone: name a local folder with the configuration of its pipeline "
            f"({INDEX} and a folder for each component) with --config"
        )
    parent = next(folder for folder in out.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{out.name}.") as workplace:
        folder = Path(workplace) / Path(model).stem
        convert(Path(model), config, folder)
        yield folder


def convert(file: Path, config: Path, folder: Path) -> None:
    """Writes a file of weights as a folder.

    Raises:
        ValueError: If an extra is not installed, or the file can't be used.
    """
    with require_diffusion():
        from unweave.tasks.diffusion import single_file
    single_file.write_pipeline(file, config, folder)


def kept_folder(model: str | Path, run: Path) -> Path:
    """The folder of the original of a run: its own, or the one that was made of its file."""
    return run / CONVERTED / Path(model).stem if is_single_file(model) else Path(model)


def keep_folder(folder: Path, model: str, run: Path) -> None:
    """Keeps the folder that was made of a file in the folder of the run."""
    place = kept_folder(model, run)
    if is_single_file(model) and not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder, place)
