"""Families of models: the registry, and one file per family that ties a task to its methods, data and audit.

A new family is one file in `unweave.tasks`, one here, one package in `unweave.audits`, one line in
`FAMILIES`, and a `unweave.data.Source` if its data is of a new kind: see CONTRIBUTING. Everything above asks
the registry, or the `Family` of a recipe or a project.

Three traps: the stage of a record names its family, but earlier records do not, and `family_of_stage` guesses
theirs by the ids of metrics; families that share the id of a metric must share its title and unit; and
`--data`, folders of diffusers and answers in parquet without a model belong to one family each.
"""

from collections.abc import Mapping
from typing import Any

from unweave.audits.exam import Exam
from unweave.audits.metrics import Metric
from unweave.families.classifier import ClassifierFamily
from unweave.families.diffusion import DiffusionFamily
from unweave.families.family import Family
from unweave.families.text_to_image import TextToImageFamily
from unweave.result import Result
from unweave.tables import NOTHING, Table, as_table, read
from unweave.tasks import family_of

__all__ = ["DEFAULT_FAMILY", "FAMILIES"]

FAMILIES: dict[str, Family] = {
    each.name: each for each in (ClassifierFamily(), DiffusionFamily(), TextToImageFamily())
}
"""Every family with its default settings, by the word of tasks and methods."""

DEFAULT_FAMILY = FAMILIES[ClassifierFamily.name]
"""The family of a model of which nothing else is said."""

ALWAYS_WRITTEN = (DiffusionFamily.table,)
"""The tables that every recipe has in a record, empty for other families, as records have always had them."""


def families_by_table() -> dict[str, Family]:
    """The families with a table of their own, by its key in a recipe."""
    return {each.table: each for each in FAMILIES.values() if each.table is not None}


def read_family(table: Table) -> Family:
    """The family whose table is in a recipe, or in what `load()` of a project returns.

    Raises:
        ValueError: If there are tables of several families, or a setting is unknown or wrong.
    """
    families = families_by_table()
    keys = [key for key in families if table.get(key) not in (None, NOTHING)]
    if len(keys) > 1:
        raise ValueError(f"a model is of one family, found the tables {' and '.join(keys)}: leave one out")
    return read(type(families[keys[0]]), table[keys[0]], keys[0]) if keys else DEFAULT_FAMILY


def family_tables(family: Family) -> dict[str, Any]:
    """The tables of a recipe that say of which family it is, for `read_family`."""
    empty = dict.fromkeys(key for key in ALWAYS_WRITTEN if key is not None)
    return empty if family.table is None else {**empty, family.table: as_table(family)}


def family_of_stage(stage: Mapping[str, Any]) -> Family:
    """The family of a stage of a record.

    In a record that names none, or one that is not registered, it is the family that has most of the stage's
    metrics, or else the first.
    """
    family = FAMILIES.get(stage.get("family", ""))
    tables = [stage["reference"]["scores"], *(method["scores"] for method in stage["methods"].values())]
    ids = {metric for scores in tables for metric in scores}
    return family or max(FAMILIES.values(), key=lambda each: len(each.metrics.keys() & ids))


def default_exam(result: Result) -> Exam[Any]:
    """The exam of the task's family.

    Raises:
        ValueError: If the family is unknown, or its exam depends on more than the data, as that of a
            generator does.
    """
    name = family_of(result.task)
    if name not in FAMILIES:
        raise ValueError(
            f"expected a task of a family with an exam ({', '.join(FAMILIES)}), found {name}: pass exam=, or "
            "set the task's attribute `family`"
        )
    return FAMILIES[name].default_exam(result.split)


def metric_named(name: str) -> Metric[Any] | None:
    """The metric of that name; None if it is unknown. Families that share a name share title and unit."""
    return next((each.metrics[name] for each in FAMILIES.values() if name in each.metrics), None)
