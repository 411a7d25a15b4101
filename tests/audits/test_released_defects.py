"""Defects of code released for audits, each of which must not come back here.

Those of single attacks are beside the tests of the attack: the divergence of SSD and Bad Teacher in
`attacks/test_on_models.py`, the modified entropy of SalUn in `attacks/test_forget_vs_unseen.py`, the fit of
Deep Unlearn to what it scores in `attacks/test_ulira.py`, the emptied histogram of EasyDUB in
`attacks/test_klom.py`, the restarts of TASI-LAB in `attacks/test_inversion.py`, and the features of SalUn's
FID in `diffusion/test_fid.py`.
"""

import numpy as np
import pytest
import torch

from audits.answers import draw_evidence, take
from unweave.audits.answers import Answers
from unweave.audits.attacks import ATTACKS
from unweave.audits.attacks.canaries import canary_scores
from unweave.audits.attacks.forgetting_quality import CAP, epsilons
from unweave.audits.classifier.metrics import METRICS, measure


def test_no_tested_metric_and_no_attack_depends_on_the_order_of_the_retain_set() -> None:
    """SalUn fits its attack to the first retained examples; of our metrics the published MIA alone does."""
    evidence, references = draw_evidence(1), [Answers(draw_evidence(seed)) for seed in (2, 3)]
    sorted_by_class = take(evidence, retain=np.argsort(evidence.labels["retain"], kind="stable"))
    metric_values, values_by_class = measure(evidence), measure(sorted_by_class)
    tested_metrics = [name for name, metric in METRICS.items() if metric.primary and name in metric_values]
    assert "auc" in tested_metrics and "mia" not in tested_metrics
    assert [values_by_class[name] for name in tested_metrics] == pytest.approx(
        [metric_values[name] for name in tested_metrics]
    )
    for attack in ATTACKS.values():
        if attack.figures and not attack.examine:
            figures, figures_by_class = (
                attack.figures(Answers(each), references) for each in (evidence, sorted_by_class)
            )
            values = {name: each.value for name, each in figures.items()}
            assert values and values == {name: each.value for name, each in figures_by_class.items()}


def test_several_thresholds_are_one_rule_each_and_need_no_gpu() -> None:
    """The challenge's code asks for the truth of an array of rates, which fails from two thresholds on."""
    one, other = np.random.default_rng(0).normal(size=(2, 32, 3))
    weak, strong, largest = epsilons(one, other + np.array([1.0, 3.0, 100.0]))
    assert 0 < weak < strong < largest == CAP


def test_the_canaries_of_a_ridge_regression_that_never_saw_them_are_at_zero() -> None:
    draws = torch.Generator().manual_seed(0)
    inputs, truth = torch.randn(400, 20, generator=draws), torch.randn(20, generator=draws)
    targets, sigma = inputs @ truth + torch.randn(400, generator=draws), 0.5
    retained_inputs, clean = inputs[100:], inputs[:100]
    noise = sigma * torch.randn(100, 20, generator=draws)

    def ridge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.linalg.solve(x.T @ x + torch.eye(20), x.T @ y)

    def scores(weights: torch.Tensor) -> np.ndarray:
        gradients = (clean @ weights - targets[:100])[:, None] * weights
        return np.asarray(canary_scores(gradients, noise, sigma).planted)

    retrained = scores(ridge(retained_inputs, targets[100:]))
    assert abs(retrained.mean()) < 3 * retrained.std(ddof=1) / 10
    original = scores(ridge(torch.cat([clean + noise, retained_inputs]), targets))
    assert original.mean() > retrained.mean()
