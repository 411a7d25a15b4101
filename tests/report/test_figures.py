"""Figures are deterministic SVG that a page can hold many of, and draw what the record holds."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from for_each import for_each
from records import put, synthetic
from report.words import words
from unweave.report import figures
from unweave.report.labels import leader, place


@pytest.fixture
def stage():
    return synthetic()["stages"]["trace"]


@pytest.fixture(scope="module")
def pictures():
    stage = synthetic()["stages"]["trace"]
    return [figures.tradeoff(stage), figures.conflict(stage), *figures.losses(stage).values()]


def test_every_figure_is_one_svg_element_with_a_label(pictures):
    for svg in pictures:
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg" and root.attrib["role"] == "img" and root.attrib["aria-label"]
        assert "width" not in root.attrib and "viewBox" in root.attrib


def test_the_same_stage_gives_the_same_bytes(stage, pictures):
    assert [figures.tradeoff(stage), figures.conflict(stage), *figures.losses(stage).values()] == pictures


def test_figures_refer_to_their_own_ids_only(pictures):
    for svg in pictures:
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(ids)


def test_colours_are_the_pages_variables_with_a_fallback(pictures):
    svg = pictures[0]
    assert "var(--series-0, #0072b2)" in svg and "var(--ink, #1d1d1f)" in svg
    assert not re.findall(r"(?<!, )#0072b2", svg)


def test_losses_come_for_each_method_that_has_a_histogram(stage):
    assert list(figures.losses(stage)) == ["original", "lur-match", "lur", "ascent"]
    assert figures.losses({**stage, "histograms": {}}) == {}


def test_losses_are_shares_that_sum_to_one_whatever_the_number_of_examples(stage):
    histograms = stage["histograms"]
    tenfold = {name: each | {"counts": [10 * n for n in each["counts"]]} for name, each in histograms.items()}
    assert figures.losses({**stage, "histograms": tenfold}) == figures.losses(stage)


def test_an_empty_histogram_is_drawn_without_dividing_by_zero(stage):
    empty = {name: {"edges": [0.0, 1.0, 2.0], "counts": [0, 0]} for name in ("lur", "retrain")}
    assert list(figures.losses({**stage, "histograms": empty})) == ["lur"]


def test_the_tradeoff_names_every_method_that_ran_and_no_other(stage, pictures):
    labels = set(words(pictures[0]))
    names = {name for name, method in stage["methods"].items() if method["failed"] is None}
    assert names - {"retrain"} <= labels
    assert not {"diverged", "retrain"} & labels


def test_a_method_that_failed_is_not_drawn_whatever_its_numbers_say(stage):
    assert "ascent" not in words(figures.tradeoff(put(stage, "methods", "ascent", "failed", value="stopped")))


def test_no_tradeoff_without_a_finite_difference(stage):
    methods = {"diverged": stage["methods"]["diverged"]}
    assert figures.tradeoff({**stage, "methods": methods}) is None


def test_the_box_of_margins_is_drawn_where_there_are_margins(stage, pictures):
    assert "series-2" in pictures[0]
    assert "series-2" not in figures.tradeoff({**stage, "margins": None})


def test_the_conflict_is_drawn_from_curves_with_a_reliability_alone(stage):
    assert {"lur", "lur-exact", "lur-match", "joint"} <= set(words(figures.conflict(stage)))
    for method in stage["methods"].values():
        method["trace"] = {"nll(retain)": [[0, 1.0, None], [1, 0.5, None]]}
    assert figures.conflict(stage) is None


def test_a_curve_may_have_holes(stage):
    points = [[0, 0.1, 0.9], [1, None, None], [2, 0.3, 0.8]]
    assert "lur" in words(figures.conflict(put(stage, "methods", "lur", "trace", value={"cosine": points})))


def test_names_are_drawn_as_they_are(stage):
    name = "a$b$<script>&\\1"
    stage["methods"][name] = stage["methods"].pop("lur")
    assert name in words(figures.tradeoff(stage))
    assert name in words(figures.conflict(stage))


def test_a_long_name_leaves_room_for_the_drawing(stage):
    stage["methods"]["n" * 200] = stage["methods"].pop("lur")
    for svg in (figures.tradeoff(stage), figures.conflict(stage)):
        assert "n" * 23 + "…" in words(svg)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1000)), min_size=1, max_size=12))
def test_labels_keep_their_size_and_stay_near_their_points(points):
    corners = place(points, [(30.0, 10.0)] * len(points), (0.0, 0.0, 1000.0, 1000.0), gap=4.0)
    assert len(corners) == len(points)
    for (x, y), (left, bottom) in zip(points, corners, strict=True):
        assert x - 34.001 <= left <= x + 4.001 and y - 35 <= bottom <= y + 35


def test_two_labels_at_one_point_do_not_overlap():
    (a, b), (c, d) = place([(500.0, 500.0)] * 2, [(60.0, 10.0)] * 2, (0.0, 0.0, 1000.0, 1000.0), gap=4.0)
    assert abs(a - c) >= 60 or abs(b - d) >= 10


def test_a_label_leaves_a_kept_point_uncovered():
    point = (530.0, 500.0)
    ((left, bottom),) = place(
        [(500.0, 500.0)], [(60.0, 10.0)], (0.0, 0.0, 1000.0, 1000.0), gap=4.0, keep=[point]
    )
    assert not (left <= point[0] <= left + 60 and bottom <= point[1] <= bottom + 10)


@for_each(
    ("point", "end"),
    [((0.0, 105.0), (10.0, 105.0)), ((40.0, 0.0), (40.0, 100.0)), ((90.0, 90.0), (70.0, 100.0))],
)
def test_a_leader_ends_at_the_nearest_place_of_its_label(point, end):
    assert leader(point, (10.0, 100.0), (60.0, 10.0)) == end


def test_a_label_at_the_edge_turns_inward():
    ((left, _),) = place([(995.0, 500.0)], [(60.0, 10.0)], (0.0, 0.0, 1000.0, 1000.0), gap=4.0)
    assert left + 60 <= 1000
