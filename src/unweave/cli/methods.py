"""`unweave methods`: what there is, what it needs and costs, where it deviates from its paper."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from unweave.cli import out, show
from unweave.cli.meanings import descents, meanings
from unweave.cli.options import DEFAULTS, Shared, flat
from unweave.files import write_atomically
from unweave.methods import METHODS, Method, method_named

FILE = "methods.json"


def methods(name: str | None = None, /, *, shared: Shared = DEFAULTS) -> int:
    """List the methods: paper, data needed, cost of a step, deviations.

    Args:
        name: A method to show with all its settings, which --set of forget changes.
        shared: Of every verb.
    """
    chosen = METHODS if name is None else {name: method_named(name)}
    described = {each: described_as(method) for each, method in chosen.items()}
    if shared.out is not None:
        asked = {"verb": "methods", "methods": described}
        with out.writing(out.place(shared.out, asked), asked) as folder:
            write_atomically(folder / FILE, json.dumps(described, indent=1))
    if shared.json:
        show.as_json(described)
    elif name is None:
        listed(described)
    else:
        detailed(name, described[name])
        settled(described[name], sorted(descents(chosen[name]), key=len))
    return 0


def described_as(method: Method) -> dict[str, Any]:
    """What a method says of itself, and its settings with their meanings by the paths that `--set` names."""
    settings = flat(dataclasses.asdict(cast(Any, method)))
    return {**dataclasses.asdict(method.about), "settings": settings, "meanings": meanings(method)}


def listed(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for the methods of each paper, and below where they deviate from it."""
    rows = grouped(described, ("data", "step", "paper"))
    show.table(
        ("Method", "Data", "Cost of a step", "Paper"),
        [(names, *facts) for facts, names in rows.items()],
        words=range(4),
    )
    show.say("", "For models of one family alone:")
    alone = grouped(described, ("families",))
    show.table(
        ("Family", "Method"),
        [(", ".join(families), names) for (families,), names in alone.items() if families],
        words=range(2),
    )
    show.say("", "Where they deviate from the paper or its released code:")
    deviating = grouped(described, ("deviations",))
    show.table(
        ("Method", ""), [(names, text) for (text,), names in deviating.items() if text], words=range(2)
    )


def grouped(described: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> dict[tuple[Any, ...], str]:
    """The names of the methods that share some facts, by these."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, each in described.items():
        found.setdefault(tuple(each[key] for key in keys), []).append(name)
    return {facts: ", ".join(names) for facts, names in found.items()}


def detailed(name: str, each: Mapping[str, Any]) -> None:
    """Prints what one method says of itself."""
    show.tell(f"{name}: {each['paper']}", f"Data: {each['data']}. Cost of a step: {each['step']}.")
    show.tell(*([f"For {' or '.join(each['families'])} models alone."] if each["families"] else []))
    show.tell(*([f"Deviations: {each['deviations']}."] if each["deviations"] else []))


def settled(each: Mapping[str, Any], descents: Sequence[str]) -> None:
    """Prints the settings of one method, and below those of its descents, in one table for all of them."""
    settings, meaning = each["settings"], each["meanings"]
    own = [path for path in settings if path.rpartition(".")[0] not in descents]
    if own:
        rows = [(path, json.dumps(settings[path]), meaning[path]) for path in own]
        show.say("")
        show.table(("Setting", "Default", "Meaning"), rows, words=range(3))
    if descents:
        first, *others = descents
        rows = [
            (path, *(json.dumps(settings[path.replace(first, place, 1)]) for place in descents), text)
            for path, text in meaning.items()
            if path.rpartition(".")[0] == first
        ]
        header = ("Setting", "Default", *(f"In {place}" for place in others), "Meaning")
        show.say("")
        show.table(header, rows, words=range(len(header)))
