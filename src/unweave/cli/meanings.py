"""What the settings of a method mean: the docstrings of its classes are the one place that says so."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from unweave.descend import Descent


def meanings(settings: object, before: str = "") -> dict[str, str]:
    """What each setting means, by the dotted path that `--set` names; empty where its class does not say."""
    told, made = arguments(type(settings)), {}
    for each in fields(cast(Any, settings)):
        value, path = getattr(settings, each.name), f"{before}{each.name}"
        made |= meanings(value, f"{path}.") if is_dataclass(value) else {path: told.get(each.name, "")}
    return made


def arguments(kind: type) -> Mapping[str, str]:
    """The section `Args:` of a class's docstring, by name, each text in one line."""
    section = re.search(r"^Args:\n((?: .*\n?|\n)*)", inspect.getdoc(kind) or "", re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def descents(settings: object, before: str = "") -> list[str]:
    """The dotted paths of the descents in a dataclass, or in what it holds."""
    if not is_dataclass(settings):
        return []
    inner = {f"{before}{each.name}": getattr(settings, each.name) for each in fields(settings)}
    return [
        place
        for path, value in inner.items()
        for place in ([path] if isinstance(value, Descent) else descents(value, f"{path}."))
    ]
