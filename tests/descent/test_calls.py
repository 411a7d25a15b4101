"""A step calls few Python functions of the library: on a small net they are a third of its time."""

import sys
from pathlib import Path
from types import FrameType

import unweave
from for_each import for_each
from smooth import MODES, problem
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import bounded, nll
from unweave.problem import Problem

PACKAGE = str(Path(unweave.__file__).parent)
FIRST, LAST = 5, 15


class Calls:
    """Counts the calls of the library's functions between two steps, list comprehensions among them."""

    def __init__(self) -> None:
        self.number = 0

    def watch(self, problem: Problem, index: int) -> None:
        if index == FIRST:
            sys.setprofile(self.count)
        if index == LAST:
            sys.setprofile(None)

    def count(self, frame: FrameType, event: str, argument: object) -> None:
        is_own = event == "call" and frame.f_code.co_filename.startswith(PACKAGE)
        # the checks of types, which only tests make, read this property
        self.number += is_own and frame.f_code.co_name != "parts"


@for_each(("mode", "limit"), [("joint", 90), ("lagged", 126), ("nested", 145)])
def test_a_step_calls_few_functions(mode: str, limit: int):
    calls, before = Calls(), sys.getprofile()
    terms = MODES[mode](nll("retain"), bounded(), 0.01)
    try:
        descend(problem(), Descent(lr=0.01, steps=LAST + 1), Phase(terms, watch=calls.watch))
    finally:
        sys.setprofile(before)
    assert 0 < calls.number / (LAST - FIRST) <= limit
