"""The audit under audit: what must fail fails by name, genuine retrains pass, too little gets no verdict."""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
import torch

from audits.answers import (
    CLASSES,
    Examples,
    Networks,
    networks,
    one_digit,
    records,
    replace_logits,
    train,
    uses,
)
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import probabilities
from unweave.audits.classifier.margins import calibrate
from unweave.audits.classifier.metrics import METRICS, measure, measure_pair
from unweave.audits.classifier.probes import probe
from unweave.audits.equivalence import Equivalence, equivalence
from unweave.audits.margins import Margins, margins
from unweave.audits.verdict import Judgement, Verdict, judge

SEEDS = 10
CALIBRATION = 12


@dataclass(frozen=True)
class Stage:
    """Trained networks of one forget set, as evidence.

    Args:
        data: The data and its split.
        retrained: The first 12 are for calibration, the next 10 are reported.
        original: 10, trained on everything.
        half: 10, retrained with half of the forget examples left in.
        over: 10, trained to name another class on every forget example.
    """

    data: Examples
    retrained: list[Evidence]
    original: list[Evidence]
    half: list[Evidence]
    over: list[Evidence]

    @property
    def references(self) -> list[Evidence]:
        return self.retrained[CALIBRATION : CALIBRATION + SEEDS]

    @property
    def margins(self) -> Margins:
        return calibrate(self.retrained[:CALIBRATION])

    def judge(self, evidence: list[Evidence]) -> Judgement:
        values, original = (
            [measure(*pair) for pair in zip(each, self.references, strict=True)]
            for each in (evidence, self.original)
        )
        return judge(
            values,
            [measure(each) for each in self.references],
            self.margins,
            original=original,
            metrics=METRICS,
        )


