"""What a person sees of an audit: its verdict and figures, attacks, and the cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.auditing import Audit
from unweave.audits.verdict import Verdict
from unweave.cli.options import CommonFlags
from unweave.cli.terminal import show
from unweave.record import record
from unweave.report import attack_tables, html, qualification_tables
from unweave.report.next_step import next_step
from unweave.report.numbers import number


def print_audit(
    outcome: Audit, place: Path, flags: CommonFlags, *sentences: str, models: Path | None = None
) -> int:
    """Prints the verdict, the figures, further sentences and the next step; returns the exit code.

    Args:
        outcome: The audit.
        place: The folder of its record.
        flags: The flags of every verb.
        sentences: Further sentences.
        models: The folder of the retrained models, if they are kept.
    """
    whole_record = record.load(place)
    (stage,) = whole_record["stages"].values()
    row, original = audited_rows(stage)
    cost = {key: row[key] for key in ("seconds", "gradient_evaluations", "cost")}
    if flags.json:
        figures = {key: row[key] for key in ("verdict", "reason", "scores", "gap")}
        figures["original"] = None if original is None else original["scores"]
        places = {"out": str(place), "report": str(place / html.FILE)}
        retraining = {key: stage["reference"].get(key) for key in ("seconds", "gradient_evaluations")}
        figures |= {key: stage[key] for key in ("attacks", "qualified") if key in stage}
        show.print_json({**figures, "margins": stage["margins"], **cost, "retraining": retraining, **places})
    else:
        show.print_verdict(stage, row, original)
        if "attacks" in stage:
            print_attacks(stage["attacks"])
        if "qualified" in stage:
            show.print_sentences("", *qualification_tables.audit_sentences(stage["qualified"]))
        show.print_sentences(*cost_sentence(row, stage["reference"]))
        show.print_sentences(*sentences)
        show.print_sentences("", next_step(row["verdict"], row["reason"], models, family=stage.get("family")))
        show.print_lines("", f"Report: {place / html.FILE}")
    return 0 if outcome.verdict is Verdict.PASS else 1


def print_attacks(attacks: Mapping[str, Any]) -> None:
    """Prints the table of attacks, what was not run, and what can be claimed."""
    header, lines = attack_tables.brief_grid(attacks)
    show.print_lines("")
    if lines:
        show.print_table(header, lines, words=(0, len(header) - 1))
    show.print_sentences("", *attack_tables.sentences(attacks))


def audited_rows(stage: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The row of the audited model, and that of the original if it is known."""
    rows = dict(stage["methods"])
    original = rows.pop("original") if len(rows) > 1 else None
    (row,) = rows.values()
    return row, original


def cost_sentence(row: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """A sentence on the cost of a method relative to a retraining; none if the cost is unknown."""
    cost, retrain = cost_words(row), cost_words(reference)
    if cost is None:
        return []
    sentence = f"Unlearning took {cost}" + ("." if retrain is None else f"; a retraining takes {retrain}.")
    return ["", f"{sentence} Seconds vary with the machine and its load."]


def cost_words(row: Mapping[str, Any]) -> str | None:
    """A cost in words; None if the time is unknown."""
    if row.get("seconds") is None:
        return None
    gradients = row["gradient_evaluations"]
    count = "" if gradients is None else f"{gradients:.0f} gradient evaluations and "
    return f"{count}{number(row['seconds'], 1)} s"
