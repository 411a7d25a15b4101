"""Checks types at run time, and shapes too where a signature has any.

jaxtyping wraps every function twice and binds its arguments at each call, which took a quarter of the time of
some tests. Where no shape stands in a signature, the type checker alone finds the same.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import jaxtyping
from jaxtyping import AbstractArray

CHECK_SHAPES = jaxtyping.jaxtyped


def has_shapes(hint: object) -> bool:
    """Whether a shape stands anywhere in a type; a type in quotes is not known yet, and may have one."""
    if get_origin(hint) is Literal:  # its strings are values
        return False
    if isinstance(hint, str) or (inspect.isclass(hint) and issubclass(hint, AbstractArray)):
        return True
    return any(map(has_shapes, hint if isinstance(hint, list) else get_args(hint)))


def check_types(checked: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """In the place of `jaxtyping.jaxtyped`: checks a function, or how a dataclass is made."""
    if checked is None:
        return lambda each: check_types(each, typechecker=typechecker)
    if inspect.isfunction(checked) and not any(map(has_shapes, inspect.get_annotations(checked).values())):
        return typechecker(checked)
    if dataclasses.is_dataclass(checked) and inspect.isfunction(vars(checked).get("__init__")):
        checked.__init__ = check_types(checked.__init__, typechecker=typechecker)
        return checked
    return CHECK_SHAPES(checked, typechecker=typechecker)
