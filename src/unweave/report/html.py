"""A record as one HTML page without network, script or second file: the verdict first, then its evidence.

The page's policy forbids every request, its template escapes every value, and figures are inline SVG, so that
the file can be mailed, archived and opened years later. The same record gives the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from unweave.families import family_of_stage
from unweave.record.files import write_atomically
from unweave.record.record import explain_unverified
from unweave.report import frontier, protocol_tables
from unweave.report.attack_tables import Attacks, attacks_of
from unweave.report.concept_tables import Concept, concept_of, list_image_attacks
from unweave.report.next_step import NOT_AUDITED, next_step
from unweave.report.numbers import finite, heading
from unweave.report.protocol import has_figures
from unweave.report.qualification_tables import audit_sentences, qualification_of
from unweave.report.ranking import ours_of, rank_stages
from unweave.report.ranks import Ranking
from unweave.report.rows import Row, gap_ids, headline, metric_ids, rows
from unweave.report.tables import brief_metrics, comparison_columns
from unweave.report.template import flatten, load_templates

FILE = "report.html"
RETRAIN = "Models retrained without the forget set: compare each figure with theirs."
FORGET = "The forget set: the examples that were deleted."


@dataclass(frozen=True)
class Stage:
    """One stage of a record for the template.

    Args:
        name: the stage's name, or what was audited.
        anchor: the id of its section; made from its position, since a name may hold anything.
        record: the stage itself.
        rows: its rows, in the order of `rows.py`.
        headline: the row whose verdict the page opens with.
        reference: the retrained models' row.
        metrics: ids of the columns of the main table.
        further: ids of the other metrics measured.
        parts: ids of the metrics that the mean gap is made of.
        losses: SVG by method.
        tradeoff: SVG, None without two comparable methods.
        conflict: SVG, None without a probe.
        comparison: the columns that compare methods, by heading: a text per row.
        ranks: the methods' ranks over the seeds, None where there are none.
        pareto: SVG, None without two methods that took time.
        protocol: header and rows of Deep Unlearn's columns, None where they were not measured.
        attacks: the attacks of an audit, None without.
        attack_curves: SVG by attack and figure.
        sheets: pictures of what a generator draws, the original's and Retrain's first.
        qualification: What a verdict without retrained models rests on, in sentences; empty with them.
        concept: The erased concept of a text-to-image model, None for other models.
        image_attacks: Ids of the attacks that recover what a generator forgot.
        next_step: What to do after an audit; empty for a benchmark.
        audited: Whether its one model was audited; true for a benchmark.
    """

    name: str
    anchor: str
    record: Mapping[str, Any]
    rows: list[Row]
    headline: Row | None
    reference: Row | None
    metrics: list[str]
    further: list[str]
    parts: list[str]
    losses: dict[str, Markup]
    tradeoff: Markup | None
    conflict: Markup | None
    comparison: dict[str, list[str]]
    ranks: Ranking | None
    pareto: Markup | None
    protocol: tuple[list[str], list[list[str]]] | None
    attacks: Attacks | None
    attack_curves: dict[str, Markup]
    sheets: dict[str, str]
    qualification: list[str]
    concept: Concept | None
    image_attacks: list[str]
    next_step: str
    audited: bool

    def verdicts(self) -> dict[str, list[str]]:
        """Names of the methods other than the headline's, by status."""
        other_rows = [row for row in self.rows if row.kind == "method" and row != self.headline]
        order = ("PASS", "INCONCLUSIVE", "FAIL", "FAILED")
        by_status = {status: [row.name for row in other_rows if row.status == status] for status in order}
        return {status: names for status, names in by_status.items() if names}

    @property
    def gap_says(self) -> str:
        """The parts of the mean gap, in words."""
        scope = f" over {', '.join(map(heading, self.parts))}" if self.parts else ""
        return f"Mean absolute difference from Retrain{scope}, in percentage points."

    def has_gap(self) -> bool:
        """Whether any row has a finite mean gap."""
        return any(row.gap.mean is not None for row in self.rows)


def render(record: Mapping[str, Any]) -> str:
    """The page of a valid record, as one string of HTML."""
    stages = [_stage(name, f"stage-{i}", stage) for i, (name, stage) in enumerate(record["stages"].items())]
    # with one seed each the order of methods shows nothing
    repeated_stages = [stage for stage in record["stages"].values() if len(stage["seeds"]) > 1]
    page = load_templates().get_template("page.html.jinja")
    return page.render(
        stages=stages,
        frontiers=[_frontier(*each) for each in record.get("frontier", {}).items()],
        qualification=qualification_of(record),
        protocol=protocol_tables.legend(record) if all(stage.protocol for stage in stages) else None,
        ranks=rank_stages(repeated_stages) if len(repeated_stages) > 1 else None,
        environment=flatten(record["environment"]),
        date=record["environment"].get("date"),
        schema=record["schema"],
        unverified=explain_unverified(record),
        glossary=_glossary(stages),
        terms=_terms(stages),
    )


