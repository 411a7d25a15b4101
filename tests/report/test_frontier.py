"""The frontier is shown in every form, with the numbers of the record and whatever names it has."""

import re

import pytest
from markupsafe import escape

from records import at_budgets, cheap_to_draw, put
from report.words import words
from unweave.bench.frontier import cost_of_pass, frontier
from unweave.report import html, tables
from unweave.report.frontier import TO_BEAT, conclusion, grid, order_methods, paired_grid, spent_grid
from unweave.report.frontier_figure import BEST, figure, finite_points
from unweave.report.numbers import interval, number

HOSTILE = "shrink:<script>$x$+b"


@pytest.fixture
def record():
    return at_budgets(0.1, 0.3, 0.6)


@pytest.fixture
def trace(record):
    return record["frontier"]["trace"]


def test_a_line_has_gap_and_verdict_at_each_budget_and_the_cost_of_a_pass(trace):
    header, lines = grid(trace)
    assert header == ["Method", "0.1", "0.3", "0.6", "Cost of a PASS"]
    by_name = {line[0]: line[1:] for line in lines}
    gaps = [point["gap"]["mean"] for point in trace["methods"]["lur"]["points"]]
    marks = ("F", "P", "P")
    assert by_name["lur"] == [*(f"{number(g)} {m}" for g, m in zip(gaps, marks, strict=True)), "0.3"]
    assert by_name["joint"][-1] == "none"
    assert by_name["salun"][1].endswith("?") and by_name["salun"][-1] == "none"
    assert by_name["diverged"] == ["\N{EN DASH} F"] * 3 + ["none"]


def test_a_cost_of_a_pass_is_unknown_where_no_budget_is_decided(trace):
    points = [{**point, "verdict": "INCONCLUSIVE"} for point in trace["methods"]["salun"]["points"]]
    trace = put(trace, "methods", "salun", "points", value=points)
    line = next(line for line in grid(trace)[1] if line[0] == "salun")
    assert line[-1] == "?"


def test_who_passes_for_less_comes_first_and_then_who_is_nearest(trace):
    names = order_methods(trace)
    costs = [trace["methods"][name]["cost_of_pass"] or 9 for name in names]
    assert costs == sorted(costs) and names[-1] == "diverged" and len(names) == len(trace["methods"])


def test_a_method_that_was_not_run_at_a_budget_has_a_dash_there(record):
    stages = {float(name.rpartition("@")[2]): stage for name, stage in record["stages"].items()}
    del stages[0.1]["methods"]["lur"]
    line = next(line for line in grid(frontier(stages))[1] if line[0] == "lur")
    assert line[1] == "\N{EN DASH}" and line[-1] == "0.3"


def test_what_a_run_took_is_told_in_gradients_and_in_seconds(trace):
    trace = put(trace, "methods", "joint", "points", 0, "seconds", value=None)
    header, lines = spent_grid(trace)
    assert header == ["Method", "0.1", "0.3", "0.6"] and [line[0] for line in lines] == order_methods(trace)
    by_name = {line[0]: line[1:] for line in lines}
    assert by_name["lur"] == ["0.10 (0.12)", "0.30 (0.36)", "0.60 (0.72)"]
    assert by_name["joint"][0] == "0.10 (\N{EN DASH})"
    missing = put(trace, "methods", "lur", "points", value=trace["methods"]["lur"]["points"][1:])
    assert next(line for line in spent_grid(missing)[1] if line[0] == "lur")[1] == "\N{EN DASH}"


@pytest.mark.parametrize("form", [tables.text, tables.markdown, html.render])
def test_every_form_tells_the_seconds(record, form):
    text = form(cheap_to_draw(record))
    assert "0.30 (0.36)" in text and "in brackets seconds" in " ".join(text.split())


