"""A record's table for people: terminal, plain text, Markdown, LaTeX.

All show the rows of `rows.py`, so a failed method keeps its row. Intervals are 95 %, written as the
half-width after "±" or, if they are not symmetric, as both ends in brackets; the HTML page and Parquet give
both ends.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from unweave.families import family_of_stage
from unweave.record.record import explain_unverified
from unweave.report import attack_tables, frontier, table_formats
from unweave.report.numbers import DASH, digits, heading, interval, number, probability
from unweave.report.qualification_tables import audit_sentences
from unweave.report.ranking import ours_of
from unweave.report.rows import Row, gap_ids, headline, metric_ids, rows

BRACKETS = "±, or brackets: the 95 % interval; fewer than three seeds have none."
ONE_SEED = "With one seed the order of methods shows nothing."
_ON = {
    "proxy": "on proxy requests, drawn from the retain set",
    "retrain": "on the request itself",
}
_STYLES = {"PASS": "green", "FAIL": "red", "FAILED": "red", "INCONCLUSIVE": "yellow"}


def grid(stage: Mapping[str, Any], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of one stage as text, with a column for each of `metrics`."""
    all_rows = rows(stage)
    comparison = comparison_columns(all_rows, ours_of(stage))
    header = ["Method", "Verdict", "Gap", *comparison, *map(heading, metrics), "Cost", "Seconds"]
    return header, [
        _line(row, [each[i] for each in comparison.values()], metrics) for i, row in enumerate(all_rows)
    ]


def comparison_columns(all_rows: Sequence[Row], ours: str | None) -> dict[str, list[str]]:
    """The columns that compare methods, by heading, as far as the record has them."""
    columns = {
        f"p vs {ours}": [None if row.p is None else probability(row.p) for row in all_rows],
        "Rank": [None if row.rank is None else number(row.rank, 1) for row in all_rows],
    }
    return {name: [cell or DASH for cell in cells] for name, cells in columns.items() if any(cells)}


def brief_metrics(stage: Mapping[str, Any]) -> list[str]:
    """The stage's metric ids that the verdict or the mean gap uses: they fit a terminal."""
    ids, parts = metric_ids(stage), gap_ids(stage)
    library = family_of_stage(stage).metrics
    return [m for m in ids if m in parts or (m in library and library[m].primary)]


def legend(record: Mapping[str, Any], *, width: int | None = None) -> str:
    """The legend of a table's columns; with a width, of those that fit."""
    descriptions = {", ".join(map(heading, gap_ids(stage))): None for stage in record["stages"].values()}
    parts = " or ".join(each for each in descriptions if each)
    gap = f"Gap: mean |difference| from Retrain over {parts}, points. " if parts else ""
    aims = " ".join(dict.fromkeys(aim(stage) for stage in record["stages"].values()))
    cost = f"Cost: relative to one retrain. {BRACKETS}"
    verdict = _verdict_legend(record)
    return f"{gap}{verdict}{_comparison_legend(record, width)}{cost} {aims}{single_seed_note(record)}"


def _verdict_legend(record: Mapping[str, Any]) -> str:
    """The metrics that a verdict tests: those of the tables by name."""
    titles = {
        heading(metric): None
        for stage in record["stages"].values()
        for metric in brief_metrics(stage)
        if (entry := family_of_stage(stage).metrics.get(metric)) is not None and entry.primary
    }
    separator = "; " if any("," in each for each in titles) else ", "
    others = ", and on probes and attacks that the report shows" if has_probes(record) else ""
    return f"Verdict: on {separator.join(titles)}{others}. Other figures are only shown. " if titles else ""


def has_probes(record: Mapping[str, Any]) -> bool:
    """Whether models, and not only their answers, were measured."""
    return any(
        metric in stage["reference"]["scores"]
        for stage in record["stages"].values()
        for metric, entry in family_of_stage(stage).metrics.items()
        if entry.needs_model
    )


def _comparison_legend(record: Mapping[str, Any], width: int | None) -> str:
    """The legend of the columns that compare methods, if there are any."""
    headings = {name for stage in record["stages"].values() for name in _headings(stage, width)}
    test = "p: paired Wilcoxon test of the gap, with Holm's correction. "
    rank = "Rank: mean over seeds, by the gap; what failed shares the last. "
    has_test = any(name.startswith("p vs ") for name in headings)
    return f"{test if has_test else ''}{rank if 'Rank' in headings else ''}"