def write(record: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of a valid record to `path` and return it."""
    write_atomically(path, render(record))
    return Path(path)


def _stage(name: str, anchor: str, stage: Mapping[str, Any]) -> Stage:
    from unweave.report import figures  # matplotlib takes time to import
    from unweave.report.pareto import pareto

    stage_rows, ids = rows(stage), metric_ids(stage)
    # brief metrics leave out the probes of a whole class, which do not fit a terminal
    main_ids = {*brief_metrics(stage), *(stage["margins"] or {})}
    main = [metric for metric in ids if metric in main_ids]
    top = headline(stage)
    return Stage(
        name=name if top is None or stage["recipe"] else title_of(top),
        anchor=anchor,
        record=stage,
        rows=stage_rows,
        headline=top,
        reference=next((row for row in stage_rows if row.status == "reference"), None),
        metrics=main,
        further=[metric for metric in ids if metric not in main],
        parts=gap_ids(stage),
        losses={method: Markup(svg) for method, svg in figures.losses(stage).items()},
        tradeoff=_markup(figures.tradeoff(stage)),
        conflict=_markup(figures.conflict(stage)),
        comparison=comparison_columns(stage_rows, ours_of(stage)),
        ranks=rank_stages([stage]),
        pareto=_markup(pareto(stage)),
        protocol=protocol_tables.grid(stage) if has_figures(stage) else None,
        attacks=attacks_of(stage),
        attack_curves={name: Markup(svg) for name, svg in figures.attack_curves(stage).items()},
        sheets=_sheets(stage_rows, stage.get("sheets", {})),
        qualification=audit_sentences(stage["qualified"]) if "qualified" in stage else [],
        concept=concept_of(stage, stage_rows, ids),
        image_attacks=list_image_attacks(ids),
        next_step="" if top is None or stage["recipe"] else step_after(top, stage),
        audited=top is None or NOT_AUDITED not in top.reason,
    )


def title_of(model: Row) -> str:
    """The title of a page about one model."""
    return f"{model.name}, not audited" if NOT_AUDITED in model.reason else f"Audit of {model.name}"


def step_after(model: Row, stage: Mapping[str, Any]) -> str:
    """What to do next about the one model of a stage."""
    return next_step(model.status, model.reason, family=stage.get("family"))


def _markup(svg: str | None) -> Markup | None:
    """A figure as part of the page; matplotlib escapes the names that it draws."""
    return None if svg is None else Markup(svg)


def _frontier(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The frontier of a recipe for the template."""
    from unweave.report.frontier_figure import figure

    return {
        "title": frontier.title(name),
        "conclusion": frontier.conclusion(content),
        "sentences": frontier.sentences(content),
        "figure": _markup(figure(content)),
        "shaded": bool(finite(content["margin"])),
        "tables": frontier.grids(content),
    }


def _sheets(stage_rows: list[Row], pictures: Mapping[str, str]) -> dict[str, str]:
    """Sheets of the original, the retrained model and the methods, from the nearest to the farthest."""
    methods = {row.name: row.name for row in stage_rows if row.kind == "method"}
    keys = {"original": "original", "Retrain": "retrained", **methods}
    return {name: pictures[key] for name, key in keys.items() if key in pictures}


def _glossary(stages: list[Stage]) -> list[Any]:
    """The library's entries for the metrics that appear on the page."""
    entries: dict[str, Any] = {}
    for stage in stages:
        library, ids = family_of_stage(stage.record).metrics, (*stage.metrics, *stage.further)
        entries |= {entry.says: entry for name, entry in library.items() if name in ids}
    return list(entries.values())


def _terms(stages: list[Stage]) -> list[tuple[str, str]]:
    """The terms of the figures on the first screen with their meanings, in the order of their first use."""
    metrics: dict[str, str] = {}
    for stage in stages:
        library = family_of_stage(stage.record).metrics
        for metric in stage.metrics if stage.concept is None else stage.concept.metrics:
            if metric in library:
                metrics.setdefault(metric, library[metric].says)
    gaps = [("Mean gap", meaning) for meaning in dict.fromkeys(stage.gap_says for stage in stages)]
    metric_terms = [(heading(metric), meaning) for metric, meaning in metrics.items()]
    return [*metric_terms, *gaps, ("Retrain", RETRAIN), ("F", FORGET)]
