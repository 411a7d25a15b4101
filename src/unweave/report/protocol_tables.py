"""The columns of Deep Unlearn in every form: terminal, plain text, Markdown, LaTeX, Parquet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unweave.record.record import explain_unverified
from unweave.report import table_formats
from unweave.report.numbers import DASH, number
from unweave.report.parquet import write
from unweave.report.protocol import COLUMNS, SEEDS, Record, agreement_of, failures, figures_of, ranks_of
from unweave.report.ranking import REFERENCES


def grid(stage: Record) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of one stage as text: references, then methods by rank, then failed ones."""
    figures, ranks, reasons = figures_of(stage), ranks_of(stage), failures(stage)
    names = [name for name in REFERENCES if name in figures]
    names += [name for name in ranks if name not in reasons] + list(reasons)
    columns = {name: list(map(format_figure, figures[name].values())) for name in names}
    columns |= {name: ["FAILED", *columns[name][1:]] for name in reasons}
    return ["Method", *COLUMNS.values(), "Rank"], [
        [name, *columns[name], number(ranks.get(name), 1)] for name in names
    ]


def format_figure(figure: Mapping[str, float | int | None]) -> str:
    """Mean and standard deviation."""
    middle, spread = number(figure["mean"], 3), number(figure["deviation"], 3)
    return middle if spread == DASH else f"{middle} ±{spread}"


def sentences(stage: Record) -> list[str]:
    """Sentences on the number of seeds, if the protocol has more, and on failed methods."""
    n = len(stage["seeds"])
    seed_sentences = [f"{n} {'seed' if n == 1 else 'seeds'}; the protocol has {SEEDS}."] if n < SEEDS else []
    return seed_sentences + [f"{name}: FAILED: {reason}" for name, reason in failures(stage).items()]


def legend(record: Record) -> str:
    """The legend of the columns, and the agreement of the order with the published one."""
    agreement = agreement_of(record)
    pairs = f"{agreement.pairs} {'pair' if agreement.pairs == 1 else 'pairs'}"
    tau = (
        f"Kendall's tau is {number(agreement.tau, 2)} over the {pairs} that it decides."
        if agreement.pairs
        else "it decides the order of no two of these methods."
    )
    return (
        "Deep Unlearn (Cadet et al., arXiv 2410.01276). Retention: accuracy relative to the retrained "
        "model's. Indisc.: indiscernibility, 1 where an attack on the loss can't tell forget from "
        "calibration examples, 0 where it always can. T-MIA: the same of test examples. Speed-up: the time "
        "of a retrain over the method's. ±: standard deviation over seeds. Rank: mean over seeds, half by "
        "the retentions, half by indiscernibility; what failed shares the last. "
        f"Compared with the published order (MSG and CT first, GA and SRL last; no more is known here): {tau}"
    )


def text(record: Record, *, width: int = 100) -> str:
    """Every stage as plain text."""
    parts = [f"{line}\n" for line in [explain_unverified(record)] if line]
    for name, stage in record["stages"].items():
        notes = table_formats.wrap(sentences(stage), width)
        table = table_formats.text_lines(*grid(stage), words=1, width=width)
        parts.append("\n".join([name, *notes, "", *table, ""]))
    return "\n".join([*parts, *table_formats.wrap([legend(record)], width)])


def markdown(record: Record) -> str:
    """Every stage as a Markdown table."""
    stages = record["stages"].items()
    parts = [table_formats.markdown(name, sentences(stage), *grid(stage), words=1) for name, stage in stages]
    notes = [table_formats.escape(line) for line in [explain_unverified(record)] if line]
    return "\n\n".join([*notes, *parts, table_formats.escape(legend(record))]) + "\n"


def latex(record: Record) -> str:
    """Every stage as a booktabs tabular."""
    stages = [table_formats.tabular(name, *grid(stage), words=1) for name, stage in record["stages"].items()]
    return "\n\n".join([*(f"% {line}" for line in [explain_unverified(record)] if line), *stages]) + "\n"


def parquet(record: Record, path: Path) -> Path:
    """Write a row per stage, method and column, unrounded; a failed method has one row with the reason."""
    columns = {"stage": str, "method": str, "failed": str, "figure": str}
    columns |= {"mean": float, "deviation": float, "n": int}
    lines = [line for name, stage in record["stages"].items() for line in long(name, stage)]
    return write(lines, columns, path)


def long(name: str, stage: Record) -> list[dict[str, Any]]:
    """The rows of `parquet`."""
    reasons = failures(stage)
    return [
        *({"stage": name, "method": method, "failed": reason} for method, reason in reasons.items()),
        *(
            {"stage": name, "method": method, "figure": key, **figure}
            for method, figures in figures_of(stage).items()
            for key, figure in figures.items()
            if method not in reasons
        ),
    ]
