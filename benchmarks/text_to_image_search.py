"""The searches of the study of text-to-image models, and the settings that they found."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rows import round_numbers
from text_to_image_cases import REPORTING, SEARCHING, Study
from text_to_image_methods import BUDGET, ROWS, method_of, space_of

from unweave.bench.cache import file_name
from unweave.bench.ranges import nest_paths
from unweave.bench.search import Case, Trial, search
from unweave.bench.text_to_image_concept import ConceptCase
from unweave.descent.train import digest
from unweave.methods import Method
from unweave.methods.configure import configure

Row = dict[str, Any]
SEARCH_SEED = 3


def search_rows(
    study: Study, factor: str, names: Sequence[str], trials: int, searches: Mapping[str, Row]
) -> dict[str, Row]:
    """Searches the settings of every method on one concept; keeps the searches that are done.

    Raises:
        ValueError: If one of them is another search, or there are no models to search on.
    """
    for name in (each for each in names if each in searches):
        if searches[name]["key"] != search_key(name) or trials not in (0, searches[name]["asked"]):
            raise ValueError(f"the record has another search of {name}: give another --record")
    new_names = [name for name in names if name not in searches and "@" not in name] if trials else []
    value, rows = study.searched[factor], dict(searches)
    if not new_names:
        return rows
    case = study.case(SEARCH_SEED, factor, value, searching=True)
    base = search_case(study, value, case)
    for name in new_names:
        cases = [replace(base, original=case.original(text_encoder=ROWS[name].edits_words))]
        method, space = method_of(ROWS[name], SEARCHING), space_of(ROWS[name], SEARCHING)
        # without a setting to search, one trial says what the method is worth
        trial_count, start = trials if space else 1, time.process_time()
        facts = {**case.facts(), "method": repr(method), "space": repr(space), "floor": base.floor}
        journal = study.out / "search" / factor / f"{file_name(name)}.journal"
        log = search(method, space, trial_count, cases, place=journal, name=digest(facts))
        seconds = (time.process_time() - start) / trial_count
        each = {"trials": [dict(trial) for trial in log], "best": best(log)}
        rows[name] = {"key": search_key(name), "asked": trials, "floor": base.floor, **round_numbers(each)}
        print(f"{factor}  {name}  {trial_count} trials of {seconds:.0f} CPU-seconds, {best(log)}", flush=True)
    return rows


def search_case(study: Study, value: str, case: ConceptCase) -> Case:
    """The original of a search, and the retrained model, whose distance to a second one is free.

    Raises:
        ValueError: If there are no models to search on.
    """
    other = study.other_seed(SEARCH_SEED, value)
    if other is None or not study.has(SEARCH_SEED, value):
        raise ValueError(
            f"a search needs the models original and without-{value} of seed {SEARCH_SEED}, and "
            f"without-{value} of another seed"
        )
    exam, model = case.questions, study.retrained(SEARCH_SEED, value, case)
    retrained, second = exam.answers(model), exam.answers(study.retrained(other, value, case))
    floor = exam.measure_pair(second, retrained)[exam.distance]
    values = {**exam.measure(retrained), **exam.probes(model)}
    return Case(case, SEARCH_SEED, case.original(), retrained, values, floor)


def search_key(name: str) -> str:
    """What a search depends on, beside the settings of the study."""
    method, space = method_of(ROWS[name], SEARCHING), space_of(ROWS[name], SEARCHING)
    return digest({"method": repr(method), "space": repr(space)})


def best(trials: Sequence[Trial]) -> Trial | None:
    """The best trial within the budget; of all if none was within; None if all failed."""
    valid_trials = [each for each in trials if each["value"] is not None]
    affordable_trials = [each for each in valid_trials if each["gradient_evaluations"] <= BUDGET]
    return min(affordable_trials or valid_trials, key=lambda each: each["value"], default=None)


def found_methods(names: Sequence[str], searches: Mapping[str, Row]) -> dict[str, Method]:
    """The methods with the best settings that a search found; those of the start where there was none.

    Args:
        names: Rows; "joint@lur" is the row "joint" with the settings of "lur", as far as it searches them.
        searches: The searches of a factor, by row.

    Raises:
        ValueError: If a row should have the settings of another one that was not searched.
    """
    methods: dict[str, Method] = {}
    for name in names:
        row_name, _, other = name.partition("@")
        method, trial = method_of(ROWS[row_name], REPORTING), searches.get(other or row_name, {}).get("best")
        settings = {} if trial is None else trial["settings"]
        if other:
            if not settings:
                raise ValueError(
                    f"{name} needs the settings of a search of {other}, found none: give --search"
                )
            settings = rename_stages(settings, other, row_name)
        methods[name] = configure(method, nest_paths(settings))
    return methods


def rename_stages(settings: Mapping[str, Any], source_name: str, row_name: str) -> dict[str, Any]:
    """The settings of a row for the stages of another one, as far as it searches them."""
    stages = dict(zip(source_name.split(":"), row_name.split(":"), strict=False))
    paths = [path.partition(".") for path in settings]
    new_paths = [f"{stages.get(stage, stage)}.{path}" for stage, _, path in paths]
    space = space_of(ROWS[row_name], REPORTING)
    return {path: each for path, each in zip(new_paths, settings.values(), strict=True) if path in space}
