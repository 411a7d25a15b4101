"""`unweave methods`: lists methods with their needs, costs and deviations from the paper."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.bench.ranges import flatten_tables
from unweave.cli.inputs import out
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.terminal import show
from unweave.cli.terminal.describe_settings import descents, first_line, setting_choices, setting_meanings
from unweave.methods import DEFAULT, METHODS, STAGES, Method, method_named
from unweave.tables import as_table

FILE = "methods.json"
PIPELINES = (
    "A pipeline is methods one after the other, its name theirs joined by ':', such as "
    f"{DEFAULT}. The path of a setting begins with the name of its stage: --set lur.alpha=0.1."
)
"""The note on the names of pipelines."""


def methods(name: str | None = None, /, *, flags: CommonFlags = DEFAULTS) -> int:
    """List the methods: paper, data needed, cost of a step, deviations; and the stages of pipelines.

    Args:
        name: A method, stage or pipeline to show with all its settings, which forget --set changes.
        flags: The flags of every verb.
    """
    selection = {**METHODS, **STAGES} if name is None else {name: method_named(name)}
    descriptions = {each: describe_method(method) for each, method in selection.items()}
    out.write_json(flags.out, {"verb": "methods", "methods": descriptions}, FILE, descriptions)
    if flags.json:
        show.print_json(descriptions)
    elif name is None:
        print_methods({each: descriptions[each] for each in METHODS})
        print_stages({each: descriptions[each] for each in STAGES})
    else:
        print_method(name, descriptions[name])
        print_settings(descriptions[name], sorted(descents(selection[name]), key=len))
        print_choices(descriptions[name]["choices"])
    return 0


def describe_method(method: Method) -> dict[str, Any]:
    """The facts about a method, and its settings with their meanings, by the paths for `--set`."""
    setting_facts = {
        "settings": flatten_tables(as_table(method)),
        "meanings": setting_meanings(method),
        "choices": setting_choices(method),
    }
    return {**dataclasses.asdict(method.about), "does": first_line(type(method)), **setting_facts}


def print_methods(descriptions: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for the methods of each paper, then their deviations from it."""
    rows = group_methods(descriptions, ("data", "step", "paper"))
    show.print_table(
        ("Method", "Data", "Cost of a step", "Paper"),
        [(names, *facts) for facts, names in rows.items()],
        words=range(4),
    )
    show.print_lines("", "For models of one family alone:")
    family_groups = group_methods(descriptions, ("families",))
    show.print_table(
        ("Family", "Method"),
        [(", ".join(families), names) for (families,), names in family_groups.items() if families],
        words=range(2),
    )
    show.print_lines("", "Where they deviate from the paper or its released code:")
    deviating = group_methods(descriptions, ("deviations",))
    show.print_table(
        ("Method", ""), [(names, text) for (text,), names in deviating.items() if text], words=range(2)
    )


def print_stages(descriptions: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for each start and recovery, and how to name a pipeline."""
    show.print_lines("", "Stages of pipelines, before or after a method:")
    rows = [(name, each["does"], each["paper"]) for name, each in descriptions.items()]
    show.print_table(("Stage", "", "Paper"), rows, words=range(3))
    show.print_lines("", PIPELINES)


def group_methods(
    descriptions: Mapping[str, Mapping[str, Any]], keys: Sequence[str]
) -> dict[tuple[Any, ...], str]:
    """Groups the names of methods by the facts that they share."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, each in descriptions.items():
        groups.setdefault(tuple(each[key] for key in keys), []).append(name)
    return {facts: ", ".join(names) for facts, names in groups.items()}


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
    top_level = [path for path in settings if path.rpartition(".")[0] not in descents]
    if top_level:
        rows = [(path, json.dumps(settings[path]), meaning[path]) for path in top_level]
        show.print_lines("")
        show.print_table(("Setting", "Default", "Meaning"), rows, words=range(3))
    if descents:
        first, *inner_descents = descents
        rows = [
            (path, *(json.dumps(settings[path.replace(first, place, 1)]) for place in descents), text)
            for path, text in meaning.items()
            if path.rpartition(".")[0] == first
        ]
        header = ("Setting", "Default", *(f"In {place}" for place in inner_descents), "Meaning")
        show.print_lines("")
        show.print_table(header, rows, words=range(len(header)))


def print_choices(choices: Mapping[str, Mapping[str, str]]) -> None:
    """Prints the choices for each setting with nested settings."""
    rows = [(path, kind, text) for path, kinds in choices.items() for kind, text in kinds.items()]
    if rows:
        show.print_lines("")
        show.print_table(("Choice for", "Kind", "Meaning"), rows, words=range(3))
