"""Cases of one test that take milliseconds, or share what they compute: subtests, and not an item each."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch

from typed import check_again


def for_each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable], Callable]:
    """As `pytest.mark.parametrize`; fixtures are made once for all cases, and each that fails is reported."""
    case_list, single = list(cases), isinstance(names, str)
    keys = (names,) if isinstance(names, str) else names

    def wrap(test: Callable) -> Callable:
        parameters = inspect.signature(test).parameters
        outer_parameters = [each for name, each in parameters.items() if name not in keys]
        inner = "subtests" in parameters

        def run(*self: object, subtests: pytest.Subtests, **fixtures: Any) -> None:
            arguments = {**fixtures, "subtests": subtests} if inner else fixtures
            assert case_list, "a test of no case"
            for case in case_list:
                values: Mapping[str, Any] = {names: case} if single else dict(zip(keys, case, strict=True))
                if inner:
                    test(*self, **arguments, **values)
                    continue
                torch.manual_seed(0)  # as before every test, so that no case depends on those before it
                check_again()
                with subtests.test(**{key: repr(value)[:80] for key, value in values.items()}):
                    test(*self, **arguments, **values)

        extra = [] if inner else [inspect.Parameter("subtests", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
        run.__signature__ = inspect.Signature([*outer_parameters, *extra])  # type: ignore[attr-defined]
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        run.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
        return run

    return wrap
