"""One cell of a benchmark: one method on one seed of one stage, written as soon as it is done.

A cell is `cells/STAGE/SEED/METHOD.json` (its cost), `METHOD.parquet` or `METHOD.npz` (the model's answers)
and `METHOD.values.json` (its metrics, compared with the seed's retrained model). Each JSON file holds the
digest of everything it depends on, and is reused while that matches. The stages of several budgets share the
cells of models that no budget changes, in the folder of their recipe.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch import nn

from unweave.audits.exam import Outputs, Storing
from unweave.bench.cache import Content, append_suffix, file_name, read_or_make
from unweave.bench.peak_memory import peak_memory
from unweave.bench.stage import Memory, Stage
from unweave.descent.probe import Probe
from unweave.descent.timing import run_and_time
from unweave.descent.train import TRAINING_FORMAT, digest
from unweave.errors import Failed
from unweave.record.one_model import trace_rows
from unweave.record.record import device_kind
from unweave.weights.cost import Cost

REFERENCE = "retrained"
"""The name of the reference's cell; the method "retrain" is another retraining, from other weights."""

UNBUDGETED = (REFERENCE, "original", "retrain")
"""The cells that do not depend on the budget."""

METHODS_FORMAT = 2
"""Format number of cells: it stands for all code that affects a method's weights, answers, cost and probes.

Raise it in the commit that changes any of these for a method of given settings; every cell is then run again.
Another default or setting needs no raise, because the key of a cell includes `repr(method)`.
"""

MEASURING_FORMAT = 2
"""Format number of metrics: it stands for all code that computes metrics from the answers of cells.

Raise it in the commit that changes a metric or adds one: cells are then measured again, but not run again.
"""

StoredCell = tuple[Path, Content]
"""The place of a cell, and the cell."""


def run_seed(stage: Stage, seed: int, methods: tuple[str, ...]) -> None:
    """Runs all cells of a seed: the reference and every method. Valid cells are kept."""
    stage.exam()  # raises for unfit data before any training
    original = cache(lambda: stage.load_or_train("mixed", seed).model)
    original_cell = run_original(stage, original, seed) if "original" in methods else None
    reference = run_reference(stage, seed, original_cell)
    memory: Memory = {}
    for name in methods:
        cell = run_method(stage, original, seed, name, memory)
        if cell["failed"] is None:
            measure_cell(stage, cell_path(stage, seed, name), cell, reference, original_cell)


def run_original(stage: Stage, original: Callable[[], nn.Module], seed: int) -> StoredCell:
    """The cell of the untouched original, with which others are compared, and its place.

    Raises:
        Failed: If its answers can't be examined.
    """
    cell = run_method(stage, original, seed, "original", {})
    if cell["failed"] is not None:
        raise Failed(f"the original of seed {seed} failed: {cell['failed']}")
    return cell_path(stage, seed, "original"), cell


def run_reference(stage: Stage, seed: int, original: StoredCell | None = None) -> StoredCell:
    """The cell of the retrained reference of a seed, and its place.

    Args:
        stage: The stage.
        seed: The seed of its training.
        original: The cell of the untouched original, if their distance is to be measured.
    """
    place = cell_path(stage, seed, REFERENCE)

    def make() -> Content:
        trained_model = stage.load_or_train("retain", seed)
        facts = {"repr": stage.describe_retraining(), "peak_mib": None, "trace": {}}
        facts |= {"ran_on": device_kind(stage.device)}
        return {**cost_row(trained_model.cost), **facts, **write_answers(stage, trained_model.model, place)}

    cell = read_or_make(place, cell_key(stage, seed, REFERENCE), make)
    if cell["failed"] is not None:
        raise Failed(f"the retrained model of seed {seed} failed: {cell['failed']}")
    measure_cell(stage, place, cell, None, original)
    return place, cell


