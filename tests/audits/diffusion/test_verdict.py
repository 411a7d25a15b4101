from dataclasses import replace

import numpy as np
import pytest

from audits.diffusion.toys import RETRAINED, SIZES, samples
from unweave.audits.diffusion.metrics import measure_generation
from unweave.audits.diffusion.verdict import (
    blindness,
    calibrate_generation,
    explain_low_power,
    judge_generation,
    list_never_generated,
)
from unweave.audits.equivalence import Equivalence
from unweave.audits.verdict import Judgement, Verdict

SEEDS = range(10)
ORIGINAL = (0.98, 0.01, 0.01, 0.0)
RESISTS = {"guidance": 2.0, "unasked": 0.0}
KNOWN = {"guidance": 100.0, "unasked": 25.0}


@pytest.fixture(scope="module")
def retrained():
    return [samples(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def margins():
    return calibrate_generation(
        [samples(seed) for seed in range(100, 112)], probes=[RESISTS] * 12, sizes=SIZES
    )


def metric_values(generators, references, **attacked: float):
    """What each makes beside its retrained one, and what attacks found."""
    pairs = zip(generators, references, strict=True)
    return [{**measure_generation(one, other), **attacked} for one, other in pairs]


@pytest.fixture
def judge_generators(retrained, margins):
    """The verdict on generators that make this of the forgotten class, and draw retained ones like this."""

    def judge_generators(
        turns=RETRAINED, *, before=ORIGINAL, wrong=0.02, blur=0.5, n=10, found=RESISTS
    ) -> Judgement:
        generators = [samples(seed + 200, turns, wrong=wrong, blur=blur) for seed in SEEDS[:n]]
        original = [samples(seed + 300, before) for seed in SEEDS[:n]]
        references = retrained[:n]
        values = metric_values(generators, references, **found)
        original_values = metric_values(original, references, **(KNOWN if found else {}))
        reference_values = [{**measure_generation(each), **(RESISTS if found else {})} for each in references]
        return judge_generation(
            values,
            reference_values,
            margins,
            original=original_values,
            missing=list_never_generated(original),
        )

    return judge_generators


def test_a_generator_that_does_as_retrained_ones_do_passes(judge_generators):
    judgement = judge_generators()
    assert judgement.verdict == Verdict.PASS
    assert judgement.reason.startswith(
        "PASS: UA, RA, KID, TV of classes, KID on F, classes on F, guidance and no condition equal "
        "retrained models' within the margins, over 10 seeds"
    )
    assert "the untouched original is" in judgement.reason


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"turns": ORIGINAL}, "under-forgetting: UA "),
        ({"turns": (0.6, 0.2, 0.1, 0.1)}, "under-forgetting: UA "),
        ({"turns": (0.05, 0.0, 0.95, 0.0)}, "unlike retraining: "),
        ({"wrong": 0.2}, "damage: RA "),
        ({"blur": 1.2}, "damage: KID "),
    ],
)
def test_a_fault_is_named(judge_generators, change, expected):
    judgement = judge_generators(**change)
    assert judgement.verdict == Verdict.FAIL
    assert expected in judgement.reason


def test_a_class_that_all_becomes_another_has_a_retrained_models_ua_and_still_fails(judge_generators):
    judgement = judge_generators((0.05, 0.0, 0.95, 0.0))
    assert judgement.tests["ua"].outcome == "equal"
    assert judgement.tests["class_tv"].finding == "unlike retraining"


def test_better_than_retraining_on_the_rest_is_no_fault(judge_generators):
    judgement = judge_generators(wrong=0.0)
    assert judgement.tests["ra"].outcome == "equal" and judgement.scores["ra"].gap > 0
    assert judgement.verdict == Verdict.PASS


def test_a_class_that_the_original_never_generates_is_inconclusive(judge_generators):
    judgement = judge_generators(before=(0.25, 0.25, 0.25, 0.25))
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert judgement.reason.startswith(
        "INCONCLUSIVE: nothing to forget: the original generates class 0 no more often "
    )
    assert judgement.reason.endswith(" of 1000 images are taken for it, chance is 250")


def test_a_class_whose_absence_nobody_sees_is_inconclusive_before_any_fail(retrained, margins):
    reference_values = [{**measure_generation(each), **RESISTS} for each in retrained]
    original_values = metric_values([samples(seed + 300) for seed in SEEDS], retrained, **RESISTS)
    judgement = judge_generation(
        metric_values([samples(seed + 200, wrong=0.2) for seed in SEEDS], retrained, **RESISTS),
        reference_values,
        margins,
        original=original_values,
    )
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert judgement.reason.startswith("INCONCLUSIVE: the forget set has no measurable influence: ")
    assert ". All the same, damage: RA " in judgement.reason


def test_what_else_is_missing_is_named_where_there_is_nothing_to_forget(judge_generators):
    judgement = judge_generators(before=(0.25, 0.25, 0.25, 0.25), n=3, found={})
    assert "chance is 75; 3 seeds, 10 needed; no attacks" in judgement.reason


