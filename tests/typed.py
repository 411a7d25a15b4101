"""Checks types at run time, and shapes too where a signature has any.

jaxtyping wraps every function twice and binds its arguments at each call, which took a quarter of the time of
some tests. Where no shape stands in a signature, the type checker alone finds the same; where one does, it
finds the same while jaxtyping remembers the axes of the call.

A function is checked in the first calls of each test, and runs unchecked in further ones: loops call the same
function thousands of times with the same types, and to check all of them took a tenth of the suite's time.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, get_args, get_origin

import jaxtyping
from jaxtyping import AbstractArray

CHECK_ALL = jaxtyping.jaxtyped
AXES = CHECK_ALL("context")
"""Within it an axis has one size."""
CHECKED_CALLS = 20
"""How many calls of a function are checked in each test, and in each case of a test."""


class Clock:
    """Counts the tests and their cases, so that each checks its own first calls."""

    now = 0


def check_again() -> None:
    """Checks the first calls of all functions again, as a test or a case begins."""
    Clock.now += 1


def stands_in(hint: object, accepts: Callable[[object], bool]) -> bool:
    """Whether something stands anywhere in a type."""
    if get_origin(hint) is Literal:  # its strings are values
        return False
    return accepts(hint) or any(
        stands_in(each, accepts) for each in (hint if isinstance(hint, list) else get_args(hint))
    )


def has_shapes(hint: object) -> bool:
    """Whether a shape stands anywhere in a type."""
    return stands_in(hint, lambda each: inspect.isclass(each) and issubclass(each, AbstractArray))


def has_quotes(hint: object) -> bool:
    """Whether a part of a type is in quotes: it is not known yet, and may have a shape."""
    return stands_in(hint, lambda each: isinstance(each, str))


def check_types(checked: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """In the place of `jaxtyping.jaxtyped`: checks a function, or how a dataclass is made."""
    if checked is None:
        return lambda each: check_types(each, typechecker=typechecker)
    if inspect.isfunction(checked):
        hints = inspect.get_annotations(checked).values()
        shapes, quotes = any(map(has_shapes, hints)), any(map(has_quotes, hints))
        if inspect.isgeneratorfunction(checked):
            return CHECK_ALL(checked, typechecker=typechecker) if shapes or quotes else typechecker(checked)
        if quotes:
            return check_first_calls(CHECK_ALL(checked, typechecker=typechecker), checked)
        typed_function = typechecker(checked)
        return check_first_calls(remember_axes(typed_function) if shapes else typed_function, checked)
    if dataclasses.is_dataclass(checked) and inspect.isfunction(vars(checked).get("__init__")):
        checked.__init__ = check_types(checked.__init__, typechecker=typechecker)
        return checked
    return CHECK_ALL(checked, typechecker=typechecker)


def remember_axes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A checked function in each of whose calls an axis has one size."""

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with AXES:
            return function(*arguments, **keywords)

    return call


def check_first_calls(checked_call: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is checked in the first calls of each test."""
    if checked_call is plain:
        return plain
    test_number = calls = 0

    @wraps(checked_call)
    def call(*arguments: Any, **keywords: Any) -> Any:
        nonlocal test_number, calls
        if test_number != Clock.now:
            test_number, calls = Clock.now, 0
        if calls == CHECKED_CALLS:
            return plain(*arguments, **keywords)
        calls += 1
        return checked_call(*arguments, **keywords)

    return call
