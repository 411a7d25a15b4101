"""Changes settings of a method, or of the stages of a pipeline, by tables of plain values."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

from unweave.methods.lora import LoRA
from unweave.methods.pipeline import Pipeline
from unweave.tables import (
    T,
    Table,
    as_table,
    build,
    field_paths,
    join_path,
    merge_tables,
    refuse_unknown,
    require_mapping,
)


def configure(settings: T, overrides: object, path: str = "method") -> T:
    """Changes some fields of a dataclass; nested tables change nested fields.

    Given `steps` replace default `epochs`, and vice versa. For a pipeline, one table per stage changes that
    stage. Of LoRA, the method that it is around is changed.

    Args:
        settings: The dataclass.
        overrides: What to change.
        path: Its name in errors.

    Raises:
        ValueError: If a field is unknown or a value is wrong; the message says where.
    """
    tables = require_mapping(overrides, path)
    if isinstance(settings, LoRA):
        return cast(T, replace(settings, method=configure(settings.method, tables, path)))
    if isinstance(settings, Pipeline):
        return cast(T, configure_stages(settings, tables, path))
    return build(type(settings), merge_tables(as_table(settings), tables), path)


def configure_stages(pipeline: Pipeline, tables: Table, path: str) -> Pipeline:
    """Changes some fields of the stages of a pipeline."""
    stages = dict(zip(pipeline.names, pipeline.stages, strict=True))
    paths = [f"{name}.{each}" for name, stage in stages.items() for each in field_paths(type(stage))]
    refuse_unknown(tables, stages, path, paths)
    new_stages = [
        configure(each, tables.get(name, {}), join_path(path, name)) for name, each in stages.items()
    ]
    return Pipeline(*new_stages, names=pipeline.names)


def settings_of(method: object) -> dict[str, Any]:
    """All settings of a method as tables from which `configure` makes it again, whatever the defaults are."""
    if isinstance(method, LoRA):
        return settings_of(method.method)
    if isinstance(method, Pipeline):
        return {name: settings_of(each) for name, each in zip(method.names, method.stages, strict=True)}
    return as_table(method)


def refuse_unknown_settings(settings: object, names: Iterable[str], path: str) -> None:
    """Raises at a dotted path that names no field of a dataclass, or of a pipeline's stages."""
    stages = stages_of(settings).items()
    paths = [f"{prefix}{each}" for prefix, stage in stages for each in field_paths(type(stage))]
    refuse_unknown(dict.fromkeys(names), paths, path)


def stages_of(method: object) -> dict[str, Any]:
    """The stages of a pipeline by the prefix of their settings; any other method by an empty prefix.

    LoRA is no stage: what it is around has the settings. Of a pipeline in a pipeline, its stages are.
    """
    if isinstance(method, LoRA):
        return stages_of(method.method)
    if not isinstance(method, Pipeline):
        return {"": method}
    return {
        f"{name}.{inner}": stage
        for name, each in zip(method.names, method.stages, strict=True)
        for inner, stage in stages_of(each).items()
    }