def test_nothing_passes_without_attacks(judge_generators):
    judgement = judge_generators(found={})
    assert judgement.verdict == Verdict.INCONCLUSIVE
    assert (
        judgement.reason.startswith("INCONCLUSIVE: no verdict: no attacks")
        and "--attacks default" in judgement.reason
    )
    assert judge_generators(ORIGINAL, found={}).verdict == Verdict.FAIL


def test_a_class_that_comes_without_a_condition_or_without_guidance_is_not_forgotten(judge_generators):
    for name in RESISTS:
        judgement = judge_generators(found={**RESISTS, name: KNOWN[name]})
        assert judgement.verdict == Verdict.FAIL and "under-forgetting" in judgement.reason


def test_chance_is_one_image_in_as_many_as_there_are_classes():
    assert "class 0 no more often" in list_never_generated([samples(1, (0.2, 0.4, 0.2, 0.2))])
    assert list_never_generated([samples(1, (0.5, 0.5, 0.0, 0.0))]) == ""
    assert list_never_generated([]) == ""
    two_forgotten = samples(1, (0.5, 0.0, 0.5, 0.0), forgotten=(0, 3))
    assert "class 3 no more often than by chance: 0 of 100 images" in list_never_generated([two_forgotten])


def test_few_seeds_are_counted(judge_generators):
    assert judge_generators(n=3).reason == "INCONCLUSIVE: no verdict: 3 seeds, 10 needed"


def test_without_retrained_generators_there_is_no_verdict():
    judgement = judge_generation([measure_generation(samples(1))], [], None)
    assert judgement.reason.startswith("INCONCLUSIVE: no verdict: no retrained model to compare with")
    assert judgement.scores["ua"].value == measure_generation(samples(1))["ua"]


def test_attacks_have_margins_of_an_image_and_of_a_look_at_least():
    attack_shares = [{"vector": 4.0, "relearn_10": 20.0}] * 12
    margins_of_attacks = calibrate_generation(
        [samples(seed) for seed in range(12)], probes=attack_shares, sizes={**SIZES, "attack": 25}
    )
    assert margins_of_attacks.margin["vector"] == 4 and margins_of_attacks.margin["relearn_10"] == 10


def draw_mixture(seed: int, turns=None):
    """A retrained generator whose forgotten condition is a mixture of its own."""
    shares = np.append(0.0, np.random.default_rng(seed).dirichlet([0.5] * 3))
    return samples(seed + 400, shares if turns is None else turns)


ONE_OTHER = [(0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0)]


@pytest.fixture(scope="module")
def unsettled_margins():
    return calibrate_generation(
        [draw_mixture(seed) for seed in range(100, 112)], probes=[RESISTS] * 12, sizes=SIZES
    )


@pytest.mark.parametrize("turns", [None, *ONE_OTHER])
def test_where_retrained_generators_differ_as_much_as_the_original_nobody_passes(unsettled_margins, turns):
    references = [draw_mixture(seed) for seed in SEEDS]
    values = metric_values([draw_mixture(7, turns)] * 10, references, **RESISTS)
    original_values = metric_values([draw_mixture(7, ORIGINAL)] * 10, references, **KNOWN)
    reference_values = [{**measure_generation(each), **RESISTS} for each in references]
    judgement = judge_generation(values, reference_values, unsettled_margins, original=original_values)
    assert judgement.verdict == Verdict.INCONCLUSIVE, judgement.reason
    if "more seeds are needed" not in judgement.reason:
        assert "can't tell a model that always draws one other class from a retrained one" in judgement.reason


@pytest.mark.parametrize("turns", ONE_OTHER)
def test_a_generator_that_always_draws_one_other_class_does_not_pass(judge_generators, turns):
    assert judge_generators(turns).verdict == Verdict.FAIL


def test_a_distance_says_so_where_it_can_not_tell_the_original_from_a_retrained_generator():
    difference = Equivalence(0.9, 0.9, 0.9, 0.2, "different", "unlike retraining")
    equality = replace(difference, margin=2.0, outcome="equal", finding=None)
    references, margin = [{"top": 50.0}], {"class_tv": 0.2}
    one = {"class_tv": difference, "kid_forget": equality, "effective": equality}
    assert blindness(one) == "KID on F can't tell the original from a retrained model"
    assert explain_low_power(one, references, margin) == ""
    assert "one other class" in explain_low_power(one, references, {"class_tv": 0.5})
    assert explain_low_power({**one, "effective": difference}, references, {"class_tv": 0.5}) == ""
    equalities = {**one, "class_tv": equality}
    assert explain_low_power(equalities, references, margin).startswith(
        "TV of classes and KID on F can't tell the original"
    )


def test_no_margin_covers_the_whole_range_of_its_metric(unsettled_margins):
    assert 0.5 < unsettled_margins.margin["class_tv"] <= 0.95
