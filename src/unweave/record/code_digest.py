"""What code of a user runs: its own file, and what that imports from its folder."""

import hashlib
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

PROGRAM = ("unweave", "__main__")


def code_digest(path: Path) -> str:
    """SHA-256 of a file of code and of what was imported from its folder, in order of the paths there.

    What its functions only import when they are called is not known yet and does not count.
    """
    digest = hashlib.sha256(path.read_bytes())
    for other in imported_files(path.parent):
        if other != path:
            name, code = other.relative_to(path.parent).as_posix(), hashlib.sha256(other.read_bytes())
            digest.update(f"\n{name} {code.hexdigest()}".encode())
    return digest.hexdigest()


def file_of(train: Callable[..., object]) -> Path:
    """The file of a function that tells all it does.

    Raises:
        ValueError: If it is an object, has values from the function around it, or lies in no file.
    """
    if not isinstance(train, FunctionType):
        found = f"an object of {type(train).__name__}"
    elif train.__code__.co_freevars:
        found = f"a function with values of its own: {', '.join(train.__code__.co_freevars)}"
    elif not Path(train.__code__.co_filename).is_file():
        found = f"a function in {train.__code__.co_filename!r}, which is no file"
    else:
        return Path(train.__code__.co_filename).absolute()
    raise ValueError(
        f"train must be a function at the top of a file, so that its answers can be kept, found {found}: or "
        "name its code and all that it depends on with code=, such as code='rate 0.1'"
    )


def imported_files(folder: Path) -> list[Path]:
    """Files of the loaded modules in a folder, sorted; not what is installed there, such as in .venv."""
    # no resolve(): a module may be a link to a file elsewhere
    files = {Path(name).absolute() for name in module_files()}
    return sorted(
        path for path in files if path.is_relative_to(folder) and path.is_file() and is_own_code(path)
    )


def module_files() -> list[str]:
    """Where the loaded modules come from, but the program itself, whose parts differ from verb to verb."""
    loaded = [module for name, module in list(sys.modules.items()) if name.split(".")[0] not in PROGRAM]
    # not every thing in there is a module, and some load more when they are asked for an attribute
    found = [vars(module).get("__file__") for module in loaded if isinstance(module, ModuleType)]
    return [name for name in found if isinstance(name, str)]


def is_own_code(path: Path) -> bool:
    """Whether a file is a user's own, and neither Python's nor installed."""
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return not installed and not path.is_relative_to(sysconfig.get_path("stdlib"))
