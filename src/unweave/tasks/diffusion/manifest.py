"""The manifest of a model that unweave wrote into a diffusers folder: the history of its edits."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from unweave import tables
from unweave.tasks.diffusion.file_names import MANIFEST
from unweave.tasks.diffusion.folder_config import name_file_in_errors, read
from unweave.tasks.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Step:
    """One edit of a model.

    Args:
        forgotten_classes: The classes that it forgot.
        forgotten_concepts: The concepts that a text-to-image model forgot, as the user named them.
        forgotten_captions: The captions of these concepts, if they were found by a column or a list.
        method: The name of the method.
        settings: The method with its settings.
        seed: The seed of the method.
        split: The digest of the data and the forget set.
        weights_before: SHA-256 of the weights before.
        weights_after: SHA-256 of the weights after.
    """

    forgotten_classes: tuple[int, ...] = ()
    forgotten_concepts: tuple[str, ...] = ()
    forgotten_captions: tuple[str, ...] = ()
    method: str | None = None
    settings: str | None = None
    seed: int | None = None
    split: str | None = None
    weights_before: str | None = None
    weights_after: str | None = None


@dataclass(frozen=True)
class Manifest(Step):
    """The content of a manifest.

    Args:
        component: The folder of the model, relative to that of the manifest.
        n_classes: The number of classes of the training data.
        schedule: The noise schedule.
        history: The earlier edits, in order.
    """

    component: str = "."
    n_classes: int | None = None
    schedule: Schedule | None = None
    history: tuple[Step, ...] = ()

    @property
    def past(self) -> tuple[Step, ...]:
        """All edits of the model."""
        return *self.history, Step(**{field.name: vars(self)[field.name] for field in fields(Step)})


def manifest_of(folder: Path) -> Manifest | None:
    """The manifest of a folder, or of the pipeline that contains it; None if there is none.

    Raises:
        ValueError: If it is invalid; names the file and the place in it.
    """
    manifest, path = manifest_in(folder), folder.absolute()
    if manifest is not None:
        return manifest
    parent_manifest = manifest_in(path.parent)
    return parent_manifest if parent_manifest is not None and parent_manifest.component == path.name else None


def manifest_in(folder: Path) -> Manifest | None:
    """The manifest in a folder."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    table = read(path)
    with name_file_in_errors(path):
        refuse_partial(table.get("schedule"))
        values = {field.name: table[field.name] for field in fields(Manifest) if field.name in table}
        return tables.read(Manifest, values, "")


LATER = ("clip", "ends_clean", "offset")
"""Fields of a schedule that early manifests lack; images were then drawn with their defaults."""


def refuse_partial(schedule: object) -> None:
    """Raises if a schedule lacks a value, except for the later fields."""
    if not isinstance(schedule, Mapping):
        return
    for field in fields(Schedule):
        if field.name not in schedule and field.name not in LATER:
            raise ValueError(f"schedule.{field.name} is missing")
