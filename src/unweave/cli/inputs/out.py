"""`--out`: the only folder that a verb writes into, without overwriting other work.

A run claims its folder by a small file that holds the request. The same request resumes in that folder;
another request gets a numbered sibling.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, takewhile
from operator import eq
from pathlib import Path
from typing import Any

from unweave.errors import Failed
from unweave.record.files import write_atomically

CLAIM = "run.json"
LASTING = ("cells", "generated", "pipelines", "references", "strata", "tuning")
"""Folders of finished work, which an error never removes."""

Facts = Mapping[str, Any]


def choose_folder(
    out: Path,
    facts: Facts,
    *,
    claim: str = CLAIM,
    goes_on: Callable[[Facts, Facts], bool] = eq,
) -> Path:
    """Chooses the folder of a run: `out`, or the first numbered sibling that is free or holds this run.

    It creates nothing.

    Args:
        out: The folder given by the user.
        facts: The facts that the run depends on, as JSON values.
        claim: The name of the file that holds them.
        goes_on: Decides whether the new request continues the old one.

    Raises:
        ValueError: If `out`, or a folder above it, is a file.
    """
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--out must be a folder, found a file at {place}: choose another name")
    return next(
        folder for folder in siblings(out) if is_free(folder) or can_resume(folder / claim, facts, goes_on)
    )


def siblings(out: Path) -> Iterator[Path]:
    """The folder, and its numbered siblings without an end."""
    base = out.resolve() if out.name in ("", "..") else out
    return (out if number == 1 else base.with_name(f"{base.name}-{number}") for number in count(1))


def earlier_folders(out: Path) -> Iterator[Path]:
    """The folder and its numbered siblings that are in use."""
    return takewhile(lambda each: not is_free(each), siblings(out))


def find_earlier(
    out: Path, facts: Facts, shares: Callable[[Facts, Facts], bool], holding: str
) -> Path | None:
    """The first folder of `out` and its siblings whose request shares its work with this one.

    Args:
        out: The folder given by the user.
        facts: The facts that this run depends on, as JSON values.
        shares: Decides whether the new request can use the work of the old one.
        holding: The name of the folder of that work, which must be there.
    """
    for folder in earlier_folders(out):
        if can_resume(folder / CLAIM, facts, shares) and (folder / holding).is_dir():
            return folder
    return None


def refuse_within(
    folder: Path, source: Path | None, data: str | None = None, config: Path | None = None
) -> None:
    """Raises if a run would write into the folder of its model, of its images or of its configuration.

    Args:
        folder: The folder given by the user, whose numbered siblings are next to it.
        source: The folder of the model.
        data: The folder or the file of the images.
        config: The folder of the configuration of a model in one file.
    """
    places = {} if source is None else {"model's": model_folder(source)}
    places |= {"images'": Path(data)} if data is not None and Path(data).is_dir() else {}
    places |= {} if config is None else {"configuration's": config}
    for what, place in places.items():
        if folder.resolve().is_relative_to(place.resolve()):
            raise ValueError(f"--out must lie outside of the {what} folder {place}, found {folder}")


def model_folder(source: Path) -> Path:
    """The folder of a model, or of the diffusers pipeline that contains it."""
    parent = source.resolve().parent
    parts = ("model_index.json", "scheduler/scheduler_config.json")
    return parent if any((parent / part).is_file() for part in parts) else source


def is_free(folder: Path) -> bool:
    """Whether the folder is missing or empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def can_resume(claim: Path, facts: Facts, goes_on: Callable[[Facts, Facts], bool]) -> bool:
    """Whether a folder holds a run that this request continues."""
    if not claim.is_file():
        return False
    try:
        earlier_facts = json.loads(claim.read_text(encoding="utf-8"))
    except ValueError:  # a file that unweave did not write
        return False
    return isinstance(earlier_facts, dict) and goes_on(as_read_back(facts), earlier_facts)


def as_read_back(facts: Facts) -> Facts:
    """The request as JSON gives it back."""
    return json.loads(json.dumps(facts))


@contextmanager
def open_folder(folder: Path, facts: Facts, *, claim: str = CLAIM) -> Iterator[Path]:
    """Creates and claims a folder for the body; removes it if the body fails without finished work.

    Args:
        folder: The folder from `choose_folder`.
        facts: The facts that the run depends on.
        claim: The name of the file that holds them.

    Raises:
        Failed: Instead of a ValueError, which means that nothing was written, if finished work stays.
    """
    new_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    is_unused, earlier_files = is_free(folder), list_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(folder / claim, json.dumps(facts, indent=1))
        yield folder
    except ValueError as error:
        if is_unused and not any(list_files(folder / name) for name in LASTING):
            clear(folder)
        if list_files(folder) - earlier_files - {folder / claim}:
            raise Failed(str(error)) from error
        raise
    finally:
        if is_unused:
            remove_empty(folder, claim, new_folders)


def write_json(place: Path | None, facts: Facts, name: str, content: object) -> None:
    """Writes a JSON file into the folder of a run, if one is given.

    Args:
        place: The folder given by the user.
        facts: The facts that the run depends on.
        name: The name of the file.
        content: What it holds.
    """
    if place is not None:
        with open_folder(choose_folder(place, facts), facts) as folder:
            write_atomically(folder / name, json.dumps(content, indent=1))


def list_files(folder: Path) -> set[Path]:
    """All files below a folder, without empty ones such as locks; none if it does not exist."""
    return {path for path in folder.rglob("*") if path.is_file() and path.stat().st_size}


def clear(folder: Path) -> None:
    """Removes the content of a folder."""
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def remove_empty(folder: Path, claim: str, new_folders: list[Path]) -> None:
    """Removes a claim without further files but locks, and the folders that are then empty.

    Args:
        folder: The folder, which was free before.
        claim: The name of the claim.
        new_folders: The created folders, innermost first.
    """
    if list_files(folder) <= {folder / claim}:  # a worker that is stopped leaves its lock
        clear(folder)
    for each in new_folders:
        if each.exists() and not any(each.iterdir()):
            each.rmdir()
