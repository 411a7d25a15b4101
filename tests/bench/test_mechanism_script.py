"""`benchmarks/mechanism_watch.py`: LUR runs on, watched over all data."""

from dataclasses import replace
from types import ModuleType

import pytest

from for_each import for_each
from smooth import problem
from unweave.descent.descend import Descent
from unweave.descent.units import Ratio
from unweave.methods.lur import LUR
from unweave.targets import Bounded

SCRIPT = "mechanism_watch"


@for_each("mode", ["joint", "lagged", "nested"])
def test_a_watched_descent_has_the_weight_of_the_method(script: ModuleType, mode: str) -> None:
    how = Descent(lr=0.01, steps=script.LOOKS, batch=8, forget_batch=8)
    lur = LUR(mode=mode, forget=Bounded(), weight=0.3, alpha=0.01, how=how)
    observation = script.forget(problem(), None, lur)
    assert observation.weight == 0.3 and len(observation.looks) == script.LOOKS + 1
    one, two = (script.forget(problem(), None, replace(lur, weight=Ratio(times))) for times in (0.2, 0.4))
    assert 2 * one.weight == pytest.approx(two.weight) and two.weight != 0.4
