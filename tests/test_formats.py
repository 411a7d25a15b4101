"""What the numbers in the keys of caches stand for, pinned: who changes a result must raise its number.

`python tests/test_formats.py` pins again, and refuses a result that changed while its numbers stayed. Where
the problems of these tests themselves change, delete `tests/formats.json` first.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from audits.answers import draw_evidence
from audits.diffusion.toys import samples
from for_each import for_each
from portable import TRAINING, double, fingerprint, original, problem, shortened, split, trained
from unweave.audits.classifier.exam import ANSWERED, ClassifierExam
from unweave.audits.diffusion.metrics import measure_generation
from unweave.bench import cell, stage, tune
from unweave.bench.setup import Data
from unweave.bench.strata import TRAINED, choose
from unweave.descent import train
from unweave.families.diffusion_settings import PRESETS
from unweave.methods import Method, methods_for
from unweave.methods.unsir import UNSIR

FORMATS = {
    "TRAINING_FORMAT": (train.TRAINING_FORMAT, "descent/train.py"),
    "METHODS_FORMAT": (cell.METHODS_FORMAT, "bench/cell.py"),
    "MEASURING_FORMAT": (cell.MEASURING_FORMAT, "bench/cell.py"),
    "CHOOSING_FORMAT": (stage.CHOOSING_FORMAT, "bench/stage.py"),
    "SEARCHING_FORMAT": (tune.SEARCHING_FORMAT, "bench/tune.py"),
}
"""Each number, and the file of the package that it is in."""

OF_CELLS = ("TRAINING_FORMAT", "METHODS_FORMAT")
"""Both are in the key of a cell."""

FILE = Path(__file__).with_name("formats.json")
AGAIN = "run `python tests/test_formats.py` to pin it again"
CLOSE = 1e-9
"""Processors differ by 1e-13 here."""

ROUGH = {"sa, denoiser": 1e-7}
"""After these steps of Adam they differ by 6e-9."""

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A result that is pinned.

    Args:
        formats: The names of the numbers in the key of its cache; the last is to be raised if it changes.
        settings: What that key holds beside them.
        make: Computes it.
    """

    formats: tuple[str, ...]
    settings: object
    make: Callable[[], Mapping[str, float]]

    @property
    def known(self) -> Entry:
        """An entry without the result."""
        numbers = {name: FORMATS[name][0] for name in self.formats}
        return {"formats": numbers, "settings": hashlib.sha256(repr(self.settings).encode()).hexdigest()[:12]}


def training() -> Mapping[str, float]:
    """The weights after a training."""
    return fingerprint(*original("classifier").state_dict().values())


def unlearn_weights(method: Method, family: str) -> Mapping[str, float]:
    """The weights after a method."""
    of = problem(family, whole_class=family == "denoiser" or isinstance(method, UNSIR))
    method(of)
    return fingerprint(*of.model.state_dict().values())


def answer_questions() -> Mapping[str, float]:
    """The logits of a classifier, and attacks on its features."""
    exam, model = ClassifierExam(split("classifier", whole_class=True)), original("classifier")
    logits = exam.answers(model).logits
    return fingerprint(*(torch.tensor(logits[part]).double() for part in sorted(logits))) | exam.probes(model)


def choose_positions(forget: str) -> Mapping[str, float]:
    """The positions that trained models choose."""
    data, on = Data("digits", forget=forget, fraction=0.2, folds=3), split("classifier")
    ids = choose(data, on.train, on.held_out, seed=0, learn=partial(trained, "classifier"))
    return {str(number): float(id_) for number, id_ in enumerate(ids)}


def measure_logits() -> Mapping[str, float]:
    """The metrics of two models that are known by their logits."""
    evidence, reference = draw_evidence(1), draw_evidence(2)
    return {**ANSWERED.measure(evidence, reference), **ANSWERED.benchmark_metrics(evidence, reference)}


def measure_generators() -> Mapping[str, float]:
    """The metrics of two generators that are known by what a recogniser sees."""
    return measure_generation(samples(1), samples(2))


def worth() -> Mapping[str, float]:
    """What a trial is worth."""
    values, expected = (ANSWERED.measure(draw_evidence(seed), draw_evidence(2)) for seed in (1, 3))
    return {
        **ANSWERED.score_trial(values, expected, 0.1),
        **ANSWERED.objectives(draw_evidence(1), values, expected),
    }


CASES = {
    "training": Case(("TRAINING_FORMAT",), TRAINING["classifier"], training),
    "answers and probes": Case(OF_CELLS, None, answer_questions),
    "metrics of classifiers": Case(("MEASURING_FORMAT",), None, measure_logits),
    "metrics of generators": Case(("MEASURING_FORMAT",), None, measure_generators),
    "worth of a trial": Case(("MEASURING_FORMAT", "SEARCHING_FORMAT"), None, worth),
}
for stratum in TRAINED:
    formats = ("TRAINING_FORMAT", "CHOOSING_FORMAT")
    CASES[f"stratum {stratum}"] = Case(formats, None, partial(choose_positions, stratum))
