"""The page shows every number of its record, asks no network for anything, and runs no name as code."""

import re
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from records import MARGINS, METRICS, put, synthetic, without
from unweave.audits.classifier.metrics import METRICS as KNOWN
from unweave.report import html, tables
from unweave.report.numbers import digits
from unweave.report.template import flatten

MINUS = "\N{MINUS SIGN}"
HOSTILE = '"><script>alert(1)</script><img src=http://x onerror=alert(1)>'


class Page(HTMLParser):
    """The elements, attributes and cells of a page, as a browser would find them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.cells, self._rows = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.cells.append("")

    def handle_data(self, data):
        self.text.append(data)
        if self.cells:
            self.cells[-1] += f" {data.strip()}"


@pytest.fixture(scope="module")
def record():
    return synthetic()


@pytest.fixture(scope="module")
def text(record):
    return html.render(record)


@pytest.fixture(scope="module")
def small(record):
    """One stage of three methods, cheap to draw, with everything that a stage may have."""
    trace, small = record["stages"]["trace"], record["stages"]["class"]
    extra = {key: trace[key] for key in ("floor", "calibration_seeds", "tuned", "search", "comparisons")}
    extra["histograms"] = {name: trace["histograms"][name] for name in ("lur", "retrain")}
    return record | {"stages": {"trace": small | extra}}


@pytest.fixture(scope="module")
def small_page(small):
    return html.render(small)


def format_value(value, decimals):
    return f"{value:.{decimals}f}".replace("-", MINUS)


def row_of(page, name, *, among):
    return next(
        cells for cells in page.cells if cells.split()[:1] == [name] and all(part in cells for part in among)
    )


def test_every_score_stands_in_its_methods_row(record, text):
    page = Page(text)
    for name, method in record["stages"]["trace"]["methods"].items():
        if method["failed"] is None:
            for metric, score in method["scores"].items():
                values = [format_value(score[key], digits(metric)) for key in ("value", "low", "high")]
                assert row_of(page, name, among=values)


def test_every_difference_margin_and_part_of_the_gap_is_on_the_page(record, text):
    page = Page(text)
    stage = record["stages"]["trace"]
    for name, method in stage["methods"].items():
        if method["failed"] is None:
            gaps = [
                format_value(abs(score["gap"]), digits(metric)) for metric, score in method["scores"].items()
            ]
            parts = [format_value(part, 2) for part in method["gap"]["parts"].values()]
            assert row_of(page, name, among=gaps)
            assert row_of(
                page,
                name,
                among=[
                    format_value(method["gap"]["mean"], 2),
                    format_value(method["gap"]["of_means"], 2),
                    *parts,
                ],
            )
            assert row_of(
                page, name, among=[format_value(method["peak_mib"], 0), str(method["gradient_evaluations"])]
            )
    assert row_of(
        page,
        "Margin",
        among=[format_value(margin, digits(metric)) for metric, margin in stage["margins"].items()],
    )


def test_retrain_stands_beside_the_methods_with_its_band(record, text):
    page = Page(text)
    reference = record["stages"]["trace"]["reference"]
    metrics = ("ua", "ra", "ta", "mia", "auc", "tv")
    assert row_of(
        page, "Retrain", among=[format_value(reference["scores"][m]["value"], digits(m)) for m in metrics]
    )
    assert row_of(
        page,
        "Retrain,",
        among=[format_value(end, digits(m)) for m in metrics for end in reference["null_band"][m]],
    )


def test_the_verdict_comes_before_every_table_and_figure(text):
    body = text[text.index("<body>") :]
    assert body.index("PASS") < min(body.index("<table"), body.index("<svg"))


def test_the_page_asks_no_network_for_anything(text):
    page = Page(text)
    links = [
        value
        for _, name, value in page.attributes
        if name.split(":")[-1] in ("src", "href", "action", "data", "srcset")
    ]
    assert links and all(value.startswith("#") for value in links)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(page.tags)
    assert "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert not re.findall(r"url\((?!#)", text)
    assert "default-src 'none'" in text


def test_links_inside_the_page_have_a_target(text):
    page = Page(text)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, name, value in page.attributes if name == "href"} <= set(ids)


def test_a_failed_method_keeps_its_row_with_dashes_and_its_reason(text):
    page = Page(text)
    cells = row_of(page, "diverged", among=["FAILED"]).split()
    assert cells[1] == "FAILED" and set(cells[2:]) == {"–", "17.0"}  # it shares the last rank
    assert "the loss of nll(forget) is NaN at step 17" in " ".join(page.text)
    assert "nan" not in text.lower().replace("is nan at step", "").replace("finance", "")


def test_a_reason_that_all_rows_share_is_said_once_for_them(small, text):
    stage = small["stages"]["trace"]
    methods = {name: each | {"reason": "No verdict: 1 seed"} for name, each in stage["methods"].items()}
    page = html.render(small | {"stages": {"trace": stage | {"methods": methods}}})
    assert page.count("Of all of them: No verdict: 1 seed.") == 1 and 'class="why"' not in page
    assert 'class="why"' in text and "Of all of them" not in text.split("<h2")[1]


def test_names_and_reasons_are_text_whatever_they_hold(small):
    trace = small["stages"]["trace"]
    methods = {HOSTILE: trace["methods"]["lur"] | {"reason": HOSTILE, "repr": HOSTILE}, **trace["methods"]}
    stage = trace | {
        "methods": methods,
        "histograms": {**trace["histograms"], HOSTILE: trace["histograms"]["lur"]},
        "recipe": {HOSTILE: HOSTILE},
        "search": {HOSTILE: [{"value": 1.0, "settings": {HOSTILE: HOSTILE}}]},
        "comparisons": [{HOSTILE: HOSTILE}],
    }
    text = html.render(small | {"stages": {HOSTILE: stage}, "environment": {HOSTILE: HOSTILE}})
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert HOSTILE in "".join(page.text)


def test_a_method_without_a_finite_gap_is_never_bold(small):
    def bold(record):
        return set(re.findall(r'<tr class="[^"]*best[^"]*"><th scope="row">([^<]*)', html.render(record)))

    assert bold(small) == {"lur"}
    assert bold(put(small, "stages", "trace", "methods", "lur", "gap", "mean", value=float("nan"))) == {
        "finetune"
    }


def test_the_same_record_gives_the_same_bytes(small, small_page):
    assert html.render(small) == small_page


def test_seeds_environment_recipe_and_settings_are_on_the_page(record, text):
    words = " ".join(" ".join(Page(text).text).split())
    stage = record["stages"]["trace"]
    for expected in (
        *map(str, stage["calibration_seeds"]),
        "2.9.0",
        "training.epochs",
        stage["methods"]["lur"]["repr"],
    ):
        assert expected in words
    assert "Tuning of lur: 20 trials" in words


def test_every_metric_says_what_it_means_and_what_it_cannot_show(text):
    words = " ".join(Page(text).text)
    for metric in METRICS:
        assert KNOWN[metric].says in words and KNOWN[metric].cannot in words


def test_a_page_and_a_terminal_say_within_what_budget_settings_were_searched(small, small_page):
    sentence = "on seeds 1000, 1001, each within 0.5 times the 240 gradient evaluations of a retraining."
    assert sentence in small_page and sentence in tables.text(small, width=500)
    older_record = without(small, "stages", "trace", "tuned", "retraining")
    assert "each within 0.5 times a retraining." in html.render(older_record)
    retrain_record = put(small, "stages", "trace", "tuned", "against", value="retrain")
    assert "20 trials per method on the request itself, on seeds" in html.render(retrain_record)


def test_a_search_without_a_finished_trial_says_that_its_settings_are_no_result():
    stage = synthetic()["stages"]["trace"]
    assert "No trial" not in " ".join(tables.sentences(stage))
    trials = [{**trial, "value": None} for trial in stage["search"]["lur"]]
    sentences = " ".join(tables.sentences({**stage, "search": {**stage["search"], "lur": trials}}))
    assert "No trial of lur finished: the settings are those of the start." in sentences


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("floor", "Two retrained models differ"),
        ("calibration_seeds", "Seeds of the retrains"),
        ("histograms", "Losses on the forgotten examples"),
        ("search", "Tuning of lur"),
        ("tuned", "20 trials per method on proxy requests, drawn from the retain set"),
        ("comparisons", "Paired Wilcoxon"),
    ],
)
def test_what_a_stage_lacks_is_left_out(small, small_page, key, said):
    assert said in small_page
    assert said not in html.render(without(small, "stages", "trace", key))


def test_a_model_audited_without_a_reference_has_a_page(record):
    content = put(record, "stages", "trace", "reference", value={"scores": {}, "null_band": {}})
    row = record["stages"]["class"]["methods"]["lur"]
    methods_alone = {"mine": row | {"gap": None, "cost": None, "per_seed": {}}}
    for score in methods_alone["mine"]["scores"].values():
        score |= {"reference": None, "gap": None, "null_band": None}
    content["stages"]["trace"] |= {"methods": methods_alone, "margins": None}
    page = Page(html.render(content))
    assert row_of(page, "mine", among=["INCONCLUSIVE"])
    assert "The mean gap and its parts" not in " ".join(page.text).split("class")[0]


@pytest.mark.parametrize("names", [["lur"], ["lur", "original"]])
def test_the_page_of_one_audited_model_speaks_of_one_model(small, names):
    stage = small["stages"]["trace"]
    methods = {name: stage["methods"][name] for name in names}
    audit_stage = {**without(stage, "comparisons"), "recipe": {}, "seeds": [0], "methods": methods}
    page = html.render(small | {"stages": {"audit": audit_stage}})
    assert "95 % intervals over the retrained models" in page
    assert "One seed" not in page and "the order of methods" not in page and "Wilcoxon" not in page
    assert ("the square the untouched original" in page) == ("original" in names)


def test_a_partial_stage_says_so_first(small):
    text = html.render(put(small, "stages", "trace", "partial", value=True))
    assert text.index("partial run, no verdict") < text.index("<table")


def test_a_stage_without_methods_has_a_page(small):
    assert "No method was run" in html.render(put(small, "stages", "trace", "methods", value={}))


def test_a_record_that_cannot_be_drawn_leaves_the_old_page(small, tmp_path):
    path = html.write(small, tmp_path / "report.html")
    content = path.read_bytes()
    with pytest.raises(KeyError):
        html.write(without(small, "stages", "trace", "methods"), path)
    assert path.read_bytes() == content


def test_nested_settings_are_pairs_of_dotted_names():
    pairs = flatten({"a": {"b": 1, "c": [1.5, None]}, "d": {}, "e": True, "f": -0.25})
    error = flatten({"error": {"value": 2.5, "low": 1.25, "high": 4.0}})
    assert error == [("error", "2.5 [1.25, 4]")]
    assert pairs == [("a.b", "1"), ("a.c", "1.5, –"), ("d", "{}"), ("e", "yes"), ("f", f"{MINUS}0.25")]


REQUEST = {
    "examples": 144, "of": 1437, "ids": ["r7", "r12", "r20", "r21", "r33"], "classes": {"3": 100, "8": 44},
    "model": "mine/project.py", "asked": "--ids requests.csv", "date": "2026-01-01",
}  # fmt: skip


def test_the_first_screen_says_what_was_deleted_from_which_model_how_and_when(small):
    page = html.render(put(small, "stages", "trace", "request", value=REQUEST))
    first = " ".join(" ".join(Page(page[: page.index("<main>")]).text).split())
    for part in (
        "Deleted 144 of 1437 examples", "First ids r7, r12, r20, r21, r33 and 139 more",
        "Labels 3: 100, 8: 44", "Model mine/project.py", "Request --ids requests.csv",
        "Date deleted 2026-01-01, audited 2026-01-02",
    ):  # fmt: skip
        assert part in first, first
    assert page.index("r7, r12") < page.index("<table")
    assert "First ids" not in html.render(small)


def test_what_nobody_said_of_a_request_is_left_out(small):
    request = REQUEST | {"asked": None, "date": None, "ids": ["r7"], "examples": 1}
    page = html.render(put(small, "stages", "trace", "request", value=request))
    card = " ".join(" ".join(Page(page[page.index("<section") : page.index("<table")]).text).split())
    assert "Deleted 1 of 1437 examples First ids r7 Labels" in card
    assert card.index("Model mine/project.py Date 2026-01-02") and "Request" not in card


def test_every_metric_is_explained_where_it_is_first_used_and_in_every_heading(text):
    first = text[: text.index("<main>")]
    for metric in ("ua", "ra", "ta", "mia", "auc", "tv"):
        title, says = KNOWN[metric].title, escape(KNOWN[metric].says)
        assert f'<abbr title="{says}">{title}</abbr>' in first
        assert f"<dt>{title}</dt><dd>{says}</dd>" in first.split("</section>")[-1]
    for heading in re.findall(r"<th[^>]*>(UA|RA|TA|TV on F|AUC|MIA)<", text):
        raise AssertionError(f"{heading} stands in a heading without what it means")


def test_the_three_verdicts_are_defined_as_an_audit_decides(text):
    note = next(each for each in re.findall(r'<p class="note">([^<]*)</p>', text) if each.startswith("PASS:"))
    assert "FAIL: at least one is shown to lie outside" in note
    assert note.endswith("INCONCLUSIVE: neither is shown, or the original itself looks retrained.")


def test_a_table_says_that_it_scrolls_only_where_it_does(small):
    page = html.render(small)
    tables = re.findall(r'<div class="scroll"[^>]*>\s*<p class="hint"[^>]*>([^<]*)</p>\s*<table', page)
    assert tables and set(tables) == {"Scroll sideways for more columns →"}
    style = page[page.index("<style>") : page.index("</style>")]
    assert "container-type: scroll-state" in style and ".hint { display: none" in style
    assert style.count(".hint { display: block") == 1
    assert "@container scroll-state(scrollable: x) { .hint { display: block; } }" in style


def test_the_box_of_an_audit_has_the_original_and_the_margins_and_no_raw_keys(small):
    stage = small["stages"]["trace"]
    data = {**stage["data"], "forgotten_classes": [3]}
    audit_stage = stage | {"recipe": {}, "data": data, "margins": MARGINS, "seeds": [0]}
    page = html.render(small | {"stages": {"audit": audit_stage}})
    box = Page(page[page.index("<section") : page.index("</section>")])
    assert row_of(box, "Before", among=["lur", "Retrain", "Margin"])
    value = stage["methods"]["original"]["scores"]["ua"]["value"]
    assert row_of(box, "UA", among=[format_value(value, 2), format_value(MARGINS["ua"], 2)])
    assert '<h2 id="stage-0">Audit of lur</h2>' in page and "Next: " in "".join(box.text)
    names = re.findall(r"<dt>([^<]*)</dt>", page[page.index('<h2 id="stage-0') :])
    assert {"Digest of the split", "Forgotten classes"} <= set(names) and "forgotten_classes" not in names


def test_the_cost_of_a_method_stands_beside_that_of_retraining(small):
    lur = small["stages"]["trace"]["methods"]["lur"]
    costs = {"seconds": 12.5, "gradient_evaluations": 480}
    content = put(small, "stages", "trace", "reference", value=small["stages"]["trace"]["reference"] | costs)
    page = Page(html.render(content))
    cells = [f"{lur['cost']:.2f}", f"{lur['seconds']:.2f} s", f"{lur['gradient_evaluations']} gradients"]
    assert row_of(page, "lur", among=cells)
    assert row_of(page, "Retrain", among=["1.00", "12.50 s", "480 gradients"])
    assert row_of(page, "Gradient", among=[str(lur["gradient_evaluations"]), "480"])
