"""The folder that `unweave forget` writes: its files, and whether they are whole."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unweave.cli.inputs import out
from unweave.cli.project import Project
from unweave.record import checkpoint, record
from unweave.record.files import sha256
from unweave.record.one_model import add_request
from unweave.result import ADDITIONS, PRETRAINED, Pretrained, Result, read_if_present, refuse_foreign
from unweave.split import Split
from unweave.weights.sharded_files import SHARDED, read_undamaged

CLAIM = "forget.json"
MODELS = "models"
SPLIT = "split.json"
STATES = "states"


def find_folder(
    place: Path, run_facts: out.Facts, project: Project, *, sharded: bool = False
) -> tuple[Path, bool]:
    """The folder of a run, and whether it holds the finished run.

    Raises:
        ValueError: If the folder can't be used.
    """
    folder = out.choose_folder(place, run_facts, claim=CLAIM)
    is_finished = is_done(folder, project, additions="trained" in run_facts, sharded=sharded)
    if not is_finished:
        refuse_foreign(folder)
    return folder, is_finished


def remove_states(folder: Path) -> None:
    """Removes the saved states of a run that is finished."""
    shutil.rmtree(folder / STATES, ignore_errors=True)


def manifest_facts(result: Result, name: str) -> dict[str, Any]:
    """The facts about a model that its diffusers folder holds; `name` is that of the method."""
    return {
        "method": name,
        "settings": repr(result.method),
        "seed": result.seed,
        "split": result.split.digest(),
    }


def write_request(
    folder: Path,
    model: str,
    words: str,
    facts: Mapping[str, Any] = MappingProxyType({}),
    data: Mapping[str, Any] | None = None,
) -> None:
    """Adds the request, in words, to the record of a run; further facts and data replace the record's."""
    content = record.load(folder)
    own_facts = {"model": model, "asked": words, "date": content["environment"]["date"]}
    record.write(add_request(content, {**own_facts, **facts}, data), folder)


def is_done(folder: Path, project: Project, *, additions: bool, sharded: bool = False) -> bool:
    """Whether a folder holds all files of this run, as they were written, and no model of another form."""
    own_form = not sharded and (project.write is not None or isinstance(project.model, Pretrained))
    whole_files = [checkpoint.WEIGHTS, checkpoint.SIDECAR]
    files, other_files = ([SHARDED], whole_files) if sharded else (whole_files, [SHARDED])
    files += [SPLIT, record.FILE]
    files += [name for name, is_written in ((PRETRAINED, own_form), (ADDITIONS, additions)) if is_written]
    is_complete = all((folder / name).exists() for name in files)
    has_other_files = any((folder / name).exists() for name in other_files)
    return is_complete and not has_other_files and is_whole(folder, project, sharded=sharded)


def is_whole(folder: Path, project: Project, *, sharded: bool) -> bool:
    """Whether the files of a run fit together: after a crash or a full disk some may be cut or missing."""
    try:
        (stage,) = record.load(folder)["stages"].values()
        split = Split.load(folder / SPLIT, project.train, project.test)
        facts = read_undamaged(folder / SHARDED) if sharded else read_if_present(folder / checkpoint.SIDECAR)
    except ValueError:
        return False
    has_date = stage.get("request", {}).get("date") is not None  # what is added last
    is_same = facts.get("split") == split.digest()
    return has_date and is_same and (sharded or facts.get("weights") == sha256(folder / checkpoint.WEIGHTS))
