"""The searches of the study of text-to-image models, and the settings that they found."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from text_to_image_cases import REPORTING, SEARCHING, Study
from text_to_image_methods import BUDGET, ROWS, method_of, space_of

from unweave.bench.cache import file_name
from unweave.bench.ranges import nest_paths
from unweave.bench.search import Case, Trial, search
from unweave.descent.train import digest
from unweave.methods import Method
from unweave.methods.configure import configure

Row = dict[str, Any]
SEARCH_SEED = 3


def search_rows(
    study: Study, factor: str, names: Sequence[str], trials: int, done: Mapping[str, Row]
) -> dict[str, Row]:
    """Searches the settings of every method on one concept; keeps the searches that are done.

    Raises:
        ValueError: If one of them is another search, or there are no models to search on.
    """
    for name in (each for each in names if each in done):
        if done[name]["key"] != search_key(name) or trials not in (0, done[name]["trials"]):
            raise ValueError(f"the record has another search of {name}: give another --record")
    missing = [name for name in names if name not in done] if trials else []
    value, found = study.searched[factor], dict(done)
    if not missing:
        return found
    if not study.has(SEARCH_SEED, value):
        raise ValueError(f"a search needs the models original and without-{value} of seed {SEARCH_SEED}")
    case = study.case(SEARCH_SEED, factor, value, searching=True)
    exam, model = case.questions, study.retrained(SEARCH_SEED, value, case)
    retrained = exam.answers(model)
    values = {**exam.measure(retrained), **exam.probes(model)}
    for name in missing:
        original = case.original(text_encoder=ROWS[name].edits_words)
        # there is one retrained model, so the spread of two is not known
        cases = [Case(case, SEARCH_SEED, original, retrained, values, floor=0.0)]
        method, space = method_of(ROWS[name], SEARCHING), space_of(ROWS[name], SEARCHING)
        # without a setting to search, one trial says what the method is worth
        own, start = trials if space else 1, time.process_time()
        facts = {**case.facts(), "method": repr(method), "space": repr(space)}
        journal = study.out / "search" / factor / f"{file_name(name)}.journal"
        log = search(method, space, own, cases, place=journal, name=digest(facts))
        spent = (time.process_time() - start) / own
        each = {"values": [trial["value"] for trial in log], "best": best(log)}
        found[name] = {"key": search_key(name), "trials": trials, **each}
        print(f"{factor}  {name}  {own} trials of {spent:.0f} CPU-seconds, {best(log)}", flush=True)
    return found


def search_key(name: str) -> str:
    """What a search depends on, beside the settings of the study."""
    method, space = method_of(ROWS[name], SEARCHING), space_of(ROWS[name], SEARCHING)
    return digest({"method": repr(method), "space": repr(space)})


def best(trials: Sequence[Trial]) -> Trial | None:
    """The best trial within the budget; of all if none was within; None if all failed."""
    finished = [each for each in trials if each["value"] is not None]
    within = [each for each in finished if each["gradient_evaluations"] <= BUDGET]
    return min(within or finished, key=lambda each: each["value"], default=None)


def found_methods(names: Sequence[str], searches: Mapping[str, Row]) -> dict[str, Method]:
    """The methods with the best settings that a search found; those of the start where there was none."""
    methods: dict[str, Method] = {}
    for name in names:
        method, trial = method_of(ROWS[name], REPORTING), searches.get(name, {}).get("best")
        methods[name] = method if trial is None else configure(method, nest_paths(trial["settings"]))
    return methods
