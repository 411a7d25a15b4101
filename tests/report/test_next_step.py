"""After every verdict somebody reads what to do next, by the reasons that audits give."""

from pathlib import Path

from audits.test_verdict import MARGINS, RETRAINED, seeds
from for_each import for_each
from unweave.audits.classifier.metrics import METRICS
from unweave.audits.diffusion.verdict import UNATTACKED
from unweave.audits.verdict import judge
from unweave.report.next_step import next_step

LIKE = [{**RETRAINED, "tv": 0.05}] * 10
KNOWN = seeds(ua=0.0)


@for_each(
    ("values", "references", "original", "expected"),
    [
        (LIKE, LIKE, KNOWN, "Next: deploy this model"),
        (seeds(ua=0.0), LIKE, KNOWN, "do not take this model for a retrained one"),
        (LIKE, LIKE, LIKE, "the original already answers as models retrained without the forget set do"),
        (
            seeds(tv=0.9),
            LIKE,
            LIKE,
            "the original already answers as models retrained without the forget set do",
        ),
        (LIKE, [], KNOWN, "22 retrained models"),
        (LIKE[:2], LIKE[:2], KNOWN[:2], "22 retrained models"),
        (LIKE, LIKE, None, "--original"),
        (seeds(200.0), LIKE, KNOWN, "--references 20"),
        (LIKE, LIKE, seeds(ua=8.0), "To be safe, deploy a model retrained"),
    ],
)
def test_a_verdict_has_a_next_step(values, references, original, expected):
    judgement = judge(values, references, MARGINS, original=original, metrics=METRICS)
    sentence = next_step(judgement.verdict, judgement.reason)
    assert sentence.startswith("Next: ") and expected in sentence, judgement.reason


def test_missing_attacks_are_asked_for():
    assert "--attacks default" in next_step("INCONCLUSIVE", f"INCONCLUSIVE: no verdict: {UNATTACKED}")


def test_the_folder_of_retrained_models_is_named():
    assert "from mine/references" in next_step("FAIL", "FAIL: damage", Path("mine/references"))
