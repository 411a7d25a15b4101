"""`unweave methods`: lists methods with their needs, costs and deviations from the paper."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.cli import out, show
from unweave.cli.describe_settings import descents, first_line, setting_choices, setting_meanings
from unweave.cli.options import DEFAULTS, Shared, flatten
from unweave.methods import DEFAULT, METHODS, STAGES, Method, method_named
from unweave.record.files import write_atomically
from unweave.tables import as_table

FILE = "methods.json"
PIPELINES = (
    "A pipeline is methods one after the other, its name theirs joined by ':', such as "
    f"{DEFAULT}. The path of a setting begins with the name of its stage: --set lur.alpha=0.1."
)
"""The note on the names of pipelines."""


def methods(name: str | None = None, /, *, shared: Shared = DEFAULTS) -> int:
    """List the methods: paper, data needed, cost of a step, deviations; and the stages of pipelines.

    Args:
        name: A method, stage or pipeline to show with all its settings, which forget --set changes.
        shared: The flags of every verb.
    """
    chosen = {**METHODS, **STAGES} if name is None else {name: method_named(name)}
    described = {each: describe_method(method) for each, method in chosen.items()}
    if shared.out is not None:
        asked = {"verb": "methods", "methods": described}
        with out.open_folder(out.choose_folder(shared.out, asked), asked) as folder:
            write_atomically(folder / FILE, json.dumps(described, indent=1))
    if shared.json:
        show.print_json(described)
    elif name is None:
        print_methods({each: described[each] for each in METHODS})
        print_stages({each: described[each] for each in STAGES})
    else:
        print_method(name, described[name])
        print_settings(described[name], sorted(descents(chosen[name]), key=len))
        print_choices(described[name]["choices"])
    return 0


def describe_method(method: Method) -> dict[str, Any]:
    """The facts about a method, and its settings with their meanings, by the paths for `--set`."""
    told = {
        "settings": flatten(as_table(method)),
        "meanings": setting_meanings(method),
        "choices": setting_choices(method),
    }
    return {**dataclasses.asdict(method.about), "does": first_line(type(method)), **told}


def print_methods(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for the methods of each paper, then their deviations from it."""
    rows = group_methods(described, ("data", "step", "paper"))
    show.print_table(
        ("Method", "Data", "Cost of a step", "Paper"),
        [(names, *facts) for facts, names in rows.items()],
        words=range(4),
    )
    show.print_lines("", "For models of one family alone:")
    alone = group_methods(described, ("families",))
    show.print_table(
        ("Family", "Method"),
        [(", ".join(families), names) for (families,), names in alone.items() if families],
        words=range(2),
    )
    show.print_lines("", "Where they deviate from the paper or its released code:")
    deviating = group_methods(described, ("deviations",))
    show.print_table(
        ("Method", ""), [(names, text) for (text,), names in deviating.items() if text], words=range(2)
    )


def print_stages(described: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for each start and recovery, and how to name a pipeline."""
    show.print_lines("", "Stages of pipelines, before or after a method:")
    rows = [(name, each["does"], each["paper"]) for name, each in described.items()]
    show.print_table(("Stage", "", "Paper"), rows, words=range(3))
    show.print_lines("", PIPELINES)


def group_methods(
    described: Mapping[str, Mapping[str, Any]], keys: Sequence[str]
) -> dict[tuple[Any, ...], str]:
    """Groups the names of methods by the facts that they share."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, each in described.items():
        found.setdefault(tuple(each[key] for key in keys), []).append(name)
    return {facts: ", ".join(names) for facts, names in found.items()}


def print_method(name: str, each: Mapping[str, Any]) -> None:
    """Prints the facts about one method."""
    show.print_sentences(f"{name}: {each['paper']}", f"Data: {each['data']}. Cost of a step: {each['step']}.")
    show.print_sentences(
        *([f"For {' or '.join(each['families'])} models alone."] if each["families"] else [])
    )
    show.print_sentences(*([f"Deviations: {each['deviations']}."] if each["deviations"] else []))


def print_settings(each: Mapping[str, Any], descents: Sequence[str]) -> None:
    """Prints the settings of one method, then those of its descents in one table."""
    settings, meaning = each["settings"], each["meanings"]
    own = [path for path in settings if path.rpartition(".")[0] not in descents]
    if own:
        rows = [(path, json.dumps(settings[path]), meaning[path]) for path in own]
        show.print_lines("")
        show.print_table(("Setting", "Default", "Meaning"), rows, words=range(3))
    if descents:
        first, *others = descents
        rows = [
            (path, *(json.dumps(settings[path.replace(first, place, 1)]) for place in descents), text)
            for path, text in meaning.items()
            if path.rpartition(".")[0] == first
        ]
        header = ("Setting", "Default", *(f"In {place}" for place in others), "Meaning")
        show.print_lines("")
        show.print_table(header, rows, words=range(len(header)))


def print_choices(choices: Mapping[str, Mapping[str, str]]) -> None:
    """Prints the choices for each setting with nested settings."""
    rows = [(path, kind, text) for path, kinds in choices.items() for kind, text in kinds.items()]
    if rows:
        show.print_lines("")
        show.print_table(("Choice for", "Kind", "Meaning"), rows, words=range(3))
