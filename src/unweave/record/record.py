"""`record.json`: the run, its data and its measurements, for reports and auditors.

A record is a plain dictionary; `record.schema.json` next to this file defines its keys, and the meaning and
unit of each number. Numbers are written with enough digits to restore the same float. A file contains a
digest of its content, which every reader verifies (`unweave.record.digest`); the earlier schema had none.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from unweave.record.compact import restore
from unweave.record.digest import KEY, refuse_changed, seal, to_json_values
from unweave.record.files import write_atomically

# The schema, not the type checker, describes a record: any JSON value is possible.
Record = Mapping[str, Any]

SCHEMA = "unweave.record/2"
EARLIER = "unweave.record/1"
"""The earlier schema, without a digest: such a record can be read but not verified."""
FILE = "record.json"
PACKAGES = (
    "unweave",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "optuna",
)


def environment() -> dict[str, Any]:
    """The environment of a run: code, Python, packages, processor, threads and devices.

    It names neither the machine nor its user. `code` is the SHA-256 of the package's own Python files, which
    distinguishes an edited checkout from the release of the same version.
    """
    import torch

    return {
        "date": datetime.now(UTC).date().isoformat(),
        "code": package_digest(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": device_kind("cpu"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


@cache
def package_digest() -> str:
    """SHA-256 of the paths and contents of this package's own Python files."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.glob("**/*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write(record: Record, folder: str | Path) -> Path:
    """Validates `record` and writes it to `folder`/record.json, atomically.

    The file is replaced in one step once the new one is on the disk, so after any interruption a reader finds
    the old record or the new one. NaN and infinity, which JSON lacks, are written as null.

    Returns:
        The path of the file.

    Raises:
        ValueError: If the record does not follow the schema, or `folder` is a file; nothing is written.
    """
    validate(record, schemas=(SCHEMA,))
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"expected a folder to write {FILE} into, found a file at {folder}: choose another name"
        )
    text = json.dumps(seal(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, text)
    return folder / FILE


def load(path: str | Path) -> dict[str, Any]:
    """Reads and validates a record, and verifies its digest, which is not returned.

    Args:
        path: The file, which may be a summary (`unweave.record.compact`), or the folder with its record.json.

    Raises:
        ValueError: If there is no such file, it is not JSON, it does not follow the schema, or it was changed
            after it was written.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"expected a record at {path}, found none: give a run's folder or its {FILE}"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"expected JSON text in {path}, found bytes that are not UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"expected JSON in {path}, found tables nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"expected JSON in {path}, found at line {error.lineno}: {error.msg}") from error
    except ValueError as error:  # a number that JSON does not know
        raise ValueError(f"{path}: {error}") from error
    if isinstance(record, dict):
        record = restore(record, path)
    try:
        validate(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if record["schema"] != EARLIER:
        refuse_changed(record, path)
    return {key: value for key, value in record.items() if key != KEY}


def explain_unverified(record: Record) -> str:
    """A sentence if a record can't be verified; empty if its digest was."""
    if record.get("schema") != EARLIER:
        return ""
    return f"Made by an earlier version ({EARLIER}), without a digest: its figures can't be verified."


def validate(record: Any, *, schemas: Sequence[str] = (SCHEMA, EARLIER)) -> None:
    """Raises a ValueError that names the place where `record` violates the schema."""
    from jsonschema.exceptions import best_match

    actual = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
    if actual not in schemas:
        raise ValueError(f"expected a record of schema {SCHEMA!r}, found {actual!r}")
    error = best_match(schema_validator().iter_errors(to_json_values(record)))
    if error is not None:
        place = ".".join(str(part) for part in error.absolute_path) or "the record"
        raise ValueError(f"{place} does not follow schema {SCHEMA!r}: {_shorten(error.message)}")
    for name, stage in record["stages"].items():
        _check_headline(name, stage)
        _check_histograms(name, stage.get("histograms", {}))
        _check_per_seed(name, stage)


@cache
def schema_validator() -> Any:
    """jsonschema's validator of record.schema.json, which keeps the references that it has resolved."""
    from jsonschema import Draft202012Validator

    schema = json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


def _check_headline(name: str, stage: Record) -> None:
    if "headline" in stage and stage["headline"] not in stage["methods"]:
        headline, methods = stage["headline"], ", ".join(stage["methods"])
        raise ValueError(
            f"stages.{name}.headline: expected one of the stage's methods ({methods}), found {headline!r}"
        )


def _check_histograms(stage: str, histograms: Record) -> None:
    """Checks what JSON Schema can't: one more edge than counts, and the same edges throughout a stage."""
    edges = [list(histogram["edges"]) for histogram in histograms.values()]
    for name, histogram in histograms.items():
        count, bins = len(histogram["counts"]), len(histogram["edges"]) - 1
        if count != bins:
            raise ValueError(f"stages.{stage}.histograms.{name}: expected {bins} counts, found {count}")
        if list(histogram["edges"]) != edges[0]:
            raise ValueError(
                f"stages.{stage}.histograms.{name}: expected the bin edges of the other histograms, found "
                "different ones"
            )


def _check_per_seed(name: str, stage: Record) -> None:
    """Checks that there is one number per seed."""
    seed_count = len(stage["seeds"])
    rows = {f"methods.{method}": row for method, row in stage["methods"].items()}
    for part, row in {**rows, "reference": stage["reference"]}.items():
        for figure, numbers in row.get("per_seed", {}).items():
            if len(numbers) != seed_count:
                place, count = f"stages.{name}.{part}.per_seed.{figure}", len(numbers)
                raise ValueError(f"{place}: expected {seed_count} numbers, one per seed, found {count}")


def _shorten(message: str) -> str:
    # jsonschema quotes the whole refused value, which may be a histogram or a record.
    return message if len(message) <= 300 else f"{message[:140]} ... {message[-140:]}"


def _refuse(name: str) -> None:
    raise ValueError(f"expected numbers that JSON knows, found {name}: write null instead")


@cache  # a look takes milliseconds, and a record names eleven packages
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def device_kind(device: str) -> str:
    """The model name of a device; it names no machine."""
    import torch

    place = torch.device(device)
    if place.type == "cpu":
        return _processor()
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def _processor() -> str:
    """The processor's model name; Linux keeps it in /proc, other systems tell Python."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
