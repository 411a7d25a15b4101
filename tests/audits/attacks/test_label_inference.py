"""Label inference: a class that is deleted whole is named, after a retrain as well: no finding."""

import copy
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from audits.answers import draw_evidence, models_of_digit, one_digit
from audits.attacks.toy import answers
from for_each import for_each
from unweave.audits.answers import Answers
from unweave.audits.attack import Figures, Subject
from unweave.audits.attack_runs.compare import AuditedModels
from unweave.audits.attack_runs.plan import Plan, Request
from unweave.audits.attack_runs.report import AttackReport
from unweave.audits.attack_runs.run import run_attacks
from unweave.audits.attacks import label_inference, last_layer_bias
from unweave.audits.attacks.label_inference import label_from_probes
from unweave.audits.attacks.last_layer_bias import label_from_bias
from unweave.audits.attacks.update_alignment import loss_gradient

DIGIT = 3
DATA = one_digit()
BOTH = [label_inference, last_layer_bias]


@pytest.fixture(scope="module")
def trained() -> dict[str, nn.Module]:
    return models_of_digit(DATA, DIGIT, bias=-15)


def examine(attack: ModuleType, model: nn.Module, original: nn.Module, cuts=None) -> Answers:
    measurement = attack.examine(Subject(model, cuts or DATA.cuts, "cpu", original, DATA.forgotten_classes))
    return Answers(draw_evidence(0, classes=10), measurements={attack.NAME: measurement})


def only(figures: Figures):
    (figure,) = figures.values()
    return figure


@for_each("attack", BOTH)
def test_a_class_that_an_adversary_removes_whole_is_named(attack: ModuleType, trained) -> None:
    answer = examine(attack, trained["hidden"], trained["original"])
    assert only(attack.attack_figures(answer, [])).value > 0.99
    check = attack.check(answer, None)
    assert check.is_valid and f"concerns class {DIGIT}, and the forget set has examples of it" in check.says


def test_it_is_named_by_the_answers_of_a_retrain_as_well(trained) -> None:
    for name in ("retrained", "second"):
        answer = examine(label_inference, trained[name], trained["original"])
        assert only(label_inference.attack_figures(answer, [])).low > 0.9
        assert label_inference.name_class(answer.measurements["label-inference"]) == DIGIT


@for_each("attack", BOTH)
def test_an_original_beside_itself_leaks_nothing(attack: ModuleType, trained) -> None:
    answer = examine(attack, copy.deepcopy(trained["original"]), trained["original"])
    assert only(attack.attack_figures(answer, [])).value == 0.5
    assert "differs from the original's" in attack.check(answer, None).says


def kept_answers(fall: float, seed: int) -> Answers:
    """A model whose answers to 100 examples of class 0 lost `fall` deviations more than 300 of others."""
    labels, draws = np.arange(400) % 4, np.random.default_rng(seed)
    losses = draws.normal(size=400) + fall * (labels == 0)
    measurement = {
        "before": [1.0] * 400,
        "after": (1 - losses).tolist(),
        "label": labels.tolist(),
        "concerned": [0.0],
    }
    return Answers(answers(seed), measurements={label_inference.NAME: measurement})


def kept_bias(fall: float, seed: int) -> Answers:
    """A model of ten classes whose first bias fell `fall` deviations more than the others."""
    change = np.random.default_rng(seed).normal(size=10)
    change[0] -= fall
    measurement = {"change": change.tolist(), "concerned": [0.0]}
    return Answers(draw_evidence(seed, classes=10), measurements={last_layer_bias.NAME: measurement})


def attack_models(attack: ModuleType, unlearned: Answers, retrained: Sequence[Answers]) -> AttackReport:
    models = AuditedModels(unlearned, retrained[:10], retrained[10:])
    return run_attacks(Plan(Request(), [attack.ATTACK], {}), models, lambda answers, references: [])


CASES = [(label_inference, kept_answers), (last_layer_bias, kept_bias)]


