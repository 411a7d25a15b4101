"""The record of the study of text-to-image models, which parts of the study make together."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rows import Row
from text_to_image_cases import FEW, MANY, REPORTING, SEARCHING, Study
from text_to_image_methods import BUDGET
from text_to_image_search import SEARCH_SEED

from unweave.bench.cell import MEASURING_FORMAT, METHODS_FORMAT
from unweave.record.compact import read_record
from unweave.record.record import environment
from unweave.tables import as_table


def shared_settings(study: Study) -> Row:
    """What all searches and runs of a record share."""
    recipe = study.models.recipe
    drawings = replace(recipe.drawings, folder=None)  # a place on this machine
    return {
        "recipe": as_table(replace(recipe, drawings=drawings)),
        "budget": BUDGET,
        "searching": {
            "family": as_table(SEARCHING),
            "prompts": as_table(FEW),
            "seed": SEARCH_SEED,
            "concepts": dict(study.searched),
            "sees relearning": True,
        },
        "reporting": {"family": as_table(REPORTING), "prompts": as_table(MANY), "attacked": study.attacked},
        "attack images": study.attacks,
        "formats": [METHODS_FORMAT, MEASURING_FORMAT],
    }


def load_record(place: Path | None, settings: Row) -> Row:
    """The record of an earlier part of the study, or an empty one.

    Raises:
        ValueError: If the earlier part had other settings.
    """
    current = environment()
    tables: Row = {"recognisers": {}, "searches": {}, "runs": {}}
    empty = {"environments": [current], **json.loads(json.dumps(settings)), **tables}
    if place is None or not place.exists():
        return empty
    content = read_record(place)
    other = [name for name in settings if content.get(name) != empty[name]]
    other += [name for name in tables if name not in content]
    if other:
        raise ValueError(f"{place} was made with other settings ({', '.join(other)}): give another --record")
    content["environments"] += [current] if current not in content["environments"] else []
    return {name: content[name] for name in empty}


def refuse_other_recogniser(known_recognisers: Mapping[str, str], recognisers: Mapping[str, str]) -> None:
    """Raises a ValueError if the runs of a seed are those of two recognisers, given by seed.

    One that was trained on another processor has other bits.
    """
    for seed in known_recognisers.keys() & recognisers.keys():
        if known_recognisers[seed] != recognisers[seed]:
            raise ValueError(
                f"another recogniser judged the record's runs of seed {seed}: give another --record, or run "
                "on such a processor"
            )


def join_tables(first: Any, second: Any) -> Any:  # noqa: ANN401  JSON
    """The tables of two parts of a record, one in the other; what both have is the second's."""
    if not isinstance(first, dict) or not isinstance(second, dict):
        return second
    common = {name: join_tables(first[name], second[name]) for name in first.keys() & second.keys()}
    return {**first, **second, **common}


SHARED = ("recipe", "budget", "reporting", "attack images", "formats")
"""The settings that records must share to be in one table."""


def join_runs(records: Sequence[Row], seeds: Collection[int]) -> Row:
    """The runs of several records, of these training seeds or, if none are given, of all.

    Returns:
        The runs by factor, value, seed and method.

    Raises:
        ValueError: If records differ in what they share, in the recogniser of a seed or in a run, or there is
            no run.
    """
    for name in SHARED:
        if any(record[name] != records[0][name] for record in records):
            raise ValueError(f"the records differ in {name!r}")
    all_runs: dict[tuple[str, ...], Row] = {}
    judges: dict[str, str] = {}
    for record in records:
        part = {key: run for key, run in list_runs(record["runs"]) if not seeds or int(key[2]) in seeds}
        digests = {seed: record["recognisers"][seed] for _, _, seed, _ in part}
        refuse_other_recogniser(judges, digests)
        for key in part.keys() & all_runs.keys():
            if part[key] != all_runs[key]:
                raise ValueError(f"the records have different runs of {key[-1]}")
        judges, all_runs = judges | digests, all_runs | part
    if not all_runs:
        raise ValueError(f"the records have no runs{f' of the seeds {sorted(seeds)}' if seeds else ''}")
    runs: Row = {}
    for (factor, value, seed, name), run in all_runs.items():
        runs.setdefault(factor, {}).setdefault(value, {}).setdefault(seed, {})[name] = run
    return runs


def list_runs(runs: Row) -> Iterator[tuple[tuple[str, str, str, str], Row]]:
    """Each run with its factor, value, seed and method."""
    for factor, values in runs.items():
        for value, by_seed in values.items():
            for seed, methods in by_seed.items():
                for name, run in methods.items():
                    yield (factor, value, seed, name), run
