"""`unweave bench table`: records as a table for a page, a paper or another program."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unweave.bench.verify_figures import refuse_disproved
from unweave.cli.inputs import out
from unweave.cli.inputs.same_origin import refuse_mixed
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.terminal import show
from unweave.record import record
from unweave.record.files import write_atomically
from unweave.report import html, protocol_tables, tables
from unweave.report.parquet import parquet
from unweave.report.protocol import Protocol, refuse_unmeasured
from unweave.report.protocol import summary as summary_of

Format = Literal["text", "latex", "markdown", "parquet", "html"]
FILES: Mapping[Format, str] = {
    "text": "table.txt",
    "latex": "table.tex",
    "markdown": "table.md",
    "parquet": "table.parquet",
    "html": html.FILE,
}
AUDIT = re.compile("audit(-[0-9]+)?")


def table(
    records: list[Path],
    /,
    *,
    format: Format = "text",
    protocol: Protocol | None = None,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Show records as a table, on the standard output or as a file in --out.

    Args:
        records: Folders of runs, or their record.json.
        format: The format; parquet and html are files and need --out.
        protocol: The columns of another benchmark: retentions, attacks and speed-up of deep-unlearn.
        flags: The flags of every verb.
    """
    by_place = load_records(records)
    refuse_mixed(by_place)
    merged_record = merge_records(by_place)
    if protocol is not None:
        refuse_unmeasured(merged_record)
    if flags.json or format == "parquet":
        warn_unverified(merged_record)
    if flags.out is None:
        figures = summary(merged_record) if protocol is None else summary_of(merged_record)
        width = show.console().width
        show.print_json(figures) if flags.json else print(
            as_text(merged_record, format, protocol, width=width), end=""
        )
        return 0
    facts = {"verb": "bench table", "records": [str(each.resolve()) for each in records], "format": format}
    facts |= {} if protocol is None else {"protocol": protocol}
    with out.open_folder(out.choose_folder(flags.out, facts), facts) as folder:
        path = write_table(merged_record, format, protocol, folder)
    show.print_json({"table": str(path)}) if flags.json else show.print_lines(f"Table: {path}")
    return 0


def load_records(places: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Loads records, by their place.

    Raises:
        ValueError: If one is no record, was changed, or contradicts the files next to it.
    """
    records = {}
    for place in places:
        path = record_path(place)
        records[str(place)] = record.load(path)
        refuse_disproved(records[str(place)], path)
    return records


def warn_unverified(content: Mapping[str, Any]) -> None:
    """Warns on the standard error that figures can't be verified, if the output can't say so."""
    if note := record.explain_unverified(content):
        print(f"unweave: {note}", file=sys.stderr)


def merge_records(by_place: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merges records; stages or frontiers of the same name get the name of their folder."""
    stages, frontiers = (
        merge_named({place: each.get(part, {}) for place, each in by_place.items()})
        for part in ("stages", "frontier")
    )
    merged_record = {**next(iter(by_place.values())), "stages": stages}
    if len(by_place) > 1:
        merged_record.pop("qualification", None)  # it is about the requests of one record
    return {**merged_record, "frontier": frontiers} if frontiers else merged_record


def merge_named(by_place: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merges tables; entries of the same name get their place."""
    names = [name for each in by_place.values() for name in each]
    return {
        name if names.count(name) == 1 else f"{place}: {name}": item
        for place, each in by_place.items()
        for name, item in each.items()
    }


def record_path(place: Path) -> Path:
    """The path of the record of a run: that of its latest audit, if there is one."""
    folders = [place / "audit", *place.glob("audit-*")]  # an audit of other models goes to audit-2, ...
    audits = [each / record.FILE for each in folders if AUDIT.fullmatch(each.name)]
    existing = [audit for audit in audits if audit.is_file()]
    return max(existing, key=lambda audit: audit.stat().st_mtime_ns, default=place)


def summary(whole_record: Mapping[str, Any]) -> dict[str, Any]:
    """The stages of a record without what only a page needs: histograms, searches and traces."""
    short = {}
    for name, stage in whole_record["stages"].items():
        methods = stage["methods"].items()
        short[name] = {key: value for key, value in stage.items() if key not in ("histograms", "search")}
        rows = {method: {key: row[key] for key in row if key != "trace"} for method, row in methods}
        short[name]["methods"] = rows
    return short


def as_text(
    whole_record: Mapping[str, Any],
    format: Format,
    protocol: Protocol | None = None,
    *,
    width: int = show.WIDTH,
) -> str:
    """A record's table as text, at most `width` characters wide if lines can be broken."""
    whole_record = show.escape_controls(whole_record)
    renderer = tables if protocol is None else protocol_tables
    match format:
        case "text":
            return f"{renderer.text(whole_record, width=width)}\n"
        case "latex":
            return renderer.latex(whole_record)
        case "markdown":
            return renderer.markdown(whole_record)
        case "parquet" | "html":
            raise ValueError(f"--format {format} makes a file: say with --out where")


def write_table(
    whole_record: Mapping[str, Any], format: Format, protocol: Protocol | None, folder: Path
) -> Path:
    """A record's table as a file; the page has the columns of every protocol."""
    path = folder / FILES[format]
    if format == "parquet":
        return (parquet if protocol is None else protocol_tables.parquet)(whole_record, path)
    if format == "html":
        return html.write(whole_record, path)
    write_atomically(path, as_text(whole_record, format, protocol))
    return path
