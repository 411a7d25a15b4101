"""Estimates by hand: a model here is a table from the number of an example to its logits."""

import copy
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from every_family import Toy, problem
from for_each import for_each
from targets.test_targets import CALIBRATION, FORGET, HELD_OUT, TRAIN, Table, margins, setting
from unweave.descent.descend import Descent
from unweave.problem import Problem
from unweave.split import Split
from unweave.targets.estimators import (
    Answers,
    EstimatedLogits,
    Estimator,
    Influence,
    Pool,
    Ranks,
    Shards,
    estimator_named,
)
from unweave.targets.estimators.held_out import ModelLogits, held_out_level
from unweave.targets.estimators.proxies import pool_weights
from unweave.targets.estimators.proxy import Proxy
from unweave.targets.estimators.ranks import is_memorised, spearman, strange_labels
from unweave.tasks.classifier import Classifier, margin

STILL = Descent(lr=1e-300, steps=1, momentum=0.0)
"""A training that moves nothing, so that a proxy from scratch says what `build` made it say."""
SCRATCH, WARM = Proxy(how=STILL), Proxy("shrunk", 1.0, STILL)

UNREAD: dict[str, Estimator] = {
    "proxy": Answers(SCRATCH),
    "own level": Answers(SCRATCH, "own"),
    "proxy's ranks": Ranks("proxy", SCRATCH),
    "pool": Pool((SCRATCH, replace(SCRATCH, how=replace(STILL, steps=2)))),
    "shards": Shards(2, how=STILL),
}
"""Those that never read the original's answers on forget data."""
RANKED: dict[str, Estimator] = {"original's ranks": Ranks("original"), "chosen": Ranks("chosen", SCRATCH)}
"""Those that read their ranks."""
READING: dict[str, Estimator] = {"warm proxy": Answers(WARM), "influence": Influence()}


def make_proxy_problem(
    proxy_margins: list[float], held_margins: list[float], original: dict[int, list[float]]
) -> Problem:
    """A problem whose proxies have those true-class margins on forget and on calibration examples."""
    of = setting(TRAIN, FORGET, CALIBRATION, original)
    rows = margins(0, TRAIN, [*proxy_margins, 0, 0, 0]) | margins(HELD_OUT, CALIBRATION, held_margins)
    of.build = lambda: Table(rows, 2)
    return of


def original(forget: list[float]) -> dict[int, list[float]]:
    """An original with those true-class margins on forget examples."""
    return margins(0, TRAIN, [*forget, 9, 9, 9]) | margins(HELD_OUT, CALIBRATION, [2, -1, 4, 0])


def usual(forget: list[float]) -> Problem:
    return make_proxy_problem([2, -1, 1], [3, -2, 2, 4], original(forget))


def true_margins(estimate: EstimatedLogits) -> list[float]:
    """The true-class margins of the estimate."""
    return margin(estimate.logits, torch.tensor([TRAIN[i] for i in FORGET])).tolist()


# --- what is read


@for_each("name", UNREAD)
def test_the_originals_answers_on_forget_data_are_not_read(name: str):
    first, second = (UNREAD[name](usual(forget)).logits for forget in ([5, 1, 3], [-7, 2, 0]))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", RANKED)
def test_only_their_ranks_are_read(name: str):
    first, second = (RANKED[name](usual(forget)).logits for forget in ([5, 1, 3], [50, -7, 4]))
    assert torch.equal(first, second)


def test_other_ranks_of_the_original_give_another_estimate():
    first, second = (Ranks("original")(usual(forget)).logits for forget in ([5, 1, 3], [1, 3, 5]))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", READING)
def test_warm_starts_and_influence_read_them(name: str):
    first, second = (READING[name](usual(forget)).logits for forget in ([5, 1, 3], [-7, 2, 0]))
    assert not torch.equal(first, second)


@for_each("name", ["proxy", "pool", "original-ranks", "proxy-ranks", "chosen-ranks", "shards", "influence"])
def test_the_problem_is_left_alone_and_pays_each_time(name: str):
    of = problem("batchnorm")
    before, state = copy.deepcopy(of.model.state_dict()), of.generator.get_state()
    estimator = estimator_named(name, Proxy(how=Descent(steps=4)))
    first = estimator(of)
    cost = (of.cost.gradients, of.cost.examples)
    second = estimator(of)
    assert torch.equal(first.logits, second.logits) and isinstance(estimator, Estimator)
    assert first.logits.shape == (len(of.split.forget), 4)
    assert (of.cost.gradients, of.cost.examples) == (2 * cost[0], 2 * cost[1])
    assert all(torch.equal(value, before[key]) for key, value in of.model.state_dict().items())
    assert torch.equal(of.generator.get_state(), state) and of.model.training and not of.curves
    trained = {"proxy": 4, "proxy-ranks": 4, "chosen-ranks": 4, "shards": 4, "original-ranks": 0}
    assert cost[0] == trained.get(name, cost[0]) and cost[1] > 0