@for_each(("attack", "kept"), CASES)
def test_a_leak_that_retrains_have_as_well_is_no_finding(attack: ModuleType, kept) -> None:
    report = attack_models(attack, kept(3.0, 50), [kept(3.0, seed) for seed in range(22)])
    (result,) = report.results[attack.NAME].values()
    assert result.value > 0.9 and result.retrained is not None and result.retrained > 0.9
    assert report.faults == [] and report.controls[0].is_right


@for_each(("attack", "kept"), CASES)
def test_a_leak_that_retrains_do_not_have_is_a_finding_and_a_smaller_one_is_none(
    attack: ModuleType, kept
) -> None:
    report = attack_models(attack, kept(6.0, 50), [kept(0.0, seed) for seed in range(22)])
    (result,) = report.results[attack.NAME].values()
    assert result.null_band is not None and result.null_band[0] < 0.5 < result.null_band[1]
    is_found = attack is label_inference  # one bias among ten is no sign if those of retrains are at chance
    assert [each.split(":")[0] for each in report.faults] == ["a leak of the deletion"] * is_found
    steady = attack_models(attack, kept(0.0, 50), [kept(6.0, seed) for seed in range(22)])
    assert steady.faults == []


def test_a_bias_that_names_what_those_of_retrains_never_do_is_a_finding() -> None:
    def rank(count: int, seed: int) -> Answers:
        change = [0.0, *([1.0] * count), *([-1.0] * (9 - count))]
        return Answers(
            draw_evidence(seed, classes=10),
            measurements={last_layer_bias.NAME: {"change": change, "concerned": [0.0]}},
        )

    retrained = [rank(4 + seed % 2, seed) for seed in range(22)]
    (fault,) = attack_models(last_layer_bias, rank(9, 50), retrained).faults
    assert fault.startswith("a leak of the deletion: the attack last-layer-bias finds")
    assert attack_models(last_layer_bias, rank(6, 50), retrained).faults == []  # a step or two of one class


def test_the_figures_are_those_by_hand() -> None:
    measurement = {
        "before": [0.9, 0.9, 0.9, 0.9, 0.9],
        "after": [0.1, 0.8, 0.9, 0.7, 0.8],  # lost: 0.8, 0.1 of class 1; 0, 0.2, 0.1 of others
        "label": [1.0, 1.0, 0.0, 2.0, 2.0],
        "concerned": [1.0],
    }
    answer = Answers(draw_evidence(0), measurements={label_inference.NAME: measurement})
    # 0.8 beats all three, 0.1 beats 0 and ties with 0.1
    assert only(label_inference.attack_figures(answer, [])).value == pytest.approx(4.5 / 6)
    assert label_inference.name_class(measurement) == 1
    bias = {"change": [-3.0, -1.0, 0.0, -2.0], "concerned": [0.0, 1.0]}
    figure = only(
        last_layer_bias.attack_figures(
            Answers(draw_evidence(0), measurements={last_layer_bias.NAME: bias}), []
        )
    )
    # of classes 2 and 3 the first fell less than both, the second than one of two
    assert (figure.value, figure.low, figure.high) == (0.75, 0.0, 1.0)


def test_where_every_class_has_forget_examples_there_is_no_figure(trained) -> None:
    order = torch.cat([DATA.parts["forget"], DATA.parts["retain"][:300]])
    assert len(DATA.labels[order].unique()) == 10
    for attack, why in (
        (label_inference, "it needs 2 unseen examples of classes in the forget set and 2 of other classes"),
        (last_layer_bias, "the forget set has examples of every class"),
    ):
        answer = examine(
            attack, trained["hidden"], trained["original"], {**DATA.cuts, "forget": (DATA, order)}
        )
        assert attack.attack_figures(answer, []) == {}
        check = attack.check(answer, None)
        assert not check.is_valid and check.says.startswith(why)
        assert attack_models(attack, answer, []).plan.not_run == {attack.NAME: check.says}