def test_pairs_have_a_difference_with_its_interval_at_each_budget(trace):
    header, lines = paired_grid(trace)
    assert [line[0] for line in lines] == [
        "lur less joint",
        "lur-exact less joint",
        "lur-match less joint-match",
    ]
    row = next(row for row in trace["paired"] if row["first"] == "lur" and row["budget"] == 0.3)
    assert lines[0][header.index("0.3")] == interval(row["difference"], row["low"], row["high"])


def conclusion_parts(trace):
    """Budget, method and gap that the conclusion names, what of training from scratch, and how it is put."""
    sentence = conclusion(trace)
    pattern = r"At (\S+) % of a retraining's gradients, (\S+) is (\S+) points from a retrained model(.*)"
    budget, name, gap, clause = re.search(pattern, sentence).groups()
    scratch = re.search(r"from scratch for as long is (\S+) away", clause)
    return float(budget) / 100, name, gap, scratch and scratch[1], sentence


def verdicts(trace, **by_method):
    """The frontier of these methods and training from scratch, with other verdicts."""
    methods = {}
    for name, letters in {**by_method, TO_BEAT: "FFF"}.items():
        words = [{"P": "PASS", "F": "FAIL", "I": "INCONCLUSIVE"}[letter] for letter in letters]
        points = zip(trace["methods"][name]["points"], words, strict=True)
        cost = cost_of_pass(dict(zip(trace["budgets"], words, strict=True)))
        methods[name] = {"points": [p | {"verdict": word} for p, word in points], "cost_of_pass": cost}
    return put(trace, "methods", value=methods)


def gap(trace, name, budget):
    """The mean gap of a method at a budget, as text."""
    return next(number(p["gap"]["mean"]) for p in trace["methods"][name]["points"] if p["budget"] == budget)


@pytest.mark.parametrize(
    ("lur", "joint", "expected"),
    [
        ("FPP", "FFP", (0.3, "lur", ", and passes;")),
        ("PFP", "FPP", (0.3, "joint", ", and passes;")),
        ("PFF", "FFP", (0.6, "joint", ", and passes;")),
        ("FPI", "FFF", (0.3, "lur", ", and passes, though not at 60 %;")),
        ("PFI", "FPF", (0.1, "lur", ", and passes, though not at 30 % or 60 %;")),
    ],
)
def test_the_conclusion_is_what_a_pass_costs_or_the_first_pass_there_is(trace, lur, joint, expected):
    curves = verdicts(trace, lur=lur, joint=joint)
    budget, name, distance, scratch, sentence = conclusion_parts(curves)
    assert (budget, name) == expected[:2] and expected[2] in sentence
    assert (distance, scratch) == (gap(trace, name, budget), gap(trace, TO_BEAT, budget))


def test_of_equals_the_conclusion_names_the_nearest(trace):
    curves = verdicts(trace, lur="FFP", joint="FFP")
    _, name, distance, *_ = conclusion_parts(curves)
    assert float(distance) == min(float(gap(trace, each, 0.6)) for each in ("lur", "joint"))
    assert distance == gap(trace, name, 0.6)


def test_without_any_verdict_the_conclusion_says_so_and_not_that_nothing_passes(trace):
    curves = verdicts(trace, lur="III")
    points = [each | {"verdict": "INCONCLUSIVE"} for each in curves["methods"][TO_BEAT]["points"]]
    undecided_curves = put(curves, "methods", TO_BEAT, "points", value=points)
    assert conclusion(undecided_curves).startswith("All verdicts are INCONCLUSIVE at these budgets. At 60 % ")
    assert conclusion(curves).startswith("No unlearning method passes at these budgets. At 60 % ")


def test_without_a_pass_the_conclusion_is_of_the_largest_budget_and_says_so(trace):
    curves = verdicts(trace, joint="FFI")
    budget, name, distance, _, sentence = conclusion_parts(curves)
    assert (budget, name, distance) == (0.6, "joint", gap(trace, "joint", 0.6))
    assert sentence.startswith("No unlearning method passes at these") and "and passes" not in sentence
    curve_of_joint = put(curves, "methods", value={"joint": curves["methods"]["joint"]})
    assert conclusion_parts(curve_of_joint)[3] is None


