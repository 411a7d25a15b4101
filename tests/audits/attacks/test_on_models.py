"""Attacks that examine models: a class that is only hidden comes back, one that was never learnt does not."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.neighbors import NearestCentroid
from torch import nn

from audits.answers import draw_evidence, models_of_digit, one_digit, replace_logits
from audits.attacks.toy import answers
from for_each import for_each
from unweave.audits.answers import Answers
from unweave.audits.attack import Attack, Figures, Subject
from unweave.audits.attacks import (
    ATTACKS,
    compression,
    relearning,
    representation,
    streisand,
    update_alignment,
    zrf,
)
from unweave.audits.attacks.functional_distance import attack_figures as distances
from unweave.audits.attacks.zrf import fresh_copy
from unweave.audits.classifier.distance import js
from unweave.audits.classifier.logits import margin
from unweave.audits.classifier.probes import correctness, probe_features
from unweave.weights import sharded_model

EXAMINING = [name for name, attack in ATTACKS.items() if attack.examine]
DATA = one_digit()
BLANK = draw_evidence(0, classes=10)


@pytest.fixture(scope="module")
def trained() -> dict[str, nn.Module]:
    return models_of_digit(DATA, 3, bias=0)


def subject(model: nn.Module, original: nn.Module, cuts=None) -> Subject:
    return Subject(model, cuts or DATA.cuts, "cpu", original, DATA.forgotten_classes)


def figures(name: str, model: nn.Module, original: nn.Module, cuts=None) -> Figures:
    """The figures of one model without references."""
    attack: Attack = ATTACKS[name]
    assert attack.examine is not None and attack.figures is not None
    measurement = attack.examine(subject(model, original, cuts))
    return attack.figures(Answers(BLANK, measurements={name: measurement}), [])


@for_each("name", EXAMINING)
def test_models_stay_as_they_were_and_the_same_model_gives_the_same_figures(name: str, trained) -> None:
    model, original = trained["hidden"].train(), trained["original"]
    states = [copy.deepcopy(each.state_dict()) for each in (model, original)]
    state = torch.get_rng_state()
    first, second = (figures(name, model, original) for _ in range(2))
    assert first == second and model.training
    assert torch.equal(state, torch.get_rng_state())
    for each, values in zip((model, original), states, strict=True):
        assert all(torch.equal(values[key], value) for key, value in each.state_dict().items())


@for_each("name", EXAMINING)
def test_figures_lie_in_their_intervals_and_ranges(name: str, trained) -> None:
    for each in figures(name, trained["hidden"], trained["original"]).values():
        assert 0 <= each.low <= each.value <= each.high <= 1


def test_a_hidden_class_is_relearnt_sooner_than_one_that_was_never_learnt(trained) -> None:
    hidden, retrained, second, original = (
        figures("relearning", trained[each], trained["original"])
        for each in ("hidden", "retrained", "second", "original")
    )
    for name in [each for each in hidden if each.startswith("from ") and " of " in each]:
        distance = abs(retrained[name].value - second[name].value)
        assert hidden[name].value > retrained[name].value + 5 * distance
        assert original[name].value == pytest.approx(1, abs=0.02)


def test_relearning_says_on_what_it_trains_and_what_it_leaves_out(trained) -> None:
    counts: list[tuple[int, bool]] = []
    model = copy.deepcopy(trained["hidden"])
    model.register_forward_hook(lambda _, __, output: counts.append((len(output), torch.is_grad_enabled())))
    rows = DATA.parts["retain"]
    for size, names in (
        (2, ["from 1 of 2", "from retain data"]),
        (120, ["from 2 of 120", "from 6 of 120", "from 12 of 120", "from retain data"]),
        (300, [f"from {n} of 300, 200 asked" for n in (3, 15, 30)] + ["from retain data, 200 asked"]),
        (1400, [f"from {n} of 1400, 200 asked" for n in (13, 64, 128)] + ["from retain data, 200 asked"]),
    ):
        cuts = {**DATA.cuts, "forget": (DATA, rows.repeat(3)[:size])}
        assert [*figures("relearning", model, trained["original"], cuts)] == names
    assert max(examples for examples, trains in counts if trains) <= 128
    assert max(examples for examples, _ in counts) <= 200


def test_a_recovery_curve_begins_at_the_accuracy_and_its_mean_after_it_is_the_figure(trained) -> None:
    measurement = relearning.examine(subject(trained["original"], trained["original"]))
    model = Answers(BLANK, measurements={"relearning": measurement})
    curves, areas = relearning.recovery_curves(model), relearning.attack_figures(model, [])
    assert curves.keys() == areas.keys()
    for name, (start, *accuracies) in curves.items():
        assert len(accuracies) == relearning.STEPS and np.mean(accuracies) == pytest.approx(areas[name].value)
        shares = np.asarray(measurement[name])
        assert start * len(shares) == pytest.approx(round(start * len(shares)))
    (cut, order) = DATA.cuts["forget"]
    (batch,) = cut.stream([order])
    is_right = correctness(trained["original"], batch, "cpu")
    curve = relearning.recovery_curves(model)["from retain data"]
    assert curve[0] == pytest.approx(float(is_right.mean()))


@for_each("name", EXAMINING)
def test_an_examination_takes_what_a_budget_counts(name: str, trained) -> None:
    costs = []
    model, original = (copy.deepcopy(trained[each]) for each in ("hidden", "original"))

    def count(module, inputs, output) -> None:
        costs.append(-(-len(output) // 128) * (1 if torch.is_grad_enabled() else 1 / 3))

    for each in (model, original):
        each.register_forward_hook(count)
    figures(name, model, original)
    assert ATTACKS[name].gradients / 20 <= sum(costs) <= 1.1 * ATTACKS[name].gradients


def test_the_head_plays_no_part_in_the_representation(trained) -> None:
    hidden_figures, original_figures = (
        figures("representation", trained[each], trained["original"]) for each in ("hidden", "original")
    )
    assert hidden_figures == original_figures


def test_the_linear_probe_is_that_of_a_verdict(trained) -> None:
    value = figures("representation", trained["hidden"], trained["original"])["linear probe"].value
    expected = probe_features(trained["hidden"], DATA.cuts["forget"], DATA.cuts["retain"], device="cpu")
    assert value == pytest.approx(expected["probe"] / 100, abs=0.05)  # other halves of F


def test_the_nearest_centre_is_sklearns() -> None:
    rng = torch.Generator().manual_seed(0)
    fit, labels = torch.randn(60, 4, generator=rng).double(), torch.arange(60) % 3 + 2
    queries = torch.randn(40, 4, generator=rng).double()
    expected = NearestCentroid().fit(fit.numpy(), labels.numpy()).predict(queries.numpy())
    assert representation.nearest_centre(fit, labels, queries).tolist() == expected.tolist()


def test_few_shots_are_at_most_five_of_each_class() -> None:
    labels = torch.tensor([0] * 20 + [4] * 3)
    positions = representation.first_of_each(labels, torch.Generator().manual_seed(0))
    assert labels[positions].bincount(minlength=5).tolist() == [5, 0, 0, 0, 3]


def test_membership_is_found_where_members_are_elsewhere(trained) -> None:
    """On features of the inputs themselves, with retain and forget examples moved by one step."""
    moved_data = replace(DATA, inputs=DATA.inputs.clone())
    for part in ("retain", "forget"):
        moved_data.inputs[DATA.parts[part]] += 1
    data = replace(moved_data, forgotten_classes=())
    model = nn.Sequential(nn.Identity(), nn.Linear(64, 10))
    cuts = {part: (data, order) for part, order in data.parts.items()}
    measurement = representation.examine(Subject(model, cuts, "cpu", model))
    values = representation.attack_figures(Answers(BLANK, measurements={"representation": measurement}), [])
    assert values["membership"].value > 0.95
    unseen = torch.arange(700, 1100)[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    cuts = {"retain": DATA.cuts["retain"], "forget": (DATA, unseen[:200])}
    cuts["calibration"] = (DATA, unseen[200:])
    measurement = representation.examine(Subject(model, cuts, "cpu", model))
    values = representation.attack_figures(Answers(BLANK, measurements={"representation": measurement}), [])
    assert values["membership"].value == pytest.approx(0.5, abs=0.12)


class TestZRF:
    def test_an_untrained_network_has_a_score_near_one_and_a_trained_one_has_not(self, trained):
        # spec: ZRF(random net) ~ 1; 1 is no aim, it is over-forgetting
        original = trained["original"]
        untrained_score = figures("zrf", fresh_copy(original, 99), original)["zrf"].value
        original_score = figures("zrf", original, original)["zrf"].value
        assert untrained_score > 0.9 > original_score + 0.2
        assert ATTACKS["zrf"].above == "over-forgetting"

    def test_it_is_one_less_the_mean_divergence(self, trained):
        original, model = trained["original"], trained["hidden"]
        _, order = DATA.cuts["forget"]
        with torch.no_grad():
            ours = model(DATA.inputs[order]).numpy()
            theirs = [fresh_copy(original, seed)(DATA.inputs[order]).numpy() for seed in range(zrf.TEACHERS)]
        base = draw_evidence(0, {"forget": len(order), "retain": 1, "calibration": 1, "test": 1}, classes=10)
        expected = np.mean(
            [js(replace_logits(base, forget=ours), replace_logits(base, forget=each)) for each in theirs]
        )
        value = figures("zrf", model, original)["zrf"].value
        assert value == pytest.approx(1 - expected, abs=1e-6)

    def test_a_model_that_can_not_start_over_is_refused(self):
        class Raw(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(3))

        with pytest.raises(ValueError, match=r"module .Raw. has weights but no reset_.*leave out zrf"):
            fresh_copy(Raw(), 0)


class TestCompression:
    def test_pruning_removes_the_smaller_half(self):
        weight = torch.tensor([[1.0, -4.0], [3.0, -2.0]])
        assert compression.prune(weight).tolist() == [[0.0, -4.0], [3.0, 0.0]]

    def test_a_class_that_a_small_step_hides_comes_back_with_4_bits(self, trained):
        # a step below half of the rounding: catastrophic failure by quantisation
        original = trained["original"]
        rounded_model = copy.deepcopy(original)
        with torch.no_grad():
            for p in rounded_model.parameters():
                if p.ndim >= 2:
                    p.copy_(compression.with_one_scale(p, 4))
            nudged_model = copy.deepcopy(rounded_model)
            step = float(rounded_model[2].weight.abs().max()) / 7
            nudged_model[2].weight[3] -= (
                0.45 * step * (rounded_model[2].weight[3] < rounded_model[2].weight.abs().max()).float()
            )
            nudged_model[2].weight[3].clamp_(-7 * step, 7 * step)
        accuracy = figures("compression", rounded_model, original)["accuracy, 4 bit"].value
        assert figures("compression", nudged_model, original)["accuracy, 4 bit"].value == accuracy
        _, order = DATA.cuts["forget"]
        with torch.no_grad():
            hit = [
                float((m(DATA.inputs[order]).argmax(1) == 3).float().mean())
                for m in (rounded_model, nudged_model)
            ]
        assert hit[1] < hit[0]

    def test_a_sharded_model_is_refused(self, trained, monkeypatch):
        monkeypatch.setattr(sharded_model, "is_sharded", lambda tensor: True)
        with pytest.raises(ValueError, match="a sharded model can't be copied, and compression needs a copy"):
            figures("compression", trained["hidden"], trained["original"])


class TestAlignment:
    def ascended(self, original: nn.Module, rate: float = 0.01) -> nn.Module:
        model, (_, order) = copy.deepcopy(original), DATA.cuts["forget"]
        loss = nn.functional.cross_entropy(model(DATA.inputs[order[:20]]), DATA.labels[order[:20]])
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                p.add_(rate * p.grad)
                p.grad = None
        return model

    def test_ascent_points_at_its_records(self, trained):
        original = trained["original"]
        cuts = {**DATA.cuts, "forget": (DATA, DATA.parts["forget"][:20])}
        value = figures("update-alignment", self.ascended(original), original, cuts)["auc"].value
        assert value > 0.6

    def test_a_single_record_has_a_cosine_of_one(self, trained):
        original = copy.deepcopy(trained["original"])
        (record,) = DATA.parts["forget"][:1]
        loss = nn.functional.cross_entropy(original(DATA.inputs[record][None]), DATA.labels[record][None])
        model = copy.deepcopy(original)
        with torch.no_grad():
            slopes = torch.autograd.grad(loss, [*original.parameters()])
            for p, slope in zip(model.parameters(), slopes, strict=True):
                p.add_(slope)
        measurement = update_alignment.examine(
            subject(model, original, {**DATA.cuts, "forget": (DATA, record[None])})
        )
        assert measurement["forget"] == pytest.approx([1.0], abs=1e-4)
        assert max(measurement["unseen"]) < 1

    def test_no_update_has_no_figure(self, trained):
        original = trained["original"]
        assert figures("update-alignment", copy.deepcopy(original), original) == {}

    def test_the_update_is_over_the_weights_that_the_original_trains(self, trained):
        original, model = copy.deepcopy(trained["original"]), self.ascended(trained["original"])
        expected = figures("update-alignment", model, original)
        assert figures("update-alignment", copy.deepcopy(model).requires_grad_(False), original) == expected
        original[0].requires_grad_(False)
        frozen_model = copy.deepcopy(original)
        with torch.no_grad():
            frozen_model[0].weight.add_(1.0)
        assert figures("update-alignment", frozen_model, original) == {}

    def test_another_architecture_is_refused(self, trained):
        other = nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))
        with pytest.raises(ValueError, match="an update is between two models of one architecture"):
            figures("update-alignment", other, trained["original"])


@for_each("name", ["representation", "relearning", "update-alignment"])
def test_too_few_examples_have_no_figure(name: str, trained) -> None:
    cuts = {**DATA.cuts, "forget": (DATA, DATA.parts["forget"][:1])}
    assert figures(name, trained["hidden"], trained["original"], cuts) == {}


class TestOnAnswers:
    def test_distances_are_means_over_the_references(self):
        ours, theirs = answers(1), [answers(2), answers(3)]
        values = distances(Answers(ours), [*map(Answers, theirs)])
        assert values["js in bits"].value == pytest.approx(np.mean([js(ours, each) for each in theirs]))
        differs = [ours.logits["forget"].argmax(1) != each.logits["forget"].argmax(1) for each in theirs]
        assert values["disagreement"].value == pytest.approx(np.mean(differs))
        assert distances(Answers(ours), []) == {}

    def test_opposite_answers_are_as_far_as_can_be_and_the_defect_of_released_code_is_not_bounded(self):
        """SSD's and Bad Teacher's code take KL(m || p), as a mean over classes as well."""
        base = draw_evidence(0)
        logits = np.full((100, 4), -50.0, dtype=np.float32)
        one, other = logits.copy(), logits.copy()
        one[:, 0] = other[:, 1] = 50.0
        values = distances(
            Answers(replace_logits(base, forget=one)), [Answers(replace_logits(base, forget=other))]
        )
        assert [each.value for each in values.values()] == pytest.approx([1.0, 1.0, 1.0])
        p, q = np.array([1 - 3e-6, 1e-6, 1e-6, 1e-6]), np.array([1e-6, 1 - 3e-6, 1e-6, 1e-6])
        middle = (p + q) / 2
        released_value = sum((middle * np.log(middle / each)).mean() for each in (p, q)) / 2
        assert released_value > math.log(2)  # KL(m || p) is unbounded, and it is an average over classes

    def test_the_tail_of_a_retrained_model_is_one_in_a_hundred(self):
        retrains = [Answers(answers(seed)) for seed in range(60, 80)]
        tails = [
            streisand.attack_figures(each, retrains[:i] + retrains[i + 1 :])["tail"].value
            for i, each in enumerate(retrains)
        ]
        assert np.mean(tails) == pytest.approx(0.01, abs=0.004)
        flipped_answers = answers(60, lift=-20.0)
        assert streisand.attack_figures(Answers(flipped_answers), retrains)["tail"].value > 0.9

    def test_the_distance_of_entropies_is_scipys(self):
        evidence = answers(5)
        entropies = [
            -(p * np.log(p)).sum(1)
            for part in ("forget", "calibration")
            for p in [np.exp(evidence.logits[part].astype(float))]
            for p in [p / p.sum(1, keepdims=True)]
        ]
        expected = ks_2samp(*entropies).statistic
        assert streisand.entropy_distance(evidence) == pytest.approx(expected)

    def test_the_interval_of_that_distance_holds_the_true_one(self):
        share = 0.3  # a share of F is as unsure as nothing else, so the distribution functions differ by it
        for seed in range(20):
            evidence, draws = answers(seed), np.random.default_rng(seed)
            evidence.logits["forget"][draws.random(120) < share] = 0
            each = streisand.distance_interval(evidence)
            assert 0 <= each.low <= share <= each.high <= 1
        # sqrt(log(4 / 0.05) / 240) for each of the two samples of 120
        assert each.high - each.value == pytest.approx(2 * 0.13513, abs=1e-4)

    def test_a_flat_model_stands_out_by_its_entropy(self):
        flat_answers = answers(5)
        flat_answers.logits["forget"][:] = 0
        assert streisand.entropy_distance(flat_answers) > 0.9
        assert margin(flat_answers.logits["forget"], flat_answers.labels["forget"]) == pytest.approx(
            -np.log(3)
        )
