"""What tells a model or a function from another of the same name: its parts, and its code."""

import hashlib
import re
from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn

from unweave.weights.sharded_model import plain_class


def plain_repr(value: object) -> str:
    """The `repr` of a value without addresses, which change from run to run.

    An object whose class has none is described by its attributes too.
    """
    has_repr = type(value).__repr__ is not object.__repr__ or not hasattr(value, "__dict__")
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value) if has_repr else repr((value, vars(value))))


def digest_model(model: nn.Module) -> str:
    """A digest of the kind and settings of each module, and of which weights are trainable.

    It is the same for a whole and a sharded model.
    """
    modules = [(name, plain_class(m).__qualname__, m.extra_repr()) for name, m in model.named_modules()]
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    return hashlib.sha256(plain_repr((modules, trainable)).encode()).hexdigest()


def digest_function(function: FunctionType) -> str:
    """A digest of the code of a function, its defaults and the values that it closes over."""
    return hashlib.sha256("\n".join(function_parts(function, set())).encode()).hexdigest()


def function_parts(function: FunctionType, visited_ids: set[int]) -> Iterator[str]:
    """Yields the parts of a function, and those of functions that it closes over."""
    if id(function) in visited_ids:
        return
    visited_ids.add(id(function))
    yield from code_parts(function.__code__)
    yield plain_repr((function.__defaults__, function.__kwdefaults__))
    for cell in function.__closure__ or ():
        if isinstance(cell.cell_contents, FunctionType):
            yield from function_parts(cell.cell_contents, visited_ids)
        else:
            yield plain_repr(cell.cell_contents)


def code_parts(code: CodeType) -> Iterator[str]:
    """Yields the instructions, names and constants of a code, and of those within it."""
    yield repr((code.co_code, code.co_names, code.co_varnames))
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from code_parts(each)
        else:
            yield repr(sorted(map(repr, each)) if isinstance(each, frozenset) else each)
