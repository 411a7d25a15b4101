"""One table in five forms: each keeps every row and its numbers, none breaks on a hostile name."""

import re

import pytest
from pyarrow.parquet import read_table

from for_each import for_each
from records import cheap_to_draw, synthetic
from unweave.audits.diffusion.metrics import GENERATION
from unweave.report import html, tables
from unweave.report.numbers import DASH, number
from unweave.report.parquet import parquet
from unweave.report.rows import rows
from unweave.report.tables import aim

HOSTILE = "a|b_&<script>$x$\\%#{}~^"


@pytest.fixture
def record():
    return synthetic()


@pytest.fixture
def hostile(record):
    methods = record["stages"]["trace"]["methods"]
    methods[HOSTILE] = methods.pop("lur")
    return record


def primary(score_of):
    return [
        number(score_of[metric]["value"], digits)
        for metric, digits in (("ua", 2), ("ra", 2), ("ta", 2), ("auc", 3))
    ]


@for_each("render", [tables.text, tables.markdown, tables.latex])
def test_every_method_is_in_every_form_with_its_numbers(record, render):
    lines = render(record).splitlines()
    for name, method in record["stages"]["trace"]["methods"].items():
        expected = [name, *primary(method["scores"])]
        expected_cells = [
            line.replace(r"\textbf{" + name + "}", name).replace("$-$", "-").replace("--", DASH)
            for line in lines
        ]
        assert any(all(part in line for part in expected) for line in expected_cells), expected


@for_each("render", [tables.text, tables.markdown, tables.latex])
def test_a_failed_method_keeps_its_row_and_says_so(record, render):
    row = [line for line in render(record).splitlines() if "diverged" in line][-1].replace("--", DASH)
    assert "FAILED" in row and row.count(DASH) >= 8 and "nan" not in row.lower()


def test_text_says_the_verdict_before_the_table(record):
    text = tables.text(record)
    assert text.startswith("trace\nlur: PASS: every tested figure")
    assert text.index("lur: PASS") < text.index("Method")
    assert "lur: INCONCLUSIVE: no verdict: 2 seeds, 10 needed" in text
    assert "diverged: FAILED: the loss of nll(forget) is NaN at step 17" in text