def run_method(
    stage: Stage, original: Callable[[], nn.Module], seed: int, name: str, memory: Memory
) -> Content:
    """Runs a method on a copy of the original. The cell of a failed method holds the reason."""
    method, place = stage.recipe.method(name), cell_path(stage, seed, name)
    interval = stage.recipe.probe if name == stage.recipe.headline else 0
    key = cell_key(stage, seed, f"{method!r}, probed every {interval} steps" if interval else repr(method))

    def make() -> Content:
        problem = stage.problem(original(), seed, memory)
        if interval:
            problem.watch = Probe(interval)
        failure = None
        with peak_memory(stage.device) as peak:
            try:
                cost = run_and_time(problem, method)
            except (ValueError, Failed) as error:
                cost, failure = problem.cost, str(error)
        trace = trace_rows(problem.traces, problem.curves)
        run_facts = {"repr": repr(method), "peak_mib": peak.mib, "trace": trace}
        run_facts |= {"ran_on": device_kind(stage.device)}
        outcome = {"failed": failure, "probes": {}}
        if failure is None:
            outcome = write_answers(stage, problem.model, place, original())
        return {**cost_row(cost), **run_facts, **outcome}

    return read_or_make(place, key, make)


def write_answers(stage: Stage, model: nn.Module, place: Path, original: nn.Module | None = None) -> Content:
    """Writes the answers of a model, before its cell, and probes the model."""
    exam = stage.exam()
    try:
        answers = exam.answers(model)
    except Failed as error:
        return {"failed": str(error), "probes": {}}
    place.parent.mkdir(parents=True, exist_ok=True)
    append_suffix(place, "json").unlink(missing_ok=True)  # an earlier cell does not describe these answers
    exam.save(answers, append_suffix(place, exam.suffix))
    return {"failed": None, "probes": exam.probes(model, original)}


def measure_cell(
    stage: Stage, place: Path, cell: Content, reference: StoredCell | None, original: StoredCell | None = None
) -> Content:
    """The metrics of a cell against the reference, histograms of its losses, pictures of its answers."""
    key = {"cell": cell["key"], "beside": None if reference is None else reference[1]["key"]}
    key |= {"before": None if original is None else original[1]["key"]}

    def make() -> Content:
        exam = stage.exam()
        answers = read_answers(exam, place)
        other = None if reference is None else read_answers(exam, reference[0])
        drift = {} if original is None else exam.drift(answers, read_answers(exam, original[0]))
        values = {**exam.measure(answers, other), **drift, **cell["probes"]}
        benchmarks = {} if other is None else exam.benchmark_metrics(answers, other)
        pictures = {"sheet": exam.sheet(answers), "description": exam.describe(answers)}
        return {"values": values, "benchmarked": benchmarks, "losses": exam.histograms(answers), **pictures}

    return read_or_make(append_suffix(place, "values"), digest({**key, "format": MEASURING_FORMAT}), make)


def cost_row(cost: Cost) -> Content:
    """A cost as a record holds it."""
    return {"seconds": cost.seconds, "gradient_evaluations": cost.gradients, "examples": cost.examples}


def cell_path(stage: Stage, seed: int, name: str) -> Path:
    """The path of a cell, without a suffix."""
    of = stage.recipe.name if name in UNBUDGETED else stage.name
    return stage.folder / "cells" / of / str(seed) / file_name(name)


def read_answers(exam: Storing[Outputs], place: Path) -> Outputs:
    """Reads the answers of the model of a cell."""
    return exam.load(append_suffix(place, exam.suffix))


def cell_key(stage: Stage, seed: int, method: str) -> str:
    """The digest of everything a cell depends on."""
    recipe, data = stage.recipe, stage.split().digest()
    facts = {**stage.facts(), "data": data, "device": stage.device, "family": recipe.family.key}
    return digest({**facts, "seed": seed, "method": method, "format": [TRAINING_FORMAT, METHODS_FORMAT]})
