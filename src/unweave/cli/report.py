"""`unweave report`: writes records as one HTML page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.cli import out, show
from unweave.cli.options import DEFAULTS, Shared
from unweave.cli.table import FILES, load_records, merge_records, record_path
from unweave.record.files import write_atomically
from unweave.report import html, tables

CARD = "model-card.md"


def report(runs: list[Path], /, *, shared: Shared = DEFAULTS) -> int:
    """Write one HTML page, and the same tables as a section for a model card.

    Without --out, the page of a single run is written into its folder.

    Args:
        runs: Folders of runs, or their record.json.
        shared: The flags of every verb.
    """
    made = merge_records(load_records(runs))
    asked = {"verb": "report", "runs": [str(run.resolve()) for run in runs]}
    if shared.out is None and len(runs) == 1:
        run = record_path(runs[0])
        page, card = write_report(made, run if run.is_dir() else run.parent)
    else:
        with out.open_folder(out.choose_folder(shared.out or Path("unweave-report"), asked), asked) as folder:
            page, card = write_report(made, folder)
    if shared.json:
        show.print_json({"report": str(page), "card": str(card)})
    else:
        show.print_lines(f"Report: {page}", f"Model card: {card}")
    return 0


def write_report(made: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Writes the page and the section."""
    made = show.escape_controls(made)
    page, card = html.write(made, folder / FILES["html"]), folder / CARD
    write_atomically(card, tables.markdown(made))
    return page, card
