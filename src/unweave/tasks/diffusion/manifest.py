"""What unweave says of a model in the folder of diffusers that it writes: how it came to be."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from unweave import tables
from unweave.tasks.diffusion.folder_config import MANIFEST, name_file_in_errors, read
from unweave.tasks.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Step:
    """One time that a model forgot.

    Args:
        forgotten_classes: What it forgot.
        method: The name of the method.
        settings: The method under its settings.
        seed: Of all randomness of the method.
        split: The digest of the data, with what was to be forgotten.
        weights_before: SHA-256 of the weights that the method was given.
        weights_after: SHA-256 of those that it left.
    """

    forgotten_classes: tuple[int, ...] = ()
    method: str | None = None
    settings: str | None = None
    seed: int | None = None
    split: str | None = None
    weights_before: str | None = None
    weights_after: str | None = None


@dataclass(frozen=True)
class Manifest(Step):
    """What is read of a manifest.

    Args:
        component: The folder of the model, relative to that of the manifest.
        n_classes: Of the data that the model was trained on.
        schedule: Its noise.
        history: The times that it forgot before, in order.
    """

    component: str = "."
    n_classes: int | None = None
    schedule: Schedule | None = None
    history: tuple[Step, ...] = ()

    @property
    def past(self) -> tuple[Step, ...]:
        """All times that the model forgot."""
        return *self.history, Step(**{field.name: vars(self)[field.name] for field in fields(Step)})


def manifest_of(folder: Path) -> Manifest | None:
    """The manifest of a folder, or of the pipeline that it is a component of; None where there is none.

    Raises:
        ValueError: If it is none; names the file and the place in it.
    """
    own, whole = manifest_in(folder), folder.absolute()
    if own is not None:
        return own
    above = manifest_in(whole.parent)
    return above if above is not None and above.component == whole.name else None


def manifest_in(folder: Path) -> Manifest | None:
    """The manifest that lies in a folder."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    table = read(path)
    with name_file_in_errors(path):
        refuse_partial(table.get("schedule"))
        known = {field.name: table[field.name] for field in fields(Manifest) if field.name in table}
        return tables.read(Manifest, known, "")


LATER = ("clip", "ends_clean", "offset")
"""Fields of a schedule that manifests did not have at first: images were drawn under their defaults."""


def refuse_partial(schedule: object) -> None:
    """Raises if a schedule lacks a value: a manifest leaves none but the later ones to a default."""
    if not isinstance(schedule, Mapping):
        return
    for field in fields(Schedule):
        if field.name not in schedule and field.name not in LATER:
            raise ValueError(f"schedule.{field.name} is missing")