@for_each("width", [80, 100, 140])
def test_text_fits_its_width_and_cuts_nothing(record, width):
    text = tables.text(record, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_a_partial_stage_says_that_it_has_no_verdict(record):
    record["stages"]["trace"]["partial"] = True
    assert tables.text(record).startswith("trace\nPartial run: no verdict.")


def test_markdown_rows_have_as_many_cells_as_the_header(hostile):
    for part in tables.markdown(hostile).split("\n## "):
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1 and len(table) > 4
    assert "<script>" not in tables.markdown(hostile)


def test_latex_rows_have_as_many_cells_as_columns_and_hold_no_bare_special(hostile):
    text = tables.latex(hostile)
    for part in text.split("\n\n"):
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", part)[1]
        body = [line for line in part.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {len(columns) - 1}
    assert r"a$|$b\_\&$<$script$>$\$x\$\textbackslash{}\%\#\{\}\textasciitilde{}\textasciicircum{}" in text


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_line_break_in_a_stages_name_stays_in_its_heading(record, end):
    record["stages"][f"one{end}# two"] = record["stages"].pop("trace")
    heading = next(line for line in tables.markdown(record).splitlines() if "two" in line)
    assert heading.startswith("## one")


def test_latex_prints_only_the_best_bold(record):
    assert re.findall(r"\\textbf\{(.*?)\}", tables.latex(record)) == ["lur-match", "lur"]


def test_a_line_break_in_a_stages_name_stays_in_its_comment(record):
    record["stages"]["one\n\\input{x}"] = record["stages"].pop("trace")
    assert r"% one \input{x}" in tables.latex(record)


def test_parquet_holds_the_records_own_numbers(record, tmp_path):
    table_rows = read_table(parquet(record, tmp_path / "table.parquet")).to_pylist()
    row_of_score = {(line["stage"], line["method"], line["metric"]): line for line in table_rows}
    for name, method in record["stages"]["trace"]["methods"].items():
        for metric, score in method["scores"].items():
            line = row_of_score["trace", name, metric]
            if method["failed"] is None:
                assert (line["value"], line["low"], line["difference"]) == (
                    score["value"],
                    score["low"],
                    score["gap"],
                )
                assert [line["null_low"], line["null_high"]] == score["null_band"]
            assert (line["n"], line["cost"]) == (score["n"], method["cost"])


def test_parquet_keeps_failures_as_rows_with_nulls(record, tmp_path):
    record["stages"]["trace"]["methods"]["diverged"]["scores"] = {}
    table_rows = read_table(parquet(record, tmp_path / "table.parquet")).to_pylist()
    (line,) = [line for line in table_rows if line["method"] == "diverged"]
    assert line["failed"] and line["metric"] is None and line["value"] is None and line["mean_gap"] is None


def test_the_terminal_table_has_a_row_for_each_row(record):
    stage = record["stages"]["trace"]
    assert tables.terminal(stage).row_count == len(rows(stage))


def test_one_seed_orders_nothing(record):
    sentence = "With one seed the order of methods shows nothing."
    assert sentence not in tables.legend(record) and sentence not in html.render(cheap_to_draw(record))
    record["stages"]["trace"]["seeds"] = [0]
    assert sentence in tables.legend(record) and sentence in html.render(cheap_to_draw(record))
    assert "\\textbf" not in tables.latex({"stages": {"trace": record["stages"]["trace"]}})
    assert "p vs" not in tables.latex({"stages": {"trace": record["stages"]["trace"]}})


def test_a_generators_retained_figures_may_be_better_than_retrains(record):
    sentence = "none is better when larger"
    assert sentence in tables.legend(record) and sentence in html.render(cheap_to_draw(record))
    generator = {"reference": {"scores": {}}, "methods": {"lur": {"scores": dict.fromkeys(GENERATION)}}}
    assert aim(generator) == (
        "On the forgotten condition Retrain is the target; on the rest, no worse than Retrain."
    )


def test_tests_and_ranks_are_columns_where_they_fit(record):
    header = next(line for line in tables.text(record).splitlines() if line.startswith("Method"))
    assert header.split()[:5] == ["Method", "Verdict", "Gap", "lur", "Rank"]
    (line_of_joint,) = (line for line in tables.text(record).splitlines() if line.startswith("joint "))
    assert line_of_joint.split()[3:5] == ["<0.001", "9.0"]
    narrow = next(line for line in tables.text(record, width=80).splitlines() if line.startswith("Method"))
    assert narrow.split()[:4] == ["Method", "Verdict", "Gap", "Rank"]
    assert "$<$0.001 & 9.0" in tables.latex(record)


def test_the_legend_names_what_a_verdict_tests(record):
    assert "Verdict: on UA, RA, TA, AUC, TV on F. Other figures are only shown." in tables.legend(record)
    scores = record["stages"]["class"]["reference"]["scores"]
    scores["probe"] = scores["ua"]
    titles = "UA, RA, TA, AUC, TV on F, and on probes and attacks that the report shows"
    assert f"Verdict: on {titles}. Other figures are only shown." in tables.legend(record)


@for_each("width", [40, 80, 100])
def test_the_legend_explains_the_columns_that_fit_and_no_others(record, width):
    record["stages"] = {"trace": record["stages"]["trace"]}
    text = tables.text(record, width=width)
    header = next(line for line in text.splitlines() if line.startswith("Method")).split()
    legend = " ".join(text.split())
    assert ("p: paired" in legend, "Rank: mean" in legend) == ("lur" in header, "Rank" in header)


def test_parquet_holds_tests_and_ranks(record, tmp_path):
    table_rows = read_table(parquet(record, tmp_path / "table.parquet")).to_pylist()
    ranks = {
        line["method"]: (line["p_holm"], line["mean_rank"]) for line in table_rows if line["stage"] == "trace"
    }
    assert ranks["joint"] == (0.0004, 9.0) and ranks["original"] == (None, None)


def test_a_record_of_an_older_version_keeps_its_table(record):
    for stage in record["stages"].values():
        stage.pop("comparisons", None)
        for row in stage["methods"].values():
            row.pop("per_seed", None)
    assert tables.grid(record["stages"]["trace"], ["ua"])[0] == [
        "Method", "Verdict", "Gap", "UA", "Cost", "Seconds"
    ]  # fmt: skip
    assert "Rank:" not in tables.legend(record) and "Wilcoxon" not in tables.legend(record)


@for_each("width", [60, 100])
def test_the_last_column_is_whole_where_intervals_are_wide(record, width):
    for method in record["stages"]["trace"]["methods"].values():
        for score in method["scores"].values():
            score["low"], score["high"] = score["value"] - 123.456, score["value"] + 123.456
    header, lines = tables.grid(record["stages"]["trace"], [])
    ends = {line[0]: line[-2] for line in lines}
    for line in tables.text(record, width=width).split("Method ")[1].splitlines():
        if line.split(" ")[0] in ends:
            assert line.endswith(f" {ends.pop(line.split(' ')[0])}")
    assert header[-2] == "Cost" and not ends
