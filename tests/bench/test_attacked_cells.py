"""Attacks of a benchmark: those of an audit, on the answers of every cell."""

from dataclasses import replace

import pytest

from bench.tiny import tiny
from for_each import for_each
from unweave.audits.attack import ModelAnswers
from unweave.audits.attacks import ATTACKS
from unweave.audits.classifier import parquet
from unweave.bench.attacked_cells import answer_attacks
from unweave.bench.bench import bench
from unweave.record import record
from unweave.report import html, tables

NAMES = "forget-vs-unseen,functional-distance"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A benchmark that attacks."""
    folder = tmp_path_factory.mktemp("attacked")
    bench([tiny()], folder, methods=["finetune"], attacks=answer_attacks(NAMES), jobs=1)
    return folder, record.load(folder)["stages"]["tiny"]


def test_its_figures_are_those_of_an_audit_of_each_model(run):
    folder, stage = run
    answers = {
        name: [ModelAnswers(parquet.load(folder / f"cells/tiny/{seed}/{name}.parquet")) for seed in (0, 1)]
        for name in ("finetune", "original", "retrained")
    }
    assert {row["attack"] for row in stage["attacked_methods"]} == set(NAMES.split(","))
    for row in stage["attacked_methods"]:
        figures = ATTACKS[row["attack"]].figures
        assert figures is not None
        for name in ("finetune", "original"):
            values = [figures(each, answers["retrained"])[row["figure"]].value for each in answers[name]]
            assert row["methods"][name] == pytest.approx(values)
        one, other = answers["retrained"]
        values = [figures(one, [other])[row["figure"]].value, figures(other, [one])[row["figure"]].value]
        assert row["retrained"] == pytest.approx(values)


def test_few_models_fix_no_margin_and_nothing_is_found(run):
    for row in run[1]["attacked_methods"]:
        assert row["margin"] is None
        assert all(each is None for findings in row["findings"].values() for each in findings)


def test_every_report_shows_them(run):
    content = record.load(run[0])
    for text in (html.render(content), tables.text(content), tables.markdown(content)):
        assert "functional-distance" in text and "auc of margin" in text


@for_each(
    ("names", "sentence"),
    [("representation", "found representation"), ("u-lira", "found u-lira"), ("rmi", "unknown attack")],
)
def test_attacks_that_need_more_than_answers_are_refused(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        answer_attacks(names)


def test_groups_hold_those_of_answers():
    assert {each.name for each in answer_attacks("default")} >= {"forget-vs-unseen", "rmia"}
    assert all(each.examine is None and each.figures is not None for each in answer_attacks("all"))


def test_one_seed_is_refused_before_anything_is_trained(tmp_path):
    one = replace(tiny(), seeds=(0,))
    with pytest.raises(ValueError, match="at least 2 seeds, found 1"):
        bench([one], tmp_path / "run", attacks=answer_attacks(NAMES), jobs=1)
    assert not (tmp_path / "run").exists()
