"""Every attack is held against retrained models in one way."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest

from audits.answers import take
from audits.attacks.toy import CALIBRATION, ORIGINAL, PLAIN, REFERENCES, answers, case, mean_of_forget
from for_each import for_each
from unweave.audits.answers import Answers
from unweave.audits.attack import Attack
from unweave.audits.attack_runs.compare import (
    Null,
    figures_of,
    findings,
    judge_figures,
    null_of,
    smallest_margin,
)
from unweave.audits.attack_runs.run import results_of
from unweave.audits.attacks import ATTACKS
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.score import Interval, t_interval

ON_ANSWERS = [name for name, attack in ATTACKS.items() if attack.figures and not attack.examine]


def run_attack(attack: Attack, model: Evidence, **models: list[Evidence]):
    audited_models = case(model, **models)
    return results_of(attack, audited_models, null_of(attack, audited_models))


def test_the_margin_is_that_of_the_metrics_of_a_verdict() -> None:
    result = run_attack(PLAIN, answers(50))["mean"]
    values = [mean_of_forget(Answers(each), [])["mean"].value for each in CALIBRATION]
    spread = np.quantile([abs(one - other) for one, other in combinations(values, 2)], 0.95)
    assert result.margin == pytest.approx(max(1.5 * spread, 1 / 120))
    low, high = result.null_band or (0, 0)
    assert (high - low) / 2 == pytest.approx(spread) and (low + high) / 2 == pytest.approx(np.mean(values))
    references = [mean_of_forget(Answers(each), [])["mean"].value for each in REFERENCES]
    assert result.retrained == pytest.approx(np.mean(references))


def judge_value(value: float, references: Sequence[float], margin: float = 0.1, attack: Attack = PLAIN):
    nan = float("nan")
    figures = [{"mean": Interval(each, nan, nan)} for each in references]
    null = Null(figures, margins={"mean": margin}, bands={})
    return judge_figures(attack, {"mean": Interval(value, nan, nan)}, null)["mean"]


def test_a_difference_is_found_beyond_margin_and_interval_and_shows_in_four_of_five_audits() -> None:
    values = [float(mean_of_forget(Answers(each), [])["mean"].value) for each in REFERENCES]
    low, high = t_interval(values, level=0.9)
    edge = 0.1 + (high - low) / 2
    for factor, expected in ((0.99, None), (1.01, "under-forgetting"), (-1.01, "over-forgetting")):
        assert judge_value(float(np.mean(values)) + factor * edge, values).finding == expected
    draw = np.random.default_rng(0)
    has_finding = []
    for _ in range(1000):
        references = draw.normal(0.5, 0.05, size=10).tolist()
        shift = judge_value(0.5, references).shows_from
        assert shift is not None
        has_finding.append(judge_value(0.5 + shift + draw.normal(0, 0.05), references).finding is not None)
    assert np.mean(has_finding) == pytest.approx(0.8, abs=0.03)


@for_each("size", [20, 40, 48, 98, 100, 101])
def test_one_example_of_the_half_that_is_classified_is_no_finding(size: int) -> None:
    attack = ATTACKS["representation"]
    half_size = size - size // 2
    margin = smallest_margin(attack, "linear probe", size)
    assert judge_value(1 - 1 / half_size, [1.0] * 10, margin, attack).finding is None
    assert judge_value(1 - 3 / half_size, [1.0] * 10, margin, attack).finding == "over-forgetting"


@for_each(("references", "calibration"), [(9, 12), (10, 11), (1, 0), (0, 0)])
def test_without_the_models_of_a_verdict_there_is_no_margin_and_no_finding(references, calibration) -> None:
    models = {"references": REFERENCES[:references], "calibration": CALIBRATION[:calibration]}
    result = run_attack(PLAIN, ORIGINAL, **models)["mean"]
    assert result.margin is None and result.finding is None and result.shows_from is None
    assert (result.retrained is None) == (references == 0)
    assert (result.null_band is None) == (references < 2)
    assert case(ORIGINAL, **models).tier == (1 if references else 0)


@for_each("name", ON_ANSWERS)
def test_attacks_find_the_original_and_no_genuine_retrain(name: str) -> None:
    attack = ATTACKS[name]
    findings_of_original = {each.finding for each in run_attack(attack, ORIGINAL).values()} - {None}
    assert findings_of_original and findings_of_original <= {attack.above, attack.below}
    models = case(answers(50))
    null = null_of(attack, models)
    figures_of_retrains = [
        figures_of(attack, Answers(answers(seed)), models.retrained) for seed in range(200, 220)
    ]
    false = [findings(attack, each, null) for each in figures_of_retrains]
    assert sum(map(bool, false)) <= 1, false


@for_each("name", ON_ANSWERS)
def test_the_order_of_the_references_does_not_matter(name: str) -> None:
    attack = ATTACKS[name]
    results = run_attack(attack, answers(50))
    reordered_results = run_attack(
        attack, answers(50), references=REFERENCES[::-1], calibration=CALIBRATION[::-1]
    )
    for figure, result in results.items():
        assert reordered_results[figure].value == pytest.approx(result.value)
        assert (reordered_results[figure].retrained, reordered_results[figure].margin) == pytest.approx(
            (result.retrained, result.margin)
        )


@for_each("name", ON_ANSWERS)
def test_a_retrain_has_the_same_figures_whenever_it_is_left_out(name: str) -> None:
    attack, models = ATTACKS[name], case(answers(50))
    fold = models.without(3)
    figures = figures_of(attack, fold.unlearned, fold.retrained)
    assert repr(figures) == repr(null_of(attack, models).references[3])  # repr: NaN equals itself


def test_what_can_not_be_attacked_is_refused() -> None:
    broken_answers = answers(50)
    broken_answers.logits["retain"][0, 0] = np.nan
    with pytest.raises(ValueError, match="plain needs finite logits, found NaN or infinity"):
        run_attack(PLAIN, answers(50), references=[*REFERENCES[:9], broken_answers])
    with pytest.raises(ValueError, match="can't run the attack u-lira: call unweave.audits.*ulira"):
        run_attack(ATTACKS["u-lira"], answers(50))


def test_a_distance_is_a_fault_on_one_side_only() -> None:
    distance = replace(PLAIN, above="other answers than retraining", below=None)
    low = answers(50)
    low.logits["forget"] -= 100
    assert run_attack(distance, low)["mean"].finding is None
    low.logits["forget"] += 200
    assert run_attack(distance, low)["mean"].finding == "other answers than retraining"


@for_each("name", ON_ANSWERS)
def test_a_single_forget_record_leaves_the_other_attacks_to_run(name: str) -> None:
    one_record = partial(take, forget=slice(1))
    models = {"references": [*map(one_record, REFERENCES)], "calibration": [*map(one_record, CALIBRATION)]}
    audited_models = replace(case(one_record(ORIGINAL), **models), original=None)
    for result in results_of(ATTACKS[name], audited_models, null_of(ATTACKS[name], audited_models)).values():
        assert np.isfinite(result.value)