def test_what_is_no_classifier_is_refused_before_anything_is_trained():
    of = problem("language")
    for name in ("proxy", "pool", "original-ranks", "chosen-ranks", "shards", "influence"):
        with pytest.raises(ValueError, match="a classifier's logits, found the task NextToken"):
            estimator_named(name, Proxy())(of)
    assert of.cost.gradients == 0


def test_a_table_has_the_rows_in_their_places():
    of = usual([5, 1, 3])
    table = EstimatedLogits(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).table(of)
    assert table.tolist() == [[1, 2], [3, 4], [5, 6], [0, 0], [0, 0], [0, 0]]


# --- proxies


def test_a_proxys_answers_are_at_the_held_out_level_or_their_own():
    of = usual([5, 1, 3])
    own_logits, held_logits = (Answers(SCRATCH, level)(of).logits for level in ("own", "held-out"))
    assert true_margins(EstimatedLogits(own_logits)) == [2, -1, 1]
    assert torch.equal(held_logits, held_out_level(of, SCRATCH(of))[:3]) and not torch.equal(
        held_logits, own_logits
    )


def test_a_pool_finds_the_weights_that_made_the_answers(generator: torch.Generator):
    answers = torch.randn(3, 400, 5, generator=generator).log_softmax(-1)
    target = 0.5 * answers[0] + 2.0 * answers[2]
    assert pool_weights(answers, target).tolist() == pytest.approx([0.5, 0.0, 2.0], abs=1e-4)


def test_no_weight_of_a_pool_is_negative(generator: torch.Generator):
    answers = torch.randn(2, 400, 5, generator=generator).log_softmax(-1)
    weights = pool_weights(answers, answers[0] - 0.5 * answers[1])
    assert weights[0] > 0.5 and 0 <= float(weights[1]) < 1e-3


def test_a_pool_of_one_is_a_temperature():
    # one weight w for margins 3, -3, 3, -3 under an original at 1.5, -1.5, ...: w = 1/2 fits all of them
    held_rows = margins(HELD_OUT, CALIBRATION, [1.5, -1.5, 1.5, -1.5])
    of = make_proxy_problem([2, -1, 1], [3, -3, 3, -3], margins(0, TRAIN, [9] * 6) | held_rows)
    assert true_margins(Pool((SCRATCH,), "own")(of)) == pytest.approx([1.0, -0.5, 0.5], abs=1e-4)


# --- ranks


def test_the_originals_ranks_place_the_margins_by_hand():
    # ranks 2, 0, 1 of three: quantiles 5/6, 1/6, 1/2 of -1, 0, 2, 4
    assert true_margins(Ranks("original")(usual([5, 1, 3]))) == pytest.approx([3.0, -0.5, 1.0])


def test_a_proxys_ranks_place_the_margins_by_hand():
    # agreeing: ranks 1, 0 of two in the original's 2, 4, 0 where the proxy agrees; disagreeing: its -1
    expected = np.quantile([0, 2, 4], [0.75, 0.25])
    assert expected.tolist() == [3.0, 1.0]
    assert true_margins(Ranks("proxy", SCRATCH)(usual([5, 1, 3]))) == pytest.approx([3.0, -1.0, 1.0])


def test_the_rest_is_shared_as_on_held_out_examples_of_the_same_label():
    rows = {HELD_OUT: [0.0, 2.0, 1.0], HELD_OUT + 1: [1.0, 0.0, 1.0]}
    of = setting([0, 1, 0, 1, 2, 2], [0, 1], [0, 1], rows, n_classes=3)
    logits = Ranks("original")(of).logits
    assert float(logits[0, 1] - logits[0, 2]) == pytest.approx(1.0)
    assert float(logits[1, 0] - logits[1, 2]) == pytest.approx(0.0)