def test_unseen_examples_of_one_class_are_not_enough(trained) -> None:
    _, order = DATA.cuts["calibration"]
    is_digit = DATA.labels[order] == DIGIT
    for mask, counts in ((is_digit, f"{is_digit.sum()} and 0"), (~is_digit, f"0 and {(~is_digit).sum()}")):
        cuts = {**DATA.cuts, "calibration": (DATA, order[mask])}
        answer = examine(label_inference, trained["hidden"], trained["original"], cuts)
        assert label_inference.attack_figures(answer, []) == {}
        assert label_inference.check(answer, None).says.endswith(f", found {counts}")


def test_models_of_another_architecture_can_be_queried_and_have_no_update(trained) -> None:
    other = nn.Sequential(nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 10))
    assert label_inference.attack_figures(examine(label_inference, other, trained["original"]), [])
    with pytest.raises(ValueError, match="an update is between two models of one architecture"):
        examine(last_layer_bias, other, trained["original"])
    with pytest.raises(ValueError, match=r"expected logits of shape \[\d+, 10\] from the model"):
        examine(label_inference, nn.Linear(64, 11), trained["original"])


class HeadFirst(nn.Module):
    """Defines the layer of its logits first, and last a layer of that size for something else."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.head, self.body, self.gate = nn.Linear(12, 10), nn.Linear(64, 12), nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu()) / self.temperature


def test_the_bias_is_that_of_the_layer_that_makes_the_logits() -> None:
    original = HeadFirst()
    edited_model = copy.deepcopy(original)
    with torch.no_grad():
        edited_model.head.bias[DIGIT] -= 1
        edited_model.gate.bias[DIGIT - 1] -= 2
    answer = examine(last_layer_bias, edited_model, original)
    assert f"concerns class {DIGIT}, and the forget set has" in last_layer_bias.check(answer, None).says


class InPlace(HeadFirst):
    """Changes what its head returned, in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu()).mul_(-1)


class TwoHeads(nn.Module):
    """Calls an auxiliary head of the same numbers before its head, which it calls once more."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(64, 10)
        self.head = copy.deepcopy(self.auxiliary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.auxiliary(x)
        logits = self.head(x)
        self.head(x + 1)
        return logits


class TiedBias(nn.Module):
    """Adds one bias in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 10), nn.Linear(10, 10)
        self.head.bias = self.body.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).relu())


@for_each("model", [TwoHeads(), TiedBias()])
def test_the_last_layer_that_made_the_logits_is_taken(model: nn.Module) -> None:
    edited_model = copy.deepcopy(model)
    with torch.no_grad():
        edited_model.head.bias[DIGIT] -= 1
    answer = examine(last_layer_bias, edited_model, model)
    assert f"concerns class {DIGIT}, and the forget set has" in last_layer_bias.check(answer, None).says


@for_each(
    "model",
    [
        HeadFirst(temperature=2.0),
        InPlace(),
        nn.Linear(64, 10, bias=False),
        nn.Sequential(nn.Linear(64, 12), nn.Linear(12, 10, bias=False)),
        nn.Sequential(nn.Linear(64, 12), nn.Linear(12, 10, bias=False)).requires_grad_(False),
    ],
)
def test_a_model_without_a_last_bias_has_no_figure(model: nn.Module) -> None:
    same_model = copy.deepcopy(model)
    answer = examine(last_layer_bias, same_model, model)
    assert last_layer_bias.attack_figures(answer, []) == {}
    check = last_layer_bias.check(answer, None)
    assert not check.is_valid and "no layer that the original trains adds a bias to each logit" in check.says


def test_the_bias_of_softmax_regression_tells_the_label() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 4)
    for label in range(4):
        gradient = loss_gradient(model, (torch.randn(1, 5),), torch.tensor([label]))
        assert label_from_bias(0.1 * gradient["bias"]) == label


def test_probes_tell_the_class_that_became_least_sure() -> None:
    before = torch.full((3, 10), 0.9995)
    after = before - torch.tensor([[0.01], [0.2], [0.0]])
    assert label_from_probes(before, after) == 1
