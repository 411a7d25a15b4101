"""`unweave bench table`: records as a table for a page, a paper or another program."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unweave.bench.verify_figures import refuse_disproved
from unweave.cli import out, show
from unweave.cli.options import DEFAULTS, Shared
from unweave.cli.same_origin import refuse_mixed
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
    shared: Shared = DEFAULTS,
) -> int:
    """Show records as a table, on the standard output or as a file in --out.

    Args:
        records: Folders of runs, or their record.json.
        format: The format; parquet and html are files and need --out.
        protocol: The columns of another benchmark: retentions, attacks and speed-up of deep-unlearn.
        shared: The flags of every verb.
    """
    found = load_records(records)
    refuse_mixed(found)
    whole = merge_records(found)
    if protocol is not None:
        refuse_unmeasured(whole)
    if shared.json or format == "parquet":
        warn_unverified(whole)
    if shared.out is None:
        found = summary(whole) if protocol is None else summary_of(whole)
        width = show.console().width
        show.print_json(found) if shared.json else print(
            as_text(whole, format, protocol, width=width), end=""
        )
        return 0
    asked = {"verb": "bench table", "records": [str(each.resolve()) for each in records], "format": format}
    asked |= {} if protocol is None else {"protocol": protocol}
    with out.open_folder(out.choose_folder(shared.out, asked), asked) as folder:
        path = write_table(whole, format, protocol, folder)
    show.print_json({"table": str(path)}) if shared.json else show.print_lines(f"Table: {path}")
    return 0


def load_records(places: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Loads records, by their place.

    Raises:
        ValueError: If one is no record, was changed, or contradicts the files next to it.
    """
    return {str(place): load_verified(record_path(place)) for place in places}


def load_verified(place: Path) -> dict[str, Any]:
    """Loads a record and checks it against the files next to it, except with the earlier schema."""
    made = record.load(place)
    if not record.explain_unverified(made):
        refuse_disproved(made, place)
    return made


def warn_unverified(made: Mapping[str, Any]) -> None:
    """Warns on the standard error that figures can't be verified, if the output can't say so."""
    if note := record.explain_unverified(made):
        print(f"unweave: {note}", file=sys.stderr)


def merge_records(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merges records; stages or frontiers of the same name get the name of their folder."""
    stages, frontiers = (
        merge_named({place: each.get(part, {}) for place, each in found.items()})
        for part in ("stages", "frontier")
    )
    made = {**next(iter(found.values())), "stages": stages}
    return {**made, "frontier": frontiers} if frontiers else made


def merge_named(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Merges tables; entries of the same name get their place."""
    known = [name for each in found.values() for name in each]
    return {
        name if known.count(name) == 1 else f"{place}: {name}": item
        for place, each in found.items()
        for name, item in each.items()
    }


def record_path(place: Path) -> Path:
    """The path of the record of a run: that of its latest audit, if there is one."""
    folders = [place / "audit", *place.glob("audit-*")]  # an audit of other models goes to audit-2, ...
    audits = [each / record.FILE for each in folders if AUDIT.fullmatch(each.name)]
    finished = [audit for audit in audits if audit.is_file()]
    return max(finished, key=lambda audit: audit.stat().st_mtime_ns, default=place)


def summary(made: Mapping[str, Any]) -> dict[str, Any]:
    """The stages of a record without data that only a page needs."""
    return {name: short_stage(stage) for name, stage in made["stages"].items()}


def short_stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage without histograms, searches and traces."""
    short = {key: value for key, value in stage.items() if key not in ("histograms", "search")}
    rows = stage["methods"].items()
    short["methods"] = {name: {key: row[key] for key in row if key != "trace"} for name, row in rows}
    return short


def as_text(
    made: Mapping[str, Any], format: Format, protocol: Protocol | None = None, *, width: int = show.WIDTH
) -> str:
    """A record's table as text, at most `width` characters wide if lines can be broken."""
    made = show.escape_controls(made)
    drawn = tables if protocol is None else protocol_tables
    match format:
        case "text":
            return f"{drawn.text(made, width=width)}\n"
        case "latex":
            return drawn.latex(made)
        case "markdown":
            return drawn.markdown(made)
        case "parquet" | "html":
            raise ValueError(f"--format {format} makes a file: say with --out where")


def write_table(made: Mapping[str, Any], format: Format, protocol: Protocol | None, folder: Path) -> Path:
    """A record's table as a file; the page has the columns of every protocol."""
    path = folder / FILES[format]
    if format == "parquet":
        return (parquet if protocol is None else protocol_tables.parquet)(made, path)
    if format == "html":
        return html.write(made, path)
    write_atomically(path, as_text(made, format, protocol))
    return path
