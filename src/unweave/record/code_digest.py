"""Digests of a user's code: its own file, and the modules it imports from its folder."""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

PROGRAM = ("unweave", "__main__")
INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


def code_digest(path: Path) -> str:
    """SHA-256 of a file of code and of the modules imported from its folder, in order of their paths.

    Imports inside functions that have not been called yet do not count.
    """
    digest = hashlib.sha256(path.read_bytes())
    for file in imported_files(path.parent):
        if file != path:
            name, code = file.relative_to(path.parent).as_posix(), hashlib.sha256(file.read_bytes())
            digest.update(f"\n{name} {code.hexdigest()}".encode())
    return digest.hexdigest()


def file_of(train: Callable[..., object]) -> Path:
    """The file that defines a function completely.

    Raises:
        ValueError: If it is an object, a function with values of its own, or in no file.
    """
    if not isinstance(train, FunctionType):
        actual = f"an object of {type(train).__name__}"
    elif values := own_values(train):
        actual = f"a function with values of its own: {', '.join(values)}"
    elif not Path(train.__code__.co_filename).is_file():
        actual = f"a function in {train.__code__.co_filename!r}, which is no file"
    else:
        return Path(train.__code__.co_filename).absolute()
    raise ValueError(
        f"train must be a function at the top of a file, so that its answers can be kept, found {actual}: or "
        "name its code and all that it depends on with code=, such as code='rate 0.1'"
    )


def own_values(function: FunctionType) -> tuple[str, ...]:
    """The names of the values that a function inside another one got from there."""
    code, default_count = function.__code__, len(function.__defaults__ or ())
    defaults = (
        *code.co_varnames[code.co_argcount - default_count : code.co_argcount],
        *(function.__kwdefaults__ or ()),
    )
    return (*code.co_freevars, *(defaults if "<locals>" in function.__qualname__ else ()))


def function_digest(train: Callable[..., object]) -> str:
    """`code_digest` of the file of a function, with the function's place there: a file can hold several."""
    path = file_of(train)
    assert isinstance(train, FunctionType)
    return f"{code_digest(path)} {train.__qualname__} {train.__code__.co_firstlineno}"


def imported_files(folder: Path) -> list[Path]:
    """The files of loaded modules in a folder, sorted, without packages installed there, as in .venv."""
    # no resolve(), because a module may be a link to a file elsewhere; thousands of installed files are left
    # out as strings, since paths take time to make
    files = {Path(name).absolute() for name in module_files() if not any(map(name.__contains__, INSTALLED))}
    return sorted(
        path for path in files if path.is_relative_to(folder) and path.is_file() and is_own_code(path)
    )


def module_files() -> list[str]:
    """The files of the loaded modules, without those of unweave, which differ from verb to verb."""
    modules = [module for name, module in list(sys.modules.items()) if name.split(".")[0] not in PROGRAM]
    # some entries are no modules, and some load more modules on access to an attribute
    paths = [vars(module).get("__file__") for module in modules if isinstance(module, ModuleType)]
    return [name for name in paths if isinstance(name, str)]


def is_own_code(path: Path) -> bool:
    """Whether a file is a user's own, not part of Python or an installed package."""
    is_installed = any(map(str(path).__contains__, INSTALLED))
    return not is_installed and not path.is_relative_to(sysconfig.get_path("stdlib"))
