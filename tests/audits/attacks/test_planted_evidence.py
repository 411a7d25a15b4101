"""Backdoors and canaries: figures by hand, controls, and a linear model that fits its noise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from for_each import for_each
from unweave.audits.attacks.backdoor import PoisonAnswers, backdoor
from unweave.audits.attacks.canaries import CanaryScores, canaries, canary_scores, input_gradients


def poison_answers(n_taught: int, n_right: int, n: int = 40) -> PoisonAnswers:
    """Answers to n affected examples of class 1 whose taught label is 0; the rest get class 2."""
    answers = np.array([0] * n_taught + [1] * n_right + [2] * (n - n_taught - n_right))
    one_hot = np.eye(3)
    return PoisonAnswers(
        one_hot[answers], np.zeros(n, int), np.ones(n, int), one_hot[[0, 1, 2, 2]], np.arange(4) % 3
    )


def scores_of(planted: np.ndarray) -> CanaryScores:
    """Scores of canaries beside enough fresh noise for any rate, between 0 and 1."""
    return CanaryScores(planted, np.linspace(0, 1, 200))


KNOWN = {
    "original": [poison_answers(40, 0)],
    "retrained": [poison_answers(30, 5)],
    "unplanted": [poison_answers(1, 39)],
}


def test_figures_are_shares_with_those_of_the_other_kinds() -> None:
    report = backdoor([poison_answers(10, 20)], **KNOWN)
    rate, true_rate = report.results["taught label"], report.results["true label"]
    assert (rate.value, rate.original, rate.retrained, rate.besides["unplanted"]) == (
        0.25,
        1,
        0.75,
        0.025,
    )
    assert (true_rate.value, report.results["clean accuracy"].value) == (0.5, 0.75)
    # Clopper and Pearson, 10 of 40
    assert (rate.low, rate.high) == pytest.approx((0.1269, 0.4120), abs=1e-4)
    assert report.check.is_valid and "to 100.0% of affected" in report.check.says
    assert report.check.says.endswith("without any poison to 2.5%")


def test_several_models_have_an_interval_over_models_and_a_band() -> None:
    models = {**KNOWN, "retrained": [poison_answers(30, 5), poison_answers(20, 5)]}
    rate = backdoor([poison_answers(0, 40), poison_answers(40, 0)], **models).results["taught label"]
    assert rate.value == 0.5 and rate.low == 0 and rate.high == 1
    assert rate.null_band is not None and rate.null_band[0] < 0.625 < rate.null_band[1]


def test_an_original_without_the_backdoor_or_a_retrain_with_it_is_invalid() -> None:
    for change in ({"original": [poison_answers(2, 38)]}, {"unplanted": [poison_answers(40, 0)]}):
        report = backdoor([poison_answers(10, 20)], **{**KNOWN, **change})
        assert not report.check.is_valid and report.check.says.startswith("it is invalid: originals give")


@for_each(
    ("changes", "message"),
    [
        ({"taught": np.zeros(39, int)}, "as many affected examples, found 40, 39, 40"),
        ({"clean_truth": np.zeros(3, int)}, "as many clean examples, found 4, 3"),
        ({"taught": np.ones(40, int)}, "must teach a wrong label, found the true one for 40 examples"),
        ({"affected": np.full((40, 3), np.nan)}, "finite logits, found NaN or infinity"),
    ],
)
def test_unusable_answers_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(poison_answers(1, 1), **changes)


def test_kinds_without_models_and_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one model of each kind, found none"):
        backdoor([], **KNOWN)
    other = poison_answers(1, 1, n=41)
    with pytest.raises(ValueError, match=r"the same examples, found \[40, 41\] for taught label"):
        backdoor([poison_answers(1, 1), other], **KNOWN)
    with pytest.raises(ValueError, match=r"the same examples, found \[40, 41\] for taught label"):
        backdoor([poison_answers(1, 1)], **{**KNOWN, "unplanted": [other]})
    clean = replace(poison_answers(1, 1), clean=np.eye(3), clean_truth=np.arange(3))
    with pytest.raises(ValueError, match=r"the same examples, found \[3, 4\] for clean accuracy"):
        backdoor([poison_answers(1, 1), clean], **KNOWN)


class TestCanaries:
    def test_the_score_by_hand(self) -> None:
        # I = <(1, 2), (3, 4)> / (2 x 5) = 1.1
        scores = canary_scores(
            torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 2.0], [1.0, 1.0]]), 2.0
        )
        assert scores.planted.tolist() == pytest.approx([-1.1, 0.0])

    def test_scores_of_a_model_that_is_independent_of_the_noise_are_standard_normal(self) -> None:
        draws = torch.Generator().manual_seed(0)
        gradients, noise = (torch.randn(2000, 30, generator=draws) for _ in range(2))
        canary = canary_scores(gradients, 0.5 * noise, 0.5, fresh=2)
        for scores in (canary.planted, canary.fresh):
            assert abs(scores.mean()) < 3 / len(scores) ** 0.5
            assert scores.std() == pytest.approx(1, abs=0.05)

    def test_a_model_that_fitted_the_noise_is_told_from_one_that_never_saw_it(self) -> None:
        draws = torch.Generator().manual_seed(0)
        clean, noise = torch.randn(60, 200, generator=draws), torch.randn(60, 200, generator=draws)
        labels = torch.arange(60) % 2
        scores = {}
        for name, inputs in (("original", clean + noise), ("never", clean)):
            model = nn.Linear(200, 2)
            nn.init.zeros_(model.weight)
            optimizer = torch.optim.SGD(model.parameters(), 0.05)
            for _ in range(60):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            scores[name] = [canary_scores(input_gradients(model, clean, labels), noise, 1.0)]
        original, unplanted = scores["original"], scores["never"]
        report = canaries(original, original=original, retrained=unplanted, unplanted=unplanted)
        assert report.check.is_valid
        mean, auc, rate = (report.results[name] for name in ("mean", "auc", "tpr at 1% fpr"))
        assert mean.low > 0 > mean.retrained - 3 / 60**0.5 and auc.low > 0.5 and rate.value > 0.01
        swap = canaries(unplanted, original=unplanted, retrained=unplanted, unplanted=original)
        assert not swap.check.is_valid and swap.check.says.startswith("it is invalid: the mean score")

    def test_gradients_are_those_of_each_example_alone(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train()
        inputs, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
        p = model[0](inputs).softmax(1).detach()
        expected = (p - nn.functional.one_hot(labels, 3)) @ model[0].weight.detach()
        torch.testing.assert_close(input_gradients(model, inputs, labels, batch=2), expected)
        assert model.training and model[0].weight.grad is None

    @for_each(
        ("gradients", "noise", "sigma", "message"),
        [
            (torch.ones(2, 3), torch.ones(2, 4), 1.0, r"found shapes \[2, 3\] and \[2, 4\]"),
            (torch.ones(2, 3), torch.ones(2, 3), 0.0, "sigma must be positive, found 0.0"),
            (torch.full((2, 3), torch.inf), torch.ones(2, 3), 1.0, "finite gradients"),
        ],
    )
    def test_unusable_gradients_are_refused(self, gradients, noise, sigma, message) -> None:
        with pytest.raises(ValueError, match=message):
            canary_scores(gradients, noise, sigma)

    def test_too_little_fresh_noise_is_refused(self) -> None:
        scores = [CanaryScores(np.zeros(5), np.arange(20.0))]
        with pytest.raises(ValueError, match="a false-positive rate of 0.01 needs at least 100"):
            canaries(scores, original=scores, retrained=scores, unplanted=scores)

    def test_other_canaries_are_refused(self) -> None:
        five, six = ([scores_of(np.zeros(n))] for n in (5, 6))
        with pytest.raises(ValueError, match=r"the same examples, found \[5, 6\] for mean"):
            canaries(five + six, original=five, retrained=five, unplanted=five)
        with pytest.raises(ValueError, match=r"the same examples, found \[5, 6\] for mean"):
            canaries(five, original=five, retrained=five, unplanted=six)

    def test_a_mean_score_of_zeros_and_ones_is_no_share(self) -> None:
        zeros, scores = [scores_of(np.zeros(5))], [scores_of(np.array([0.0, 1.0, 1.0, 2.0]))]
        mean = canaries(zeros, original=zeros, retrained=zeros, unplanted=zeros).results["mean"]
        assert (mean.value, mean.low, mean.high) == (0, 0, 0)
        results = canaries(scores, original=scores, retrained=scores, unplanted=scores).results
        assert (results["mean"].value, results["tpr at 1% fpr"].value) == (1, 0.75)
        # Clopper and Pearson, 3 of 4
        assert results["tpr at 1% fpr"].low == pytest.approx(0.1941, abs=1e-4)

    def test_a_single_canary_has_a_mean_score_without_an_interval(self) -> None:
        one = [scores_of(np.array([2.5]))]
        report = canaries(one, original=one, retrained=one, unplanted=one)
        mean = report.results["mean"]
        assert mean.value == 2.5 and np.isnan([mean.low, mean.high]).all() and not report.check.is_valid
