"""The figures that compare methods: ranks with their critical difference, and gap against time."""

from xml.etree import ElementTree

import pytest

from for_each import for_each
from records import put, synthetic
from report.words import words
from unweave.report import html
from unweave.report.diagram import critical_difference, levels
from unweave.report.pareto import beats, find_undominated, front, pareto, round_between
from unweave.report.ranking import rank_stages
from unweave.report.ranks import Ranking


@pytest.fixture(scope="module")
def stage():
    return synthetic()["stages"]["trace"]


@pytest.fixture(scope="module")
def pictures(stage):
    return [critical_difference(rank_stages([stage])), pareto(stage)]


def test_they_are_svg_with_a_label_and_the_same_bytes_each_time(stage, pictures):
    for svg in pictures:
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg" and root.attrib["role"] == "img" and root.attrib["aria-label"]
    assert [critical_difference(rank_stages([stage])), pareto(stage)] == pictures


def test_the_diagram_names_every_competitor_and_the_critical_difference(stage, pictures):
    labels, ranking = words(pictures[0]), rank_stages([stage])
    assert set(ranking.ranks) <= set(labels) and "diverged" in labels
    assert not {"original", "retrain"} & set(labels)
    assert f"critical difference {ranking.critical:.2f}" in labels


def test_a_difference_that_the_axis_can_not_hold_is_told():
    (label,) = [
        text for text in words(critical_difference(Ranking({"a": 1.0, "b": 2.0}, 2))) if "crit" in text
    ]
    assert label == "critical difference 1.39: wider than the axis"


def test_bars_that_do_not_touch_share_a_line():
    ranking = Ranking({"a": 1.0, "b": 1.5, "c": 4.9, "d": 5.0, "e": 2.3}, 20)
    ranking = Ranking(dict(sorted(ranking.ranks.items(), key=lambda item: item[1])), 20)
    assert ranking.groups == [("a", "b", "e"), ("c", "d")]
    assert levels(ranking) == [[(1.0, 2.3), (4.9, 5.0)]]
    chained = Ranking({"a": 1.4, "b": 2.0, "c": 2.6}, 12)
    assert levels(chained) == [[(1.4, 2.0)], [(2.0, 2.6)]]


def test_the_plot_of_gap_and_time_names_what_took_time_and_no_other(stage, pictures):
    labels = set(words(pictures[1]))
    names = {name for name, row in stage["methods"].items() if row["failed"] is None}
    assert names - {"retrain"} <= labels and not {"diverged", "retrain"} & labels
    assert {"original", "two retrained models", "TA below Retrain's, points"} <= labels


@pytest.mark.parametrize(
    ("key", "value"), [("cost", 0.0), ("cost", None), ("failed", "stopped"), ("gap", None)]
)
def test_what_has_no_place_is_not_drawn(stage, key, value):
    assert "ascent" not in words(pareto(put(stage, "methods", "ascent", key, value=value)))


def test_one_method_is_no_comparison(stage):
    pair = {**stage, "methods": {name: stage["methods"][name] for name in ("lur", "original")}}
    assert pareto(pair) is None


def test_the_front_by_hand():
    points = {"a": (1.0, 5.0), "b": (2.0, 6.0), "c": (3.0, 1.0), "d": (3.0, 1.0), "e": (4.0, 0.5)}
    assert find_undominated(points) == ["a", "c", "d", "e"]
    assert front([(3.0, 1.0), (1.0, 5.0), (4.0, 0.5)]) == [
        (1.0, 5.0), (3.0, 5.0), (3.0, 1.0), (4.0, 1.0), (4.0, 0.5)
    ]  # fmt: skip
    assert beats((1.0, 1.0), (1.0, 2.0)) and not beats((1.0, 1.0), (1.0, 1.0))


@for_each(
    ("ends", "found"),
    [((0.02, 3.0), [0.1, 1.0]), ((0.05, 40.0), [0.1, 1.0, 10.0]), ((1.2, 2.5), [1.5, 2.0])],
)
def test_ticks_are_round_and_enough(ends, found):
    assert set(found) <= set(round_between(*ends)) and len(round_between(*ends)) >= min(3, len(found))


def test_the_page_shows_both_and_the_ranks_over_all_stages():
    record = synthetic()
    for name in ("trace", "class"):
        methods = record["stages"][name]["methods"]
        record["stages"][name]["methods"] = {each: methods[each] for each in ("lur", "finetune", "original")}
    assert "Ranks over all stages" not in html.render(record)  # two stages of one seed and one data set
    record["stages"]["class"]["data"]["digest"] = "cd" * 32
    page = html.render(record)
    assert "over 12 seeds of 2 stages" in page and page.count("Gap against time:") == 2
    assert page.count("Mean ranks of 2 methods by their mean gap") == 3
