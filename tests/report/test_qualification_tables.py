"""How verdicts with and without retrained models are counted."""

from unweave.report.qualification_tables import agreement_by, agreement_sentence, tally

ROWS = [
    {
        "stratum": "random",
        "model": "lur",
        "requests": 4,
        "pairs": {"PASS/PASS": 5, "PASS/FAIL": 1, "FAIL/FAIL": 2},
    },
    {"stratum": "random", "model": "original", "requests": 4, "pairs": {"INCONCLUSIVE/FAIL": 3}},
    {"stratum": "class", "model": "lur", "requests": 5, "pairs": {"PASS/INCONCLUSIVE": 4, "FAIL/PASS": 6}},
    {"stratum": "class", "model": "original", "requests": 5, "pairs": {"INCONCLUSIVE/INCONCLUSIVE": 7}},
]


def test_each_model_is_counted_once():
    counts = tally(ROWS)
    assert counts.models == 28 and counts.decided == 17
    assert counts.same == 7 and counts.open == 3
    assert counts.decided == counts.same + counts.open + 1 + 6  # and the opposite verdicts


def test_a_pass_or_a_fail_that_retrained_models_do_not_give_is_false():
    counts = tally(ROWS)
    assert counts.false_pass == 1 + 4 and counts.false_fail == 6


def test_tables_sum_to_the_whole():
    for key in ("stratum", "model"):
        _, lines = agreement_by(key, "", ROWS)
        assert [sum(int(line[i]) for line in lines) for i in range(1, 7)] == [28, 17, 7, 3, 5, 6]


def test_requests_are_counted_once():
    assert agreement_sentence(ROWS).startswith("Of 28 models of 9 requests, 17 pass or fail")
