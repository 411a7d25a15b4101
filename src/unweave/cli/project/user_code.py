"""A user's own code: `project.py`, which may raise anything and return anything.

It defines `load()`, which returns a dict: `model` (a trained `nn.Module`), `train` and `test` (map-style data
sets), and optionally `ids` (a string per training example), `calibration` (a separate data set, positions
in `test`, or a fraction of it) and `loader` (the `workers` that read batches, and the `prefetch` of each). A
family's table, as in a recipe, makes the model one of that family: with
`generation` it is a denoiser `f(x_t, t, condition)`, and the examples are images as bytes with their class.
The file may define `train(dataset, seed) -> model`, which trains the retrained references.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from unweave.cli.project.named_dataset import NamedDataset
from unweave.cli.project.project import Project, Retraining
from unweave.data import Source
from unweave.data.other_libraries import OfAnotherLibrary, ReadInBatches
from unweave.data.user_dataset import UserDataset, can_fork, dataset_of
from unweave.data.user_items import refuse_other_reading
from unweave.errors import Failed
from unweave.families import families_by_table, read_family
from unweave.record.checkpoint import contents, difference, shapes
from unweave.record.code_digest import code_digest
from unweave.split import Split, as_source
from unweave.tables import refuse_unknown
from unweave.unlearning import refuse_unusable

T = TypeVar("T")
KEYS = ("model", "train", "test", "ids", "calibration", "loader")
"""What `load()` may return, beside the table of a family; the first three are needed."""

LOADER = ("workers", "prefetch")
"""The keys of a loader."""


def from_file(path: Path) -> Project:
    """The project of a user's own model and data.

    Raises:
        ValueError: If there is no such file, its code raises, or its results are invalid.
    """
    result, train = run_load(path)
    model, test = result["model"], source(result["test"], "test")
    if not isinstance(model, nn.Module):
        raise ValueError(f"'model' must be an nn.Module, found {type(model).__name__}")
    train_data = source(result["train"], "train")
    train_data = train_data if result.get("ids") is None else name_examples(result["train"], result["ids"])
    test, calibration = split_held_out(result["test"], test, result.get("calibration", 0.5))
    train_data, test = (read_ahead(data, result.get("loader", {})) for data in (train_data, test))
    refuse_unusable(model)
    family = read_family(result)
    sources = {name: family.source(data) for name, data in (("train", train_data), ("test", test))}
    n_classes = 1 + max(int(data.labels.max()) for data in sources.values())
    for name, data in sources.items():
        family.refuse_unfit(model, data, name, n_classes)
    return Project(
        facts={"project": str(path.resolve()), "sha256": code_digest(path.resolve())},
        train=sources["train"],
        test=sources["test"],
        calibration=calibration,
        family=family,
        model=model,
        methods=family.methods,
        find_method=family.method_named,
        retrain=None if train is None else make_retraining(path, train, train_data, model),
    )


def run_load(path: Path) -> tuple[Mapping[str, Any], Callable[..., Any] | None]:
    """Calls `load()` of a file; returns its result, and the file's `train`, if there is one."""
    if not path.is_file():
        raise ValueError(f"expected a project at {path}, found no such file")
    module = import_file(path)
    load, train = find_function(module, path, "load"), find_function(module, path, "train")
    if load is None:
        raise ValueError(f"{path} must define load(), which returns a dict of model, train and test")
    return check_keys(call_user_code(path, "load()", load), path), train


