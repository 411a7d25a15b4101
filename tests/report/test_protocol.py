"""The columns of Deep Unlearn in a table: what they average, how they order, and what they refuse."""

import math

import pytest
from pyarrow import parquet

from for_each import for_each
from records import synthetic
from unweave.report import html, protocol_tables
from unweave.report.protocol import figures_of, ranks_of, refuse_unmeasured, summarise, summary


def stage_of(**methods):
    """A stage of two seeds; by method, pairs of (retention, indiscernibility, cost), None if it failed."""
    stage = synthetic()["stages"]["class"]
    row = stage["methods"]["lur"]
    stage["methods"] = {name: with_figures(row, figures) for name, figures in methods.items()}
    return stage


def with_figures(row, figures):
    if figures is None:
        return {key: row[key] for key in row if key != "per_seed"} | {"failed": "no convolutions"}
    retentions, hidden, costs = (list(column) for column in zip(*figures, strict=True))
    retained = dict.fromkeys(("retain_retention", "forget_retention", "test_retention"), retentions)
    return row | {"per_seed": {**retained, "indiscernibility": hidden, "t_mia": hidden, "cost": costs}}


def test_a_figure_is_mean_and_standard_deviation_over_the_seeds_with_a_number():
    assert summarise([1.0, 3.0]) == {"mean": 2.0, "deviation": pytest.approx(math.sqrt(2)), "n": 2}
    assert summarise([1.0, None]) == {"mean": 1.0, "deviation": None, "n": 1}
    assert summarise([None, math.nan]) == {"mean": None, "deviation": None, "n": 0}


def test_a_retrain_has_retention_and_speed_up_one_and_the_original_no_speed():
    perfect_figures = [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0)]
    values = figures_of(
        stage_of(retrain=perfect_figures, original=[(1.0, 0.5, 0.0)] * 2, lur=[(0.9, 0.8, 0.5)] * 2)
    )
    assert {each["mean"] for each in values["retrain"].values()} == {1.0}
    assert values["original"]["speed_up"]["n"] == 0 and values["lur"]["speed_up"]["mean"] == 2.0


def test_speed_up_is_the_mean_of_the_seeds_ratios():
    values = figures_of(stage_of(lur=[(1.0, 1.0, 0.5), (1.0, 1.0, 0.25)]))
    assert values["lur"]["speed_up"]["mean"] == 3.0  # and not 1 / 0.375


def test_methods_rank_by_both_retentions_and_indiscernibility_and_what_failed_last():
    stage = stage_of(
        msg=[(1.0, 0.9, 0.5)] * 2,  # the best and the second
        ct=[(0.9, 0.8, 0.5)] * 2,  # the second and the last of those that ran
        ascent=[(1.2, 1.0, 0.5)] * 2,  # the last and the best
        salun=None,
    )
    assert ranks_of(stage) == {"msg": 1.5, "ascent": 2.0, "ct": 2.5, "salun": 4.0}
    agreement = summary({"stages": {"one": stage}})["agreement"]
    # msg-ascent as published, ct-ascent not; what could not be run has no place in that order
    assert agreement == {"tau": 0.0, "pairs": 2}


def test_a_retention_that_is_not_defined_is_left_out_of_the_order():
    stage = stage_of(msg=[(1.0, 0.9, 0.5)] * 2, ct=[(0.9, 0.8, 0.5)] * 2)
    for row in stage["methods"].values():
        row["per_seed"]["forget_retention"] = [None, None]
    assert ranks_of(stage) == {"msg": 1.0, "ct": 2.0}
    assert protocol_tables.grid(stage)[1][0][2] == "–"


@for_each("draw", [protocol_tables.text, protocol_tables.markdown, protocol_tables.latex])
def test_every_form_has_every_method_and_says_why_one_failed(draw):
    record = {
        "stages": {"one": stage_of(msg=[(1.0, 0.9, 0.5)] * 2, salun=None, original=[(1.0, 0.5, 0.0)] * 2)}
    }
    text = draw(record)
    assert all(name in text for name in ("msg", "salun", "original", "1.000", "2.000"))
    (line,) = [line for line in text.splitlines() if "salun" in line and "no convolutions" not in line]
    assert "FAILED" in line
    if draw is not protocol_tables.latex:
        assert "salun: FAILED: no convolutions" in text and "2 seeds; the protocol has 10." in text
        assert "it decides the order of no two of these methods" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100])
def test_text_fits_its_width(width):
    text = protocol_tables.text(synthetic(), width=width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text


def test_parquet_has_the_numbers_and_the_failures(tmp_path):
    record = {"stages": {"one": stage_of(msg=[(1.0, 0.9, 0.5), (0.5, 0.9, 0.5)], salun=None)}}
    rows = parquet.read_table(protocol_tables.parquet(record, tmp_path / "table.parquet")).to_pylist()
    cells = {(row["method"], row["figure"]): row for row in rows}
    assert cells["msg", "test_retention"]["mean"] == 0.75 and cells["msg", "speed_up"]["n"] == 2
    assert cells["salun", None]["failed"] == "no convolutions"


def test_a_stage_without_the_figures_is_refused_by_name_and_has_a_page_without_them():
    record = synthetic()
    refuse_unmeasured(record)
    assert "The columns of Deep Unlearn" in html.render(
        {**record, "stages": {"class": record["stages"]["class"]}}
    )
    for row in record["stages"]["class"]["methods"].values():
        del row["per_seed"]
    with pytest.raises(ValueError, match="stage 'class' has no figures of deep-unlearn"):
        refuse_unmeasured(record)
    assert "Deep Unlearn" not in html.render({**record, "stages": {"class": record["stages"]["class"]}})
