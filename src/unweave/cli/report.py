"""`unweave report`: writes records as one HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.cli.inputs import out
from unweave.cli.inputs.same_origin import refuse_earlier
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.table import FILES, load_records, merge_records, record_path
from unweave.cli.terminal import show
from unweave.record import record
from unweave.record.files import write_atomically
from unweave.report import html, tables

CARD = "model-card.md"


def report(runs: list[Path], /, *, flags: CommonFlags = DEFAULTS) -> int:
    """Write one HTML page, and the same tables as a section for a model card.

    Without --out, the page of a single run is written into its folder, any other into unweave-report.

    Args:
        runs: Folders of runs, or their record.json.
        flags: The flags of every verb.
    """
    records = load_records(runs)
    refuse_earlier(records)
    merged_record = merge_records(records)
    facts = {"verb": "report", "runs": [str(run.resolve()) for run in runs]}
    run = record_path(runs[0])
    # several records of other names can share a folder, and would overwrite each other's page
    if flags.out is None and len(runs) == 1 and (run.is_dir() or run.name == record.FILE):
        page, card = write_report(merged_record, run if run.is_dir() else run.parent)
    else:
        with out.open_folder(out.choose_folder(flags.out or Path("unweave-report"), facts), facts) as folder:
            page, card = write_report(merged_record, folder)
    if flags.json:
        show.print_json({"report": str(page), "card": str(card)})
    else:
        show.print_lines(f"Report: {page}", f"Model card: {card}")
    return 0


def write_report(whole_record: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes the page and the section."""
    whole_record = show.escape_controls(whole_record)
    page, card = html.write(whole_record, folder / FILES["html"]), folder / CARD
    write_atomically(card, tables.markdown(whole_record))
    return page, card