def import_file(path: Path) -> ModuleType:
    """Imports a file as a module, with its folder on the import path."""
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(f"unweave_project_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickle look up their module
    call_user_code(path, "the file", spec.loader.exec_module, module)
    return module


def find_function(module: ModuleType, path: Path, name: str) -> Callable[..., Any] | None:
    """A function of the module, or None."""
    function = vars(module).get(name)
    if function is not None and not callable(function):
        raise ValueError(f"{name} in {path} must be a function, found {type(function).__name__}")
    return function


def call_user_code(path: Path, what: str, code: Callable[..., T], *arguments: object) -> T:
    """Calls a user's code; an error in it becomes one line that names the place."""
    try:
        return code(*arguments)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        place = f"{path}, line {lines[-1]}" if lines else str(path)
        raise ValueError(f"{what} of {place} raised {type(error).__name__}: {error}") from error


def check_keys(result: object, path: Path) -> Mapping[str, Any]:
    """Returns the result of `load()`; raises if it is no dict with the right keys."""
    if not isinstance(result, Mapping):
        actual = type(result).__name__
        raise ValueError(f"load() of {path} must return a dict of model, train and test, found {actual}")
    refuse_unknown(result, [*KEYS, *families_by_table()], f"what load() of {path} returns")
    missing_keys = [key for key in KEYS[:3] if key not in result]
    if missing_keys:
        actual = ", ".join(map(str, result)) or "none"
        raise ValueError(f"load() of {path} must return the key {missing_keys[0]!r}, found {actual}")
    return result


def source(data: object, key: str) -> Source:
    """A user's data as a source."""
    if isinstance(data, ReadInBatches) and not isinstance(data, Dataset | Source):
        data = OfAnotherLibrary(data)
    refuse_other_reading(data)
    if not isinstance(data, Dataset | Source):
        raise ValueError(f"{key!r} must be a torch Dataset, found {type(data).__name__}: wrap it in one")
    return as_source(data)


def read_ahead(data: Source, loader: object) -> Source:
    """The data, read by the processes that `loader` asks for."""
    if not isinstance(loader, Mapping) or not all(type(each) is int for each in loader.values()):
        raise ValueError(
            f"'loader' must be a table such as {{'workers': 2, 'prefetch': 4}}, found {loader!r}"
        )
    refuse_unknown(loader, LOADER, "'loader'")
    if not loader:
        return data
    if "prefetch" in loader and not loader.get("workers"):
        raise ValueError(
            f"'loader' needs workers, which read the batches of 'prefetch', found {loader!r}: add 'workers'"
        )
    if not isinstance(data, UserDataset):
        raise ValueError(f"'loader' is for data sets, found a {type(data).__name__}, which reads itself")
    if loader.get("workers") and not can_fork():
        count = loader["workers"]
        raise ValueError(f"processes cannot fork here, as 'loader' needs: set 'workers' to 0, found {count}")
    return data.read_ahead(workers=loader.get("workers", 0), prefetch=loader.get("prefetch", 2))


def name_examples(data: object, ids: object) -> NamedDataset:
    """A user's data with separate ids."""
    if not isinstance(data, Dataset):
        actual = type(data).__name__
        raise ValueError(f"'ids' belong to a torch Dataset, found {actual}: put the ids into its items")
    if isinstance(ids, str) or not isinstance(ids, Sequence):
        actual = type(ids).__name__
        raise ValueError(f"'ids' must be a list with a string per training example, found {actual}")
    return NamedDataset(data, ids=ids)


def split_held_out(test_set: object, test: Source, calibration: object) -> tuple[Source, float | list[int]]:
    """The held-out data, and its part for calibration."""
    if isinstance(calibration, Dataset) and isinstance(test_set, Dataset):
        extra, dataset = source(calibration, "calibration"), ConcatDataset([test_set, calibration])
        return as_source(dataset), list(range(len(test), len(test) + len(extra)))
    if isinstance(calibration, float) and 0 < calibration < 1:
        return test, calibration
    if isinstance(calibration, Sequence) and all(isinstance(place, int) for place in calibration):
        return test, check_positions(calibration, len(test))
    actual = calibration if isinstance(calibration, float) else type(calibration).__name__
    requirement = "a Dataset, positions in 'test', or a fraction in (0, 1)"
    raise ValueError(f"'calibration' must be {requirement}, found {actual}")


def check_positions(calibration: Sequence[int], n: int) -> list[int]:
    """Returns positions of some held-out examples; raises if they are all, repeated or out of range."""
    is_in_range = all(0 <= place < n for place in calibration)
    if not is_in_range or not 0 < len(set(calibration)) == len(calibration) < n:
        raise ValueError(f"'calibration' must hold some positions in 0..{n - 1}, but not all, and each once")
    return list(calibration)


def make_retraining(path: Path, train: Callable[..., Any], source: Source, original: nn.Module) -> Retraining:
    """The retraining by a user's `train(dataset, seed)`, on examples as `load()` returned them.

    An error in a training is a failed run, not bad input, because it may be the tenth training.
    """

    def retrain(split: Split, seed: int) -> nn.Module:
        try:
            return run_train(path, train, dataset_of(source, split.retain), seed, original)
        except ValueError as error:
            raise Failed(str(error)) from error

    return retrain


def run_train(
    path: Path, train: Callable[..., Any], dataset: Dataset, seed: int, original: nn.Module
) -> nn.Module:
    """Calls a user's `train(dataset, seed)`.

    Raises:
        ValueError: If it raises, returns an invalid model, or changes the original.
    """
    original_digest = contents(original.state_dict())
    model = call_user_code(path, "train()", train, dataset, seed)
    if not isinstance(model, nn.Module):
        raise ValueError(f"train() of {path} must return an nn.Module, found {type(model).__name__}")
    if contents(original.state_dict()) != original_digest:
        raise ValueError(
            f"train() of {path} must leave the model alone that load() returned, and changed its weights: "
            "make another model there"
        )
    if problem := difference(shapes(original.state_dict()), shapes(model.state_dict())):
        raise ValueError(
            f"train() of {path} must return a model like that of load(), {problem}: make the same model "
            "there; of a compiled or wrapped one return the model inside"
        )
    refuse_unusable(model)
    return model
