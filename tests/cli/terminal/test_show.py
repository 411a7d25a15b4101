"""What is printed fits the terminal that it is printed on."""

import re

import pytest

from records import synthetic
from unweave.cli.terminal import show
from unweave.record import record
from unweave.report.rows import headline

WIDTH = 80


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub("\x1b\\[[0-9;]*m", "", text).splitlines()]


@pytest.fixture
def fits(capsys, monkeypatch):
    """Prints on a terminal of a given width; returns its lines."""

    def called(print_page) -> list[str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(WIDTH))
            patch.setattr("sys.stdout.isatty", lambda: True)
            result = print_page()
        page_lines = lines(getattr(result, "out", "") or capsys.readouterr().out)
        assert page_lines and max(map(len, page_lines)) <= WIDTH
        return page_lines

    return called


@pytest.mark.parametrize("flags", [(), ("--protocol", "deep-unlearn")])
def test_a_table_is_as_wide_as_the_terminal(run, here, fits, flags):
    record.write(synthetic(), here / "one")
    assert any(line.startswith("Method") for line in fits(lambda: run("bench", "table", "one", *flags)))


def test_a_sentence_breaks_between_words(fits):
    sentence = "the forget set has no measurable influence, and the original is not shown to differ: " * 3
    assert " ".join(fits(lambda: show.print_sentences(sentence.strip()))) == sentence.strip()


def test_a_verdict_and_stages_fit(fits):
    content = synthetic()
    stage = content["stages"]["trace"]
    row = stage["methods"][headline(stage).name]
    row["reason"] = f"INCONCLUSIVE: {'a reason of some length, ' * 6}"
    long_metrics = ["ua", "agreement_test", "streisand"]
    row["scores"] |= {name: row["scores"]["ua"] | {"value": 100.0} for name in long_metrics}
    page_lines = fits(lambda: show.print_verdict(stage, row, stage["methods"]["original"]))
    header = next(place for place, line in enumerate(page_lines) if line.startswith("Figure"))
    end = page_lines.index("", header)
    assert end - header - 1 == len(row["scores"])  # no figure takes two lines
    assert " ".join(page_lines[end:]).strip().startswith("A figure with a margin is tested")
    fits(lambda: show.print_stages(content))
