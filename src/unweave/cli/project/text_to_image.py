"""Text-to-image pipelines in a local folder, of which only the verbs with prompts or concepts read more."""

from pathlib import Path

from unweave.record.files import read_object
from unweave.tasks.diffusion.file_names import INDEX, PIPELINE


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a text-to-image pipeline."""
    index = folder / INDEX
    return index.is_file() and read_object(index).get("_class_name") == PIPELINE


def refuse_pipeline(folder: Path) -> None:
    """Raises if a folder holds one, for verbs that take none."""
    if is_pipeline(folder):
        raise ValueError(
            f"{folder} holds a text-to-image model: only check and forget (with --concept) and audit (with "
            "--prompts) take one; to compare methods, forget with each and audit the results"
        )
