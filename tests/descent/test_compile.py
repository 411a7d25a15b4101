"""Compiled passes: the same descent as by eager ones, or an error where they can't do what is asked."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch

import every_family
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.lookahead import exact, nested
from unweave.descent.objective import nll
from unweave.problem import Problem
from unweave.weights.step import Term

HOW = Descent(lr=0.05, steps=5, batch=12, ema=0.5)
NESTED = nested(nll("retain"), 0.3 * nll("forget"), 0.01)


def descend_few(how: Descent, terms: list[Term]) -> Problem:
    """A denoiser after a few steps."""
    torch.manual_seed(1)
    model, generator = every_family.Denoiser(), torch.Generator().manual_seed(0)
    problem = Problem(every_family.task("denoiser"), model, every_family.split("denoiser"), generator)
    descend(problem, how, Phase(terms))
    return problem


def apart(one: Problem, other: Problem) -> float:
    """The largest difference between two weights."""
    return max(float((p - other.params[name]).detach().abs().max()) for name, p in one.params.items())


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Models that were traced by the compiler, but are run without it: code for a processor takes minutes."""
    models: list[object] = []
    compile = partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda model: models.append(model) or compile(model))
    return models


@pytest.mark.parametrize("terms", [[nll("mixed")], NESTED])
def test_a_traced_descent_is_the_eager_one(terms: list[Term], traced: list[object]) -> None:
    eager_run = descend_few(HOW, terms)
    assert not traced, "off by default"
    compiled_run = descend_few(replace(HOW, compile=True), terms)
    assert traced == [compiled_run.model]
    assert apart(compiled_run, eager_run) < 1e-6 < apart(descend_few(replace(HOW, steps=4), terms), eager_run)


def test_a_second_derivative_is_refused(traced: list[object]) -> None:
    with pytest.raises(ValueError, match="not compiled: set compile = false, or use mode 'nested'"):
        descend_few(replace(HOW, compile=True), exact(nll("retain"), nll("forget"), 0.01))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of its own imports
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_descent_is_the_eager_one(precision: str) -> None:
    how = replace(HOW, precision=precision)
    eager_run, compiled_run = (descend_few(replace(how, compile=each), NESTED) for each in (False, True))
    assert apart(compiled_run, eager_run) < (1e-5 if precision == "fp32" else 0.01)
