"""Answers of models in parquet files of any origin."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from unweave.audits.classifier import parquet
from unweave.audits.classifier.evidence import Evidence


def read_evidence(path: Path) -> Evidence:
    """Reads the answers of a model; a class without retain examples counts as forgotten whole."""
    evidence = parquet.load(path)
    forgotten, retained = (set(np.unique(evidence.labels[part]).tolist()) for part in ("forget", "retain"))
    return replace(evidence, forgotten_classes=tuple(sorted(forgotten - retained)))


def list_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, by name.

    Raises:
        ValueError: If there are none.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ValueError(
            f"--reference must be a folder with the answers of retrained models, found {found}: {folder}"
        )
    paths = sorted(folder.glob("*.parquet"), key=natural_key)
    if not paths:
        raise ValueError(f"--reference must hold a parquet file per retrained model, found none in {folder}")
    return paths


def natural_key(path: Path) -> list[tuple[str, int]]:
    """A sort key that compares numbers in names by value: 2 comes before 10."""
    pieces = re.findall(r"(\D*)(\d*)", path.name)
    return [(word, int(number or 0)) for word, number in pieces]