for family, methods in {"classifier": methods_for("classifier"), "denoiser": PRESETS}.items():
    for name, method in methods.items():
        short = shortened(method)
        CASES[f"{name}, {family}"] = Case(OF_CELLS, short, partial(unlearn_weights, short, family))


def complaint(name: str, case: Case, entry: Entry | None) -> str | None:
    """What is wrong with a pinned result, and what to do; None if nothing."""
    if entry is None:
        return f"{name!r} is not pinned: {AGAIN}"
    for each, number in case.known["formats"].items():
        if number != (pinned_value := entry["formats"].get(each)):
            return f"{each} is {number}, {FILE.name} holds {pinned_value} for {name!r}: {AGAIN}"
    if entry["settings"] != case.known["settings"]:
        return f"the settings of {name!r} changed, and so did its key: {AGAIN}"
    result, pinned_value = case.make(), entry["result"]
    names = [
        each
        for each in {**pinned_value, **result}
        if not close(result.get(each), pinned_value.get(each), ROUGH.get(name, CLOSE))
    ]
    if not names:
        return None
    number, where = case.formats[-1], FORMATS[case.formats[-1]][1]
    return f"the result of {name!r} changed ({', '.join(names)}): raise {number} in {where}, then {AGAIN}"


def close(left: float | None, right: float | None, tolerance: float) -> bool:
    """Whether two numbers differ by rounding at most; a number that is missing is close to none."""
    return None not in (left, right) and math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)


def load() -> dict[str, Entry]:
    """The pinned results by name."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def pin() -> None:
    """Writes what is missing or was raised; exits where a result changed under the same numbers."""
    pins, entries = load(), {}
    problems = {name: complaint(name, case, pins.get(name)) for name, case in CASES.items()}
    if changes := [each for each in problems.values() if each and each.startswith("the result")]:
        sys.exit("\n".join(changes))
    for name, case in CASES.items():
        entries[name] = pins[name] if problems[name] is None else {**case.known, "result": case.make()}
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    with double():
        yield


@for_each("name", CASES)
def test_a_result_is_what_was_pinned_under_its_numbers(name: str):
    if "Sampler" in repr(CASES[name].settings):
        pytest.importorskip("diffusers")
    if message := complaint(name, CASES[name], load().get(name)):
        pytest.fail(message)


def test_every_pinned_result_is_of_a_case():
    assert load().keys() == CASES.keys(), AGAIN


def test_every_number_is_pinned_by_a_result():
    assert {case.formats[-1] for case in CASES.values()} == FORMATS.keys()


CASE = Case(("MEASURING_FORMAT",), 1, lambda: {"auc": 0.5})
ENTRY = {**CASE.known, "result": {"auc": 0.5 + 1e-12}}


@for_each(
    ("case", "entry", "expected"),
    [
        (CASE, ENTRY, None),
        (CASE, None, "'it' is not pinned"),
        (CASE, {**ENTRY, "formats": {"MEASURING_FORMAT": 0}}, "MEASURING_FORMAT is .*holds 0 for 'it'"),
        (replace(CASE, settings=2), ENTRY, "the settings of 'it' changed"),
        (
            CASE,
            {**ENTRY, "result": {"auc": 0.5 + 1e-7}},
            r"of 'it' changed \(auc\): raise MEASURING_FORMAT in",
        ),
        (CASE, {**ENTRY, "result": {"auc": 0.5, "ua": 1.0}}, r"changed \(ua\)"),
        (replace(CASE, make=dict), ENTRY, r"changed \(auc\)"),
        (replace(CASE, make=lambda: {"auc": math.nan}), ENTRY, r"changed \(auc\)"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(case: Case, entry: Entry | None, expected: str | None):
    message = complaint("it", case, entry)
    assert message is None if expected is None else re.search(expected, message or "")


def test_a_result_that_changed_is_pinned_under_a_raised_number_only(monkeypatch, tmp_path):
    changed_case, before = replace(CASE, make=lambda: {"auc": 0.7}), '{"it": ' + json.dumps(ENTRY) + "}"
    monkeypatch.setattr(sys.modules[__name__], "FILE", tmp_path / "formats.json")
    monkeypatch.setattr(sys.modules[__name__], "CASES", {"it": changed_case, "other": CASE})
    (tmp_path / "formats.json").write_text(before)
    with pytest.raises(SystemExit, match="raise MEASURING_FORMAT"):
        pin()
    assert (tmp_path / "formats.json").read_text() == before
    monkeypatch.setitem(FORMATS, "MEASURING_FORMAT", (cell.MEASURING_FORMAT + 1, "bench/cell.py"))
    pin()
    assert [entry["result"]["auc"] for entry in load().values()] == [0.7, 0.5]
    assert not any(complaint(name, each, load()[name]) for name, each in CASES.items())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with double():
        pin()
