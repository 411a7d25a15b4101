"""The settings of a method, and of a pipeline's stages, changed by tables of plain values."""

from collections.abc import Iterable
from typing import Any, cast

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
    """A dataclass with some fields changed; nested tables change fields of fields.

    A given `steps` displaces a default `epochs`, and the other way round. Of a pipeline a table per stage
    changes that stage.

    Args:
        settings: The dataclass.
        overrides: What to change.
        path: What errors call it.

    Raises:
        ValueError: If a field is not known or a value is wrong; says where.
    """
    given = require_mapping(overrides, path)
    if isinstance(settings, Pipeline):
        return cast(T, configure_stages(settings, given, path))
    return build(type(settings), merge_tables(as_table(settings), given), path)


def configure_stages(pipeline: Pipeline, tables: Table, path: str) -> Pipeline:
    """The pipeline with some fields of its stages changed."""
    stages = dict(zip(pipeline.names, pipeline.stages, strict=True))
    meant = [f"{name}.{each}" for name, stage in stages.items() for each in field_paths(type(stage))]
    refuse_unknown(tables, stages, path, meant)
    changed = [configure(each, tables.get(name, {}), join_path(path, name)) for name, each in stages.items()]
    return Pipeline(*changed, names=pipeline.names)


def refuse_unknown_settings(settings: object, given: Iterable[str], path: str) -> None:
    """Raises at a dotted path that names no field of a dataclass, or of a pipeline's stages."""
    stages = stages_of(settings).items()
    known = [f"{before}{each}" for before, stage in stages for each in field_paths(type(stage))]
    refuse_unknown(dict.fromkeys(given), known, path)


def stages_of(method: object) -> dict[str, Any]:
    """The stages of a pipeline by what the paths of their settings begin with; any other method as it is."""
    if not isinstance(method, Pipeline):
        return {"": method}
    return {f"{name}.": stage for name, stage in zip(method.names, method.stages, strict=True)}