def test_without_margins_no_verdict_is_missed(trace):
    curves = put(trace, "margin", value=None)
    curves = put(curves, "methods", value={"joint": trace["methods"]["joint"]})
    assert conclusion_parts(curves)[4].startswith("At 60 %")
    assert conclusion(put(trace, "methods", value={"diverged": trace["methods"]["diverged"]})) is None


@pytest.mark.parametrize("form", [tables.text, tables.markdown, tables.latex, html.render])
def test_every_form_shows_it_before_the_stages(record, form):
    record = cheap_to_draw(record)
    text = form(record)
    assert text.index("Cost of a PASS") < text.rindex("trace@0.1")
    gap = number(record["frontier"]["trace"]["methods"]["lur"]["points"][1]["gap"]["mean"])
    assert gap in text and "less joint" in text
    text_without = form({key: part for key, part in record.items() if key != "frontier"})
    assert "Cost of a PASS" not in text_without


def test_text_keeps_to_its_width(record):
    text = tables.text(record, width=100)
    assert max(map(len, text[: text.index("trace@0.1")].splitlines())) <= 100


def test_the_page_opens_with_the_figure_and_marks_what_passes(record):
    page = html.render(cheap_to_draw(record))
    first = page[: page.index('<div class="cards">')]
    assert "Gap against cost of" in first and 'class="PASS"' in first
    sentence = escape(conclusion(record["frontier"]["trace"]))
    assert 0 < page.index(sentence) < page.index("<svg") < page.index("<table")
    assert len(re.findall(r"<h2", first)) == 1


def test_the_caption_explains_the_shading_where_there_is_one(record):
    drawable = cheap_to_draw(record)
    other = put(drawable, "frontier", "trace", "margin", value=None)
    assert "Shaded: gaps" in html.render(drawable) and "Shaded: gaps" not in html.render(other)


def test_the_best_and_the_one_to_beat_are_named_and_no_others(trace):
    labels = set(words(figure(trace))) & set(trace["methods"])
    best = [name for name in order_methods(trace) if name != TO_BEAT][:BEST]
    assert labels == {*best, TO_BEAT}


def test_a_point_is_filled_where_the_method_passes(trace):
    assert [passes for _, passes in finite_points(trace["methods"]["lur"])] == [False, True, True]
    assert not any(passes for _, passes in finite_points(trace["methods"]["joint"]))
    no_passes = put(trace, "methods", value={name: trace["methods"][name] for name in ("joint", TO_BEAT)})
    fill = "fill: var(--series-0"
    assert fill in figure(trace) and fill not in figure(no_passes), "open points are the paper's colour"


def test_the_margins_and_the_floor_are_drawn_where_there_are_any(trace):
    assert "series-2" in figure(put(trace, "methods", value={"joint": trace["methods"]["joint"]}))
    curve = put(trace, "methods", value={"joint": trace["methods"]["joint"]}) | {
        "margin": None,
        "floor": None,
    }
    assert "series-2" not in figure(curve) and "two retrained models" not in words(figure(curve))


def test_what_has_neither_gap_nor_cost_is_not_drawn(trace):
    assert finite_points(trace["methods"]["diverged"]) == []
    assert figure(put(trace, "methods", value={"diverged": trace["methods"]["diverged"]})) is None


def test_names_are_shown_as_they_are(record):
    methods = record["frontier"]["trace"]["methods"]
    methods[HOSTILE] = methods.pop("lur")
    page = html.render(cheap_to_draw(record))
    assert "<script>" not in page and "shrink:&lt;script&gt;$x$+b" in page
    assert HOSTILE in tables.text(record) and HOSTILE in words(figure(record["frontier"]["trace"]))