def many(
    forget: list[float], proxy_margins: list[float], held_margins: list[float], held_said: list[float]
) -> Problem:
    """A problem of one label per half, with true-class margins of the original and of a proxy."""
    train, test = [0, 1] * (len(forget) // 2) + [0, 1], [0, 1] * (len(held_margins) // 2)
    of = setting(
        train,
        list(range(len(forget))),
        test,
        margins(0, train, [*forget, 9, 9]) | margins(HELD_OUT, test, held_margins),
    )
    of.build = lambda: Table(
        margins(0, train, [*proxy_margins, 0, 0]) | margins(HELD_OUT, test, held_said), 2
    )
    return of


HELD, HELD_SAID = [1.0, 2, 3, 4, 5, 6, 7, 8], [1.5, 1, 3.5, 3, 5.5, 5, 7, 8]


@pytest.mark.parametrize(
    ("original_margins", "winner"),
    [
        ([5.5, 5, 8, 7, 2, 1, 4, 3.5], "original"),  # f = 0.905 is more than the square of c = 0.929
        ([9.1, 9.3, 9, 9.2, 9.25, 9.15, 9.05, 9.35], "proxy"),  # all known alike: no order is left
    ],
)
def test_the_better_predictor_ranks(original_margins: list[float], winner: str):
    proxy_margins = [5.0, 6, 7, 8, 1, 2, 3, 4]
    of = many(original_margins, proxy_margins, HELD, HELD_SAID)
    result = margin(Ranks("chosen", SCRATCH)(of).logits, torch.tensor([0, 1] * 4))
    by = torch.tensor(original_margins if winner == "original" else proxy_margins)
    quantiles = np.quantile(HELD, (by.argsort().argsort().numpy() + 0.5) / 8)
    assert result.tolist() == pytest.approx(quantiles.tolist(), abs=1e-5)


def test_the_rule_by_hand():
    # c = 0.9: the original stays the better predictor while f / 0.9 > 0.9
    assert is_memorised(0.80, 0.9) and not is_memorised(0.82, 0.9)
    assert not is_memorised(0.1, -0.5)  # a proxy that orders nothing is not asked


def test_spearman_is_scipys(generator: torch.Generator):
    from scipy.stats import spearmanr

    a, b = torch.randn(2, 50, generator=generator)
    assert spearman(a, b) == pytest.approx(float(spearmanr(a, b).statistic))


def test_a_wholly_forgotten_class_is_always_known_too_well():
    of = problem("layernorm", whole_class=True)
    proxy = Proxy(how=Descent(steps=2))
    by_choice, by_proxy = (Ranks(by, proxy)(of).logits for by in ("chosen", "proxy"))
    assert torch.equal(by_choice, by_proxy)


def test_held_out_labels_become_as_strange_as_those_of_the_forget_part():
    labels = [0, 1] * 40
    of = setting([*labels, 0, 1], list(range(80)), labels, {})
    right_logits = torch.nn.functional.one_hot(torch.tensor(labels), 2).float()
    wrong_logits = right_logits.clone()
    wrong_logits[:20] = wrong_logits[:20].flip(1)  # errs on a quarter
    strange = strange_labels(of, ModelLogits(wrong_logits, right_logits))
    assert int((strange != torch.tensor(labels)).sum()) == 20
    assert torch.equal(strange_labels(of, ModelLogits(right_logits, wrong_logits)), torch.tensor(labels))


# --- shards


def test_a_record_is_answered_by_a_model_that_has_not_seen_it():
    of = usual([5, 1, 3])
    how = Descent(lr=1.0, steps=3, momentum=0.0)  # moves the rows of all that is seen, and no others
    estimator = Shards(2, "own", how)
    assert true_margins(estimator(of)) == [2, -1, 1]
    folds, models = of.remember(repr(estimator), estimator.train)
    initial_rows = cast(Table, of.build()).rows
    for fold, model in zip(folds, models, strict=True):
        ids = (cast(Table, model).rows != initial_rows).any(1)[: len(TRAIN)].nonzero()[:, 0]
        assert set(ids.tolist()) == set(range(len(TRAIN))) - set(fold.tolist())


def test_shards_are_refused_for_a_wholly_forgotten_class():
    with pytest.raises(ValueError, match=r"seen other records of the forgotten classes \(3,\): use a proxy"):
        Shards()(problem("layernorm", whole_class=True))


# --- influence


@dataclass(frozen=True)
class Squares(Classifier):
    """Least squares on labels."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - torch.nn.functional.one_hot(target, self.n_classes)).square().sum(-1)


def test_influence_is_exact_on_least_squares(generator: torch.Generator):
    x = torch.randn(60, 5, generator=generator, dtype=torch.double)
    y = torch.randint(0, 3, (60,), generator=generator)
    targets = torch.nn.functional.one_hot(y, 3).double()
    model = nn.Linear(5, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x[:50], targets[:50]).solution.T)
    forget, source = list(range(7)), Toy((x[:50],), y[:50])
    split = Split(source, forget, Toy((x[50:],), y[50:]))
    of = Problem(Squares(3), model, split, torch.Generator().manual_seed(0))
    retrained = torch.linalg.lstsq(x[7:50], targets[7:50]).solution
    # the gradient of the rest is that of F with the other sign, so the step is Newton's, exact on a parabola
    estimate = Influence(damping=0.0, iterations=60)(of).logits
    torch.testing.assert_close(estimate, (x[:7] @ retrained).float(), rtol=0, atol=1e-6)
    assert float((estimate - model(x[:7]).float()).detach().abs().max()) > 0.01


@for_each(
    ("make", "message"),
    [
        (lambda: Pool(()), "at least one proxy"),
        (lambda: Shards(1), "parts must be at least 2, found 1"),
        (lambda: Influence(damping=-1.0), "damping must not be negative"),
        (lambda: Influence(iterations=0), "iterations must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