def _headings(stage: Mapping[str, Any], width: int | None) -> list[str]:
    header, lines = grid(stage, brief_metrics(stage))
    return header if width is None else [header[i] for i in fitting_columns(header, lines, width)]


def aim(stage: Mapping[str, Any]) -> str:
    """A sentence on good values, by the family of the stage."""
    return family_of_stage(stage).aim


def single_seed_note(record: Mapping[str, Any]) -> str:
    """A note that an order by a single seed shows nothing, if there is one."""
    return f" {ONE_SEED}" if any(is_ordered_by_one_seed(stage) for stage in record["stages"].values()) else ""


def is_ordered_by_one_seed(stage: Mapping[str, Any]) -> bool:
    """Whether several methods are ordered by a single seed."""
    return len(stage["seeds"]) == 1 and sum(row.kind == "method" for row in rows(stage)) > 1


def terminal(stage: Mapping[str, Any], *, width: int = 100) -> Table:
    """One stage as a rich table; intervals go below numbers if columns are scarce.

    Args:
        stage: A stage of a record.
        width: The width in characters; too few hold neither the tests nor the ranks.
    """
    header, lines = grid(stage, brief_metrics(stage))
    columns = fitting_columns(header, lines, width)
    lines = [[line[i] for i in columns] for line in lines]
    table = table_formats.columns([header[i] for i in columns], lines, words=2, width=width)
    for row, line in zip(rows(stage), lines, strict=True):
        texts = table_formats.texts(line)
        texts[1].stylize(_STYLES.get(row.status, ""))
        table.add_row(*texts, style="bold" if row.best else None)
    return table


