"""Facts about a user's own images: the names of their classes, and whether they have a test part."""

from dataclasses import dataclass
from pathlib import Path

from unweave.data.in_memory import Resident


@dataclass(frozen=True, eq=False)
class UserImages(Resident):
    """One part of a user's own images.

    Args:
        classes: The names of the classes, by label; empty if they are named by numbers.
        parted: Whether there is no test part, so that a fifth of every class is held out.
    """

    classes: tuple[str, ...] = ()
    parted: bool = False

    def class_name(self, label: int) -> str:
        """A class for people: its label, and its name."""
        return f"{label} ({self.classes[label]})" if label < len(self.classes) else str(label)


def classes_of(folder: Path) -> dict[str, int]:
    """The label of every sub-folder: its name if that is a number, or else its place in the order of names.

    Raises:
        ValueError: If there are fewer than two, some are numbers and some names, or a number is missing.
    """
    names = sorted(each.name for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if len(names) < 2:
        raise ValueError(f"{folder} must have a sub-folder per class, found {', '.join(names) or 'none'}")
    refuse_mixture(folder, names)
    if not is_label(names[0]):
        return {name: label for label, name in enumerate(names)}
    labels = {name: int(name) for name in names}
    if sorted(labels.values()) != list(range(len(names))):
        raise ValueError(
            f"sub-folders of {folder} that are numbers must be the labels 0..{len(names) - 1}, found "
            f"{', '.join(names)}"
        )
    return labels


def refuse_mixture(folder: Path, names: list[str]) -> None:
    """Raises if some names are numbers and some not: sorting would give unintended labels."""
    numbers = [name for name in names if is_label(name)]
    words = [name for name in names if not is_label(name)]
    outlier = next((name for name in words if name.isnumeric()), words[0] if numbers and words else None)
    if outlier is not None:
        raise ValueError(
            f"sub-folders of {folder} must all be numbers in the digits 0 to 9, or all be names, found "
            f"{outlier!r} among {', '.join(names)}"
        )


def is_label(text: str) -> bool:
    """Whether a text is a number in plain digits."""
    return text.isascii() and text.isdecimal()
