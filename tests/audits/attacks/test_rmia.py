import numpy as np
import pytest

from audits.answers import draw_evidence
from unweave.audits.attacks.rmia import GAMMA, A, Confidences, scores
from unweave.audits.classifier.logits import confidence
from unweave.audits.rates import delong, tpr_at_fpr


def model(seed: int, shift: float = 0.0, examples: int = 400) -> Confidences:
    """One difficulty per example, noise per model, and a shift of the logit on F."""
    hardness_rng, rng = np.random.default_rng(99), np.random.default_rng(seed)
    logits = [hardness_rng.normal(1, 2, examples) + rng.normal(size=examples) for _ in range(3)]
    logits[0] += shift
    return Confidences(*(1 / (1 + np.exp(-each)) for each in logits))


def test_the_score_is_the_papers_share_pair_by_pair() -> None:
    target, references = model(0, 1.0, 30), [model(1, examples=30), model(2, examples=30)]
    shares = scores(target, references, "forget", a=0.4, gamma=1.2)
    for i, score in enumerate(shares):
        count = 0
        for j in range(30):
            p_x, p_z = (
                (1.4 * (references[0].parts[name][k] + references[1].parts[name][k]) / 2 + 0.6) / 2
                for name, k in (("forget", i), ("population", j))
            )
            count += (target.forget[i] / p_x) / (target.population[j] / p_z) >= 1.2
        assert score == count / 30


def attack(target: Confidences, references: list[Confidences]) -> dict[str, float]:
    members, nonmembers = (
        scores(target, references, part, a=A, gamma=GAMMA) for part in ("forget", "unseen")
    )
    return {"auc": delong(members, nonmembers)[0], "tpr": tpr_at_fpr(members, nonmembers, 0.1)[1].value}


def test_a_retrained_model_is_at_chance_and_a_shift_is_found() -> None:
    retrained = [model(seed) for seed in range(1, 6)]
    null, figures = attack(model(10), retrained), attack(model(10, 2.0), retrained)
    assert null["auc"] == pytest.approx(0.5, abs=0.05)
    retrained_figures = [attack(each, retrained[:i] + retrained[i + 1 :]) for i, each in enumerate(retrained)]
    for name in ("auc", "tpr"):
        assert figures[name] > max(each[name] for each in (null, *retrained_figures)) + 0.1


def test_a_constant_output_tells_nothing() -> None:
    constant = Confidences(*[np.full(50, 0.1)] * 3)
    assert attack(constant, [constant, constant]) == {"auc": 0.5, "tpr": 0}


def test_confidences_are_cut_from_evidence() -> None:
    evidence = draw_evidence(1)
    held_out = confidence(evidence.logits["calibration"], evidence.labels["calibration"])
    confidences = Confidences.of(evidence)
    assert np.array_equal(confidences.unseen, held_out[::2]) and np.array_equal(
        confidences.population, held_out[1::2]
    )
    assert len(confidences.forget) == len(evidence.labels["forget"])
