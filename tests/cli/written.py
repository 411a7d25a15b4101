"""What a command wrote."""

from pathlib import Path

from unweave.record import record

MODEL = ["forget.json", "model.json", "model.safetensors", "record.json", "split.json"]
"""The files of a model that forgot."""


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def bits(folder: Path) -> bytes:
    """The weights in a folder."""
    return (folder / "model.safetensors").read_bytes()


def stage_of(folder: Path) -> dict:
    """The only stage of a folder's record, which is checked against the schema."""
    (stage,) = record.load(folder)["stages"].values()
    return stage


def row_of(folder: Path) -> dict:
    """The only method of that stage, beside the original."""
    (row,) = (row for name, row in stage_of(folder)["methods"].items() if name != "original")
    return row
