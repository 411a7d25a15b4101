"""Makes a stage's part of the record from its cells: margins, scores, verdicts. It only reads files."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import median
from typing import Any

from unweave.audits.attack import Attack
from unweave.audits.margins import Margins, margins
from unweave.audits.metrics import Values
from unweave.audits.summary import gap, mean, reference_row
from unweave.bench.attacked_cells import attack_rows
from unweave.bench.cache import Content, append_suffix, read_or_make
from unweave.bench.cell import MEASURING_FORMAT, REFERENCE, cell_path, read_answers
from unweave.bench.curves import histograms, mean_trace
from unweave.bench.paired_seeds import comparisons, figures_per_seed
from unweave.bench.stage import Stage
from unweave.bench.strata import TRAINED
from unweave.bench.study import REFERENCES, count_own, evaluations, scale_of
from unweave.descent.train import digest
from unweave.record.files import read_object

PICKED = ("mislabelled", "planted", *TRAINED)
"""The forget sets whose examples a record lists."""


def stage_record(
    stage: Stage,
    methods: Sequence[str],
    search: Mapping[str, Sequence[Content]],
    attacks: Sequence[Attack] = (),
) -> dict[str, Any]:
    """A stage's part of a record, from its cells.

    Args:
        stage: The stage, with all cells of its seeds and calibration seeds.
        methods: The methods that were run, including the original.
        search: The log of tuning, by method; may be empty.
        attacks: Attacks on the answers of all models.
    """
    recipe, exam, headline = stage.recipe, stage.exam(), headline_method(methods, stage.recipe.headline)
    references = [read_values(stage, seed, REFERENCE) for seed in recipe.seeds]
    retrained = [read_cell(stage, seed, REFERENCE) for seed in recipe.seeds]
    margins = calibration_margins(stage, recipe.calibration_seeds, "calibration")
    # without them the reported retrained models show the difference of two, which fixes no margin
    spread = margins or calibration_margins(stage, recipe.seeds, "reported")
    rows = {name: method_row(stage, name, references, margins) for name in methods}
    names = [name for name in methods if rows[name]["failed"] is None]
    cells = {
        name: [read_measurement(stage, seed, name) for seed in recipe.seeds] for name in (*names, REFERENCE)
    }
    return {
        "family": recipe.family.name,
        "recipe": stage.table(),
        "seeds": list(recipe.seeds),
        "data": describe_data(stage),
        "margins": None if margins is None else dict(margins.margin),
        "reference": {
            **reference_row(references, margins, exam.metrics, spread),
            "gradient_evaluations": mean([cell["gradient_evaluations"] for cell in retrained]),
            "per_seed": {name: [each[name] for each in references] for name in references[0]},
            **devices_row(retrained),
        },
        "methods": rows,
        "headline": headline,
        "partial": recipe.partial,
        "floor": None if spread is None else spread.gap_floor,
        "calibration_seeds": list(recipe.calibration_seeds),
        "histograms": histograms(cells, REFERENCE, exam.edges),
        "comparisons": comparisons(
            {name: [each["values"] for each in cells[name]] for name in names},
            references,
            headline,
            exam.metrics,
            exam.distance,
        ),
        "sheets": {name: each[0]["sheet"] for name, each in cells.items() if each[0]["sheet"] is not None},
        "descriptions": {
            name: each[0]["description"] for name, each in cells.items() if each[0]["description"]
        },
        **({"attacked_methods": attack_rows(stage, names, attacks)} if attacks else {}),
        **search_row(stage, search),
    }


def headline_method(methods: Sequence[str], headline: str) -> str:
    """The headline method of a report: that of the recipe, or the first that ran and is no reference."""
    candidates = [name for name in methods if name not in REFERENCES] or methods
    return headline if headline in candidates else candidates[0]


def search_row(stage: Stage, search: Mapping[str, Sequence[Content]]) -> dict[str, Any]:
    """The row about the search of settings, with every trial; empty without a search."""
    if not search:
        return {}
    tuning, trials = stage.recipe.tuning, max(map(count_own, search.values()))
    facts = {"against": tuning.against, "seeds": list(tuning.seeds), "budget": tuning.largest_budget}
    retraining = evaluations(stage.recipe.train, stage.split(tuning.seeds[0]))
    facts |= {"limit": tuning.limit, "scale": scale_of(stage), "trials": trials, "retraining": retraining}
    return {"tuned": facts, "search": {name: list(log) for name, log in search.items()}}


def describe_data(stage: Stage) -> dict[str, Any]:
    """The row about the data: digest, sizes of the parts, classes forgotten whole, and the recogniser."""
    split = stage.split()
    parts = ("forget", "retain", "calibration", "test")
    sizes = {name: len(split.part(name)[1]) for name in parts}
    classes = list(split.forgotten_classes)
    facts = {
        "name": stage.table()["data"]["name"],
        "digest": split.digest(),
        **sizes,
        "forgotten_classes": classes,
    }
    is_picked = stage.recipe.data.forget in PICKED
    ids = {"forget_ids": split.part("forget")[1].tolist()} if is_picked else {}
    return {**facts, **ids, **stage.exam().facts}


def calibration_margins(stage: Stage, seeds: Sequence[int], name: str) -> Margins | None:
    """The margins from the retrained models of some seeds, stored under a name; None with fewer than two."""
    if len(seeds) < 2:
        return None
    keys, exam = [read_cell(stage, seed, REFERENCE)["key"] for seed in seeds], stage.exam()

    def make() -> Content:
        answers = [read_answers(exam, cell_path(stage, seed, REFERENCE)) for seed in seeds]
        return {"pairs": [exam.measure_pair(one, other) for one, other in combinations(answers, 2)]}

    place = stage.folder / "cells" / stage.recipe.name / name
    pairs = read_or_make(place, digest({"cells": keys, "format": MEASURING_FORMAT}), make)["pairs"]
    values = [read_values(stage, seed, REFERENCE) for seed in seeds]
    return margins(values, pairs, sizes=exam.sizes, metrics=exam.metrics)


def method_row(
    stage: Stage, name: str, references: Sequence[Values], margins: Margins | None
) -> dict[str, Any]:
    """The row of one method; it has no figures if the method failed on any seed."""
    seeds = stage.recipe.seeds
    cells = [read_cell(stage, seed, name) for seed in seeds]
    retraining = [read_cell(stage, seed, REFERENCE)["seconds"] for seed in seeds]
    peaks = [each["peak_mib"] for each in cells if each["peak_mib"] is not None]
    row = {
        "repr": cells[0]["repr"],
        "seconds": mean([each["seconds"] for each in cells]),
        # the median, because one seed on a busy machine can be off by a factor of three
        "cost": median([each["seconds"] / seconds for each, seconds in zip(cells, retraining, strict=True)]),
        "peak_mib": max(peaks, default=None),
        "gradient_evaluations": mean([each["gradient_evaluations"] for each in cells]),
        "trace": mean_trace([each["trace"] for each in cells]),
        **devices_row(cells),
    }
    failures = [each["failed"] for each in cells if each["failed"] is not None]
    if failures:
        failure = f"{failures[0]} (on {len(failures)} of {len(seeds)} seeds)"
        judgement = {"verdict": "FAIL", "reason": f"FAIL: it did not finish: {failure}", "failed": failure}
        return {**row, "scores": {}, "gap": None, **judgement}
    measurements = [read_measurement(stage, seed, name) for seed in seeds]
    times = [each["seconds"] for each in cells]
    seed_figures = figures_per_seed(measurements, references, times, retraining, stage.exam().metrics)
    return {**row, **judge_method(stage, name, references, margins), "per_seed": seed_figures, "failed": None}


def devices_row(cells: Sequence[Content]) -> dict[str, list[str]]:
    """The kind of device that ran each cell; empty with cells of earlier versions, which did not keep it."""
    kinds = [each["ran_on"] for each in cells if "ran_on" in each]
    return {"ran_on": kinds} if len(kinds) == len(cells) else {}


def judge_method(
    stage: Stage, name: str, references: Sequence[Values], margins: Margins | None
) -> dict[str, Any]:
    """Judges a method; returns its figures and the verdict."""
    seeds = stage.recipe.seeds
    values = [read_values(stage, seed, name) for seed in seeds]
    original = [read_values(stage, seed, "original") for seed in seeds]
    exam, verdict_margins = stage.exam(), None if stage.recipe.partial else margins

    def answers() -> list[Any]:
        return [read_answers(exam, cell_path(stage, seed, "original")) for seed in seeds]

    judgement = exam.judge(values, references, verdict_margins, original, answers)
    return {
        "scores": {metric: asdict(each) for metric, each in judgement.scores.items()},
        "gap": gap(values, references, exam.metrics),
        "verdict": str(judgement.verdict),
        "reason": judgement.reason,
    }


def read_values(stage: Stage, seed: int, name: str) -> Values:
    """Reads the metrics of a cell."""
    return read_measurement(stage, seed, name)["values"]


def read_measurement(stage: Stage, seed: int, name: str) -> Content:
    """Reads the measurements of a cell."""
    return read_object(append_suffix(cell_path(stage, seed, name), "values.json"))


def read_cell(stage: Stage, seed: int, name: str) -> Content:
    """Reads a cell."""
    return read_object(append_suffix(cell_path(stage, seed, name), "json"))
