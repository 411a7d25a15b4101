"""`unweave methods`: what there is, what it needs and costs, where it deviates from its paper."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.cli import out, show
from unweave.cli.describe_settings import choices, descents, first_line, meanings
from unweave.cli.options import DEFAULTS, Shared, flat
from unweave.methods import DEFAULT, METHODS, STAGES, Method, method_named
from unweave.record.files import write_atomically
from unweave.tables import as_table

FILE = "methods.json"
PIPELINES = (
    "A pipeline is methods one after the other, its name theirs joined by ':', such as "
    f"{DEFAULT}. The path of a setting begins with the name of its stage: --set lur.alpha=0.1."
)
"""How a pipeline is spelled."""


def methods(name: str | None = None, /, *, shared: Shared = DEFAULTS) -> int:
    """List the methods: paper, data needed, cost of a step, deviations; and what pipelines are made of.

    Args:
        name: A method, stage or pipeline to show with all its settings, which --set of forget changes.
        shared: Of every verb.
    """
    chosen = {**METHODS, **STAGES} if name is None else {name: method_named(name)}
    described = {each: described_as(method) for each, method in chosen.items()}
    if shared.out is not None:
        asked = {"verb": "methods", "methods": described}
        with out.writing(out.place(shared.out, asked), asked) as folder:
            write_atomically(folder / FILE, json.dumps(described, indent=1))
    if shared.json:
        show.as_json(described)
    elif name is None:
        listed({each: described[each] for each in METHODS})
        staged({each: described[each] for each in STAGES})
    else:
        detailed(name, described[name])
        settled(described[name], sorted(descents(chosen[name]), key=len))
        chosen_from(described[name]["choices"])
    return 0


def described_as(method: Method) -> dict[str, Any]:
    """What a method says of itself, and its settings with their meanings by the paths that `--set` names."""
    told = {"settings": flat(as_table(method)), "meanings": meanings(method), "choices": choices(method)}
    return {**dataclasses.asdict(method.about), "does": first_line(type(method)), **told}


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


def staged(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for each start and recovery, and how a pipeline is spelled."""
    show.say("", "Stages of pipelines, before or after a method:")
    rows = [(name, each["does"], each["paper"]) for name, each in described.items()]
    show.table(("Stage", "", "Paper"), rows, words=range(3))
    show.say("", PIPELINES)


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


def chosen_from(choices: Mapping[str, Mapping[str, str]]) -> None:
    """Prints what may stand in a setting that holds settings of its own."""
    rows = [(path, kind, text) for path, kinds in choices.items() for kind, text in kinds.items()]
    if rows:
        show.say("")
        show.table(("In the place of", "Kind", "Meaning"), rows, words=range(3))