@pytest.fixture(scope="module")
def stage() -> Stage:
    data = records()
    counts = {"retrained": 36, "original": SEEDS, "half": SEEDS, "over": SEEDS}
    n = sum(counts.values())
    use, labels = uses(data, n, "retain"), data.labels.repeat(n, 1)
    groups = dict(zip(counts, torch.arange(n).split(list(counts.values())), strict=True))
    forget = data.parts["forget"]
    use[groups["original"][:, None], forget] = 1
    use[groups["over"][:, None], forget] = 1
    labels[groups["over"][:, None], forget] = (data.labels[forget] + 1) % CLASSES
    generator = torch.Generator().manual_seed(0)
    for network in groups["half"]:
        use[network, forget[torch.randperm(len(forget), generator=generator)[: len(forget) // 2]]] = 1
    evidence = train(networks(n, data, seed=0), data, use, labels).evidence(data)
    return Stage(data, **{name: [evidence[i] for i in group] for name, group in groups.items()})


def constant(like: Evidence, label: int) -> Evidence:
    one = np.eye(CLASSES, dtype=np.float32)[label % CLASSES] * 5
    return replace_logits(
        like, **{part: np.tile(one, (len(logits), 1)) for part, logits in like.logits.items()}
    )


def shuffle_probabilities(retrained: Evidence, seed: int) -> Evidence:
    """A retrained model whose true-class probabilities on F are dealt out to the wrong examples."""
    labels, p = retrained.labels["forget"], probabilities(retrained.logits["forget"])
    rows = np.arange(len(labels))
    p_true = np.random.default_rng(seed).permutation(p[rows, labels])
    p[rows, labels] = 0
    p *= ((1 - p_true) / p.sum(axis=1))[:, None]
    p[rows, labels] = p_true
    return replace_logits(retrained, forget=np.log(p))


def break_retain(evidence: Evidence) -> Evidence:
    return replace_logits(evidence, retain=np.full_like(evidence.logits["retain"], np.nan))


def test_untouched_original_fails_as_under_forgetting(stage):
    judgement = stage.judge(stage.original)
    assert judgement.verdict == Verdict.FAIL
    assert judgement.reason.startswith("FAIL: under-forgetting: UA ")


def test_half_forgotten_fails_as_under_forgetting(stage):
    assert stage.judge(stage.half).reason.startswith("FAIL: under-forgetting: ")


def test_over_forgotten_fails_as_over_forgetting(stage):
    assert "over-forgetting: UA " in stage.judge(stage.over).reason


def test_constant_model_fails_as_damage(stage):
    reason = stage.judge([constant(each, seed) for seed, each in enumerate(stage.original)]).reason
    assert reason.startswith("FAIL: ") and "damage: RA " in reason and "over-forgetting: UA " in reason


def test_random_model_fails_as_damage(stage):
    reason = stage.judge(networks(SEEDS, stage.data, seed=1).evidence(stage.data)).reason
    assert reason.startswith("FAIL: ") and "damage: RA " in reason


def test_right_level_with_other_answers_fails_by_that_name(stage):
    judgement = stage.judge(
        [shuffle_probabilities(each, seed) for seed, each in enumerate(stage.retrained[-SEEDS:])]
    )
    assert judgement.reason.startswith("FAIL: other answers than retraining: TV on F ")
    assert judgement.tests["ua"].outcome == "equal"


def test_nan_fails_with_one_seed_and_without_reference(stage):
    judgement = judge([measure(break_retain(stage.original[0]))], [], None, metrics=METRICS)
    assert judgement.verdict == Verdict.FAIL
    assert judgement.reason == "FAIL: NaN: the answers of 1 of 1 models contain NaN or infinity"


def test_one_nan_model_among_ten_fails(stage):
    judgement = stage.judge([break_retain(stage.retrained[-1]), *stage.retrained[-SEEDS:-1]])
    assert judgement.reason.startswith("FAIL: NaN: the answers of 1 of 10 models")


def test_genuine_retrains_pass_nine_of_ten_resampled_audits(stage):
    retrained = stage.retrained
    measurements = [measure(each) for each in retrained]
    pairs = {
        frozenset((i, j)): measure_pair(retrained[i], retrained[j]) for i, j in combinations(range(36), 2)
    }
    sizes = {part: len(labels) for part, labels in stage.retrained[0].labels.items()}
    original = [measure(each, other) for each, other in zip(stage.original, retrained, strict=False)]
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(200):
        order = rng.permutation(36)[: CALIBRATION + 2 * SEEDS]
        calibration, references, rows = np.split(order, [CALIBRATION, CALIBRATION + SEEDS])
        between = [pairs[frozenset(pair)] for pair in combinations(calibration, 2)]
        audit_margins = margins([measurements[i] for i in calibration], between, sizes=sizes, metrics=METRICS)
        values = [
            {**measurements[i], **pairs[frozenset((i, j))]} for i, j in zip(rows, references, strict=True)
        ]
        judgement = judge(
            values, [measurements[i] for i in references], audit_margins, original=original, metrics=METRICS
        )
        passed += judgement.verdict == Verdict.PASS
    assert passed >= 180


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_false_passes_at_the_margin_stay_below_six_and_a_half_percent(stage, shift):
    stage_margins = stage.margins
    rng = np.random.default_rng(0)
    passes = fails = 0
    for _ in range(1500):
        seeds = rng.normal(scale=0.3 * stage_margins.margin["ua"], size=(2, SEEDS))
        reference = {name: stage_margins.expected[name] for name in ("ra", "ta", "auc")}
        level = 20 + shift * stage_margins.margin["ua"]
        values = [{**reference, "ua": level + noise, "tv": 0.0} for noise in seeds[0]]
        original = [{**each, "ua": 20 + 9 * stage_margins.margin["ua"]} for each in values]
        references = [{**reference, "ua": 20 + noise} for noise in seeds[1]]
        judgement = judge(values, references, stage_margins, original=original, metrics=METRICS)
        passes += judgement.verdict == Verdict.PASS
        fails += judgement.verdict == Verdict.FAIL
    assert 0.035 * 1500 < passes <= 0.065 * 1500
    assert 0.035 * 1500 < fails <= 0.065 * 1500


def judge_hidden(bias: float, *, steps: int = 160, hidden: int = 96) -> tuple[Judgement, Equivalence]:
    """Judges models that hide a class by this bias and no weights; also tests how retrained ones relearn."""
    data = one_digit()
    use = torch.cat([uses(data, CALIBRATION + SEEDS, "retain"), uses(data, SEEDS, "retain", "forget")])
    start, labels = networks(len(use), data, seed=2, hidden=hidden), data.labels.repeat(len(use), 1)
    trained = train(start, data, use, labels, steps=steps)
    masked = Networks([weight.clone() for weight in trained.weights])
    masked.weights[2][-SEEDS:, :, 3] = 0
    masked.weights[3][-SEEDS:, 3] = bias
    evidence = masked.evidence(data)
    probe_values = [probe(module, data.cuts, device="cpu") for module in masked.modules()]
    retrained = [{**measure(each), **probes} for each, probes in zip(evidence, probe_values, strict=True)][
        :-SEEDS
    ]
    audit_margins = calibrate(evidence[:CALIBRATION], probes=probe_values[:CALIBRATION])
    references, reference_values = evidence[CALIBRATION:-SEEDS], retrained[CALIBRATION:]
    values, original = (
        [
            {**measure(answer, reference), **probes}
            for answer, reference, probes in zip(
                answers[-SEEDS:], references, probe_values[-SEEDS:], strict=True
            )
        ]
        for answers in (evidence, trained.evidence(data))
    )
    genuine = equivalence(
        METRICS["relearn"], retrained[:SEEDS], reference_values, audit_margins.margin["relearn"]
    )
    return judge(values, reference_values, audit_margins, original=original, metrics=METRICS), genuine


def test_hidden_class_fails_by_its_features():
    judgement, genuine = judge_hidden(0, steps=80)
    assert judgement.reason.startswith("FAIL: under-forgetting: ")
    assert judgement.tests["relearn"].finding == "under-forgetting"
    assert genuine.outcome == "equal"


def test_a_class_hidden_by_a_low_bias_fails_by_its_features_where_they_are_narrow():
    judgement, _ = judge_hidden(-15, hidden=12)
    assert judgement.verdict == Verdict.FAIL
    assert judgement.tests["probe"].finding == "under-forgetting"
    assert judgement.tests["relearn"].finding is None  # which a low bias buys


def test_too_few_seeds_reference_and_retrains_are_named_together(stage):
    values = [measure(stage.original[0], stage.references[0])] * 2
    judgement = judge(values, [], calibrate(stage.retrained[:3]), metrics=METRICS)
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert judgement.reason == (
        "INCONCLUSIVE: no verdict: no retrained model to compare with; 2 seeds, 10 needed; "
        "3 calibration retrains, 12 needed"
    )
    assert judgement.scores["ua"].n == 2 and judgement.tests == {}


def test_forget_set_without_influence_is_inconclusive_and_damage_is_named(stage):
    harmless_stage = replace(stage, original=stage.retrained[-SEEDS:])
    judgement = harmless_stage.judge(stage.retrained[-SEEDS:])
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert "no measurable influence" in judgement.reason
    damage_judgement = harmless_stage.judge([constant(each, 0) for each in stage.original])
    assert damage_judgement.verdict == Verdict.INCONCLUSIVE
    assert "no measurable influence" in damage_judgement.reason and "damage: RA " in damage_judgement.reason
    assert harmless_stage.judge([break_retain(each) for each in stage.original]).verdict == Verdict.FAIL