def fitting_columns(header: Sequence[str], lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns that fit; never the seconds, since the cost gives the same relative to a retrain."""
    longest = list(map(table_formats.longest_word, zip(header, *lines, strict=True)))
    columns = list(range(len(header) - 1))
    for spare in [i for i in columns if header[i].startswith("p vs ") or header[i] == "Rank"]:
        if sum(longest[i] + 1 for i in columns) > width + 1:  # the last column has no padding
            columns.remove(spare)
    return columns


def text(record: Mapping[str, Any], *, width: int = 100) -> str:
    """The frontiers, then every stage as plain text: verdict and reason, the table, and failures.

    Args:
        record: A valid record.
        width: The width in characters.
    """
    frontiers = [
        line
        for name, each in record.get("frontier", {}).items()
        for line in frontier.text(name, each, width=width)
    ]
    stages = [_stage_text(name, stage, width) for name, stage in record["stages"].items()]
    notes = [f"{line}\n" for line in [explain_unverified(record)] if line]
    return "\n".join([*notes, *frontiers, *stages, *table_formats.wrap([legend(record, width=width)], width)])


def markdown(record: Mapping[str, Any]) -> str:
    """Every stage as a Markdown heading, its verdict and its table: a section of a model card."""
    frontiers = [
        part for name, each in record.get("frontier", {}).items() for part in frontier.markdown(name, each)
    ]
    parts = [
        table
        for name, stage in record["stages"].items()
        for table in (
            table_formats.markdown(name, sentences(stage), *grid(stage, metric_ids(stage)), words=2),
            *_attacks_markdown(name, stage),
        )
    ]
    notes = [table_formats.escape(line) for line in [explain_unverified(record)] if line]
    return "\n\n".join([*notes, *frontiers, *parts, table_formats.escape(legend(record))]) + "\n"


def latex(record: Mapping[str, Any]) -> str:
    """Every stage as a booktabs tabular; bold is the method closest to Retrain of those with no FAIL."""
    notes = [f"% {line}" for line in [explain_unverified(record)] if line]
    frontiers = [
        part for name, each in record.get("frontier", {}).items() for part in frontier.latex(name, each)
    ]
    return "\n\n".join([*notes, *frontiers, *(_tabular(*each) for each in record["stages"].items())]) + "\n"


def sentences(stage: Mapping[str, Any]) -> list[str]:
    """Sentences on the headline's verdict, the floor, the search of settings, and failures."""
    top = headline(stage)
    failed_rows = [row for row in rows(stage) if row.status == "FAILED" and row != top]
    verdicts = [f"{row.name}: {row.status}: {row.reason}" for row in [top, *failed_rows] if row is not None]
    partial = ["Partial run: no verdict."] if stage.get("partial", False) else []
    gap = number(stage.get("floor"))
    floor = [] if gap == DASH else [f"Two retrained models differ by a mean gap of {gap}."]
    qualification = audit_sentences(stage["qualified"]) if "qualified" in stage else []
    return [*partial, *verdicts[:1], *qualification, *floor, *search_sentences(stage), *verdicts[1:]]


def search_sentences(stage: Mapping[str, Any]) -> list[str]:
    """Sentences on the search of settings; none without a search."""
    if "tuned" not in stage:
        return []
    search = stage["tuned"]
    seeds = ", ".join(map(str, search["seeds"]))
    cost = "a retraining"  # records of older versions lack the cost
    if "retraining" in search:
        cost = f"the {search['retraining']} gradient evaluations of {cost}"
    logs = stage.get("search", {})
    methods = [name for name, log in logs.items() if log and all(trial["value"] is None for trial in log)]
    notes = [f"No trial of {' and of '.join(methods)} finished: the settings are those of the start."]
    return [
        f"Settings were searched with {search['trials']} trials per method {_ON[search['against']]}, "
        f"on seeds {seeds}, each within {search['budget']:g} times {cost}.",
        *(notes if methods else []),
    ]


def _line(row: Row, comparison: Sequence[str], metrics: Sequence[str]) -> list[str]:
    cells = [row.scores.get(metric) for metric in metrics]
    figures = [
        DASH if cell is None else interval(cell.value, cell.low, cell.high, digits(metric))
        for metric, cell in zip(metrics, cells, strict=True)
    ]
    gap = interval(row.gap.mean, row.gap.low, row.gap.high, 2)
    return [row.name, row.status, gap, *comparison, *figures, number(row.cost), number(row.seconds)]


def _stage_text(name: str, stage: Mapping[str, Any], width: int) -> str:
    table = table_formats.plain_lines(terminal(stage, width=width))
    notes = table_formats.wrap(sentences(stage), width)
    attack_lines = [*_attacks_text(stage, width), *attacked_methods_text(stage, width)]
    return "\n".join([name, *notes, "", *table, "", *attack_lines])


def attacked_methods_text(stage: Mapping[str, Any], width: int) -> list[str]:
    """The attacks on every method as lines; none without."""
    if not stage.get("attacked_methods"):
        return []
    table = attack_tables.method_grid(stage["attacked_methods"])
    notes = table_formats.wrap([attack_tables.METHODS_SENTENCE], width)
    return [*notes, "", *table_formats.text_lines(*table, words=2, width=width), ""]


def _attacks_text(stage: Mapping[str, Any], width: int) -> list[str]:
    """The attacks of an audit as lines; none without."""
    if "attacks" not in stage:
        return []
    header, lines = attack_tables.brief_grid(stage["attacks"])
    table = table_formats.text_lines(header, lines, words=1, width=width) if lines else []
    return [*table, "", *table_formats.wrap(attack_tables.sentences(stage["attacks"]), width), ""]


def _attacks_markdown(name: str, stage: Mapping[str, Any]) -> list[str]:
    """The attacks of an audit or a benchmark as a heading, sentences and a table; nothing without."""
    title, parts = f"{name}: attacks", []
    if "attacks" in stage:
        notes, table = attack_tables.sentences(stage["attacks"]), attack_tables.grid(stage["attacks"])
        parts.append(table_formats.markdown(title, notes, *table, words=attack_tables.WORDS))
    if stage.get("attacked_methods"):
        table = attack_tables.method_grid(stage["attacked_methods"])
        parts.append(table_formats.markdown(title, [attack_tables.METHODS_SENTENCE], *table, words=2))
    return parts


def _tabular(name: str, stage: Mapping[str, Any]) -> str:
    best_rows = [i for i, row in enumerate(rows(stage)) if row.best]
    return table_formats.tabular(name, *grid(stage, metric_ids(stage)), words=2, bold=best_rows)
