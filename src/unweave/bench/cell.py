"""One cell of a benchmark: one method on one seed of one stage, on disk as soon as it is done.

A cell is `cells/STAGE/SEED/METHOD.json` (what it cost), `METHOD.parquet` or `METHOD.npz` (what the model
answers) and `METHOD.values.json` (what that measures beside the seed's retrained model). Each JSON file names
the digest of all that it depends on, and is used again while that holds. The stages of several budgets share
the cells of models that no budget changes, in the folder of their recipe.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch import nn

from unweave.audits.exam import Exam, Found
from unweave.bench.cache import Content, append_suffix, file_name, read_or_make
from unweave.bench.peak_memory import peak_memory
from unweave.bench.stage import Memory, Stage
from unweave.descent.probe import Probe
from unweave.descent.train import TRAINING_FORMAT, digest, run_and_time
from unweave.errors import Failed
from unweave.record.traces import trace_rows
from unweave.weights.cost import Cost

REFERENCE = "retrained"
"""The name of the reference's cell; the method "retrain" is one more retraining, from weights of its own."""

UNBUDGETED = (REFERENCE, "original", "retrain")
"""The cells that are the same whatever a method may spend."""

METHODS_FORMAT = 1
"""Stands for all code that decides what a cell holds: a method's weights, answers, cost and probes.

Raise it in the commit that changes any of these for a method of given settings: every cell is then run again.
Another default or setting needs no raise, because the key of a cell holds `repr(method)`.
"""

MEASURING_FORMAT = 1
"""Stands for all code that computes metrics from the answers of cells.

Raise it in the commit that changes a metric or adds one: cells are then measured again, but not run again.
"""

Done = tuple[Path, Content]
"""Where a cell is, and the cell."""


def run_seed(stage: Stage, seed: int, methods: tuple[str, ...]) -> None:
    """All cells of a seed: the reference and every method. What is there and still valid is left alone."""
    stage.exam()  # says what it can't be held on before anything is trained
    original = cache(lambda: stage.load_or_train("mixed", seed).model)
    before = run_original(stage, original, seed) if "original" in methods else None
    reference = run_reference(stage, seed, before)
    memory: Memory = {}
    for name in methods:
        cell = run_method(stage, original, seed, name, memory)
        if cell["failed"] is None:
            measure_cell(stage, cell_path(stage, seed, name), cell, reference, before)


def run_original(stage: Stage, original: Callable[[], nn.Module], seed: int) -> Done | None:
    """The cell of the untouched original, which others are measured beside, and where it is."""
    cell = run_method(stage, original, seed, "original", {})
    return (cell_path(stage, seed, "original"), cell) if cell["failed"] is None else None


def run_reference(stage: Stage, seed: int, original: Done | None = None) -> Done:
    """The cell of the retrained reference of a seed, and where it is.

    Args:
        stage: The stage.
        seed: Of its training.
        original: The untouched original's cell, if it is to be said how far the two are apart.
    """
    place = cell_path(stage, seed, REFERENCE)

    def make() -> Content:
        trained = stage.load_or_train("retain", seed)
        known = {"repr": stage.describe_retraining(), "peak_mib": None, "trace": {}}
        return {**cost_row(trained.cost), **known, **write_answers(stage, trained.model, place)}

    cell = read_or_make(place, cell_key(stage, seed, REFERENCE), make)
    if cell["failed"] is not None:
        raise Failed(f"the retrained model of seed {seed} is of no use: {cell['failed']}")
    measure_cell(stage, place, cell, None, original)
    return place, cell


def run_method(
    stage: Stage, original: Callable[[], nn.Module], seed: int, name: str, memory: Memory
) -> Content:
    """The cell of a method on a copy of the original. A method that fails says why, and the rest goes on."""
    method, place = stage.recipe.method(name), cell_path(stage, seed, name)
    every = stage.recipe.probe if name == stage.recipe.headline else 0
    key = cell_key(stage, seed, f"{method!r}, probed every {every} steps" if every else repr(method))

    def make() -> Content:
        problem = stage.problem(original(), seed, memory)
        if every:
            problem.watch = Probe(every)
        failed = None
        with peak_memory(stage.device) as peak:
            try:
                cost = run_and_time(problem, method)
            except (ValueError, Failed) as error:
                cost, failed = problem.cost, str(error)
        trace = trace_rows(problem.traces, problem.curves)
        known = {"repr": repr(method), "peak_mib": peak.mib, "trace": trace}
        found = {"failed": failed, "probes": {}}
        if failed is None:
            found = write_answers(stage, problem.model, place, original())
        return {**cost_row(cost), **known, **found}

    return read_or_make(place, key, make)


def write_answers(stage: Stage, model: nn.Module, place: Path, original: nn.Module | None = None) -> Content:
    """Writes what a model answers, before the cell that counts on it, and probes it."""
    exam = stage.exam()
    try:
        found = exam.answers(model)
    except Failed as error:
        return {"failed": str(error), "probes": {}}
    place.parent.mkdir(parents=True, exist_ok=True)
    exam.save(found, append_suffix(place, exam.suffix))
    return {"failed": None, "probes": exam.probes(model, original)}


def measure_cell(
    stage: Stage, place: Path, cell: Content, reference: Done | None, original: Done | None = None
) -> Content:
    """The metrics of a cell beside the reference's, counts of its losses, and what its answers look like."""
    key = {"cell": cell["key"], "beside": None if reference is None else reference[1]["key"]}
    key |= {"before": None if original is None else original[1]["key"]}

    def make() -> Content:
        exam = stage.exam()
        found = read_answers(exam, place)
        other = None if reference is None else read_answers(exam, reference[0])
        drift = {} if original is None else exam.drift(found, read_answers(exam, original[0]))
        values = {**exam.measure(found, other), **drift, **cell["probes"]}
        benchmarked = {} if other is None else exam.benchmark_metrics(found, other)
        shown = {"sheet": exam.sheet(found), "description": exam.describe(found)}
        return {"values": values, "benchmarked": benchmarked, "losses": exam.histograms(found), **shown}

    return read_or_make(append_suffix(place, "values"), digest({**key, "format": MEASURING_FORMAT}), make)


def cost_row(cost: Cost) -> Content:
    """A cost in the words of a record."""
    return {"seconds": cost.seconds, "gradient_evaluations": cost.gradients, "examples": cost.examples}


def cell_path(stage: Stage, seed: int, name: str) -> Path:
    """Where a cell is; without a suffix."""
    of = stage.recipe.name if name in UNBUDGETED else stage.name
    return stage.folder / "cells" / of / str(seed) / file_name(name)


def read_answers(exam: Exam[Found], place: Path) -> Found:
    """What the model of a cell answers."""
    return exam.load(append_suffix(place, exam.suffix))


def cell_key(stage: Stage, seed: int, method: str) -> str:
    """The digest of all that a cell depends on."""
    recipe, data = stage.recipe, stage.split().digest()
    facts = {**stage.facts(), "data": data, "device": stage.device, "family": repr(recipe.family)}
    return digest({**facts, "seed": seed, "method": method, "format": [TRAINING_FORMAT, METHODS_FORMAT]})
