"""The files of a diffusers folder that belong into a copy with an edited model.

Other files of weights hold the original model: a second format, a variant, an exponential average, an earlier
checkpoint, the objects of a version control. So a copy takes only files known to be harmless: configurations
and texts, the edited file of weights, and the other components of a pipeline.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unweave.tasks.diffusion.file_names import INDEX, WEIGHTS
from unweave.tasks.diffusion.folder_config import components

TEXTS = (".json", ".md", ".txt", ".py")


@dataclass(frozen=True)
class Contents:
    """The files and folders of a source, relative to it.

    Args:
        kept: The files that a copy keeps, without the edited weights.
        left_out: The files that a copy leaves out.
    """

    kept: tuple[str, ...]
    left_out: tuple[str, ...]


def contents(place: Path, component: str, weights: str = WEIGHTS) -> Contents:
    """Decides which files a copy of a source keeps and leaves out.

    Args:
        place: The source.
        component: The folder of the edited model, relative to it.
        weights: The file of its weights.

    Raises:
        ValueError: If a file to keep can't be read, or a component of a pipeline has no folder.
    """
    own_folder = place / component
    siblings = components(place).keys() - {component} if (place / INDEX).exists() else frozenset()
    # a schedule may lie beside the weights, or be given
    missing = sorted(name for name in siblings - {"scheduler"} if not (place / name).is_dir())
    if missing:
        raise ValueError(
            f"{place / INDEX} names {missing[0]}, but there is no such folder: add it, or write [null, null] "
            "there if the pipeline works without it"
        )
    entries = sorted(
        {path for folder in (place, own_folder) for path in folder.iterdir()}
        - {own_folder, own_folder / weights}
    )
    sources = {path for path in entries if is_text(path) or (path.parent == place and path.name in siblings)}
    refuse_unreadable(sources)
    return Contents(relative(sources, place), relative(set(entries) - sources, place))


def is_text(path: Path) -> bool:
    """Whether a file is a configuration or a text; an index of sharded weights is neither."""
    has_text_suffix = path.suffix in TEXTS and not path.name.endswith(".index.json")
    return path.is_file() and (has_text_suffix or path.name == "LICENSE")


def refuse_unreadable(paths: Iterable[Path]) -> None:
    """Raises at a file that can't be copied, such as a broken link, at any depth."""
    inner = [Path(folder) / name for path in paths for folder, _, names in os.walk(path) for name in names]
    for path in [*paths, *inner]:
        if not os.access(path, os.R_OK):
            raise ValueError(f"{path} can't be read, so the folder can't be copied: mend or remove it")


def relative(paths: Iterable[Path], place: Path) -> tuple[str, ...]:
    """Paths relative to a folder, sorted."""
    return tuple(sorted(path.relative_to(place).as_posix() for path in paths))


def copy(place: Path, names: Iterable[str], target: Path) -> None:
    """Copies files and whole folders into a folder; follows links."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (place / name).is_dir():
            shutil.copytree(place / name, target / name)
        else:
            shutil.copyfile(place / name, target / name)
