"""Targets on margins made by hand: a model here is a table from the number of an example to its logits."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from every_family import Toy, problem
from for_each import for_each
from unweave.descent.descend import Descent
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.targets import Unseen
from unweave.targets.estimators.held_out import held_out_level
from unweave.targets.estimators.proxy import Proxy
from unweave.targets.estimators.quantiles import quantiles
from unweave.tasks.classifier import Classifier
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

HELD_OUT = 100
"""The number of the first held-out example."""


class Table(nn.Module):
    """Gives the stored answer for each example."""

    def __init__(self, rows: dict[int, list[float]], n_classes: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(200, n_classes))
        with torch.no_grad():
            for number, row in rows.items():
                self.rows[number] = torch.tensor(row)

    def forward(self, number: Tensor) -> Tensor:
        return self.rows[number]


def setting(
    train: list[int],
    forget: list[int],
    held_out: list[int],
    original: dict[int, list[float]],
    n_classes: int = 2,
) -> Problem:
    """A problem over those labels; the held-out part is all calibration but for one last test example."""
    test = [*held_out, 0]
    sources = [
        Toy((torch.arange(len(labels)) + start,), torch.tensor(labels))
        for labels, start in ((train, 0), (test, HELD_OUT))
    ]
    split = Split(sources[0], forget, sources[1], calibration=list(range(len(held_out))))
    return Problem(Classifier(n_classes), Table(original, n_classes), split, torch.Generator().manual_seed(0))


def margins(start: int, labels: list[int], values: list[float]) -> dict[int, list[float]]:
    """Logits of two classes whose true-class margins are those values."""
    return {
        start + i: ([m, 0.0] if y == 0 else [0.0, m])
        for i, (y, m) in enumerate(zip(labels, values, strict=True))
    }


TRAIN, FORGET, CALIBRATION = [0, 1, 0, 1, 0, 1], [0, 1, 2], [0, 1, 0, 1]


def test_own_ranks_map_to_all_held_out_margins():
    answers = margins(0, TRAIN, [5, 1, 3, 9, 9, 9]) | margins(HELD_OUT, CALIBRATION, [2, -1, 4, 0])
    of = setting(TRAIN, FORGET, CALIBRATION, answers)
    # ranks 2, 0, 1 of three: quantiles 5/6, 1/6, 1/2 of -1, 0, 2, 4
    assert quantiles(of, of.original).tolist() == pytest.approx([3.0, -0.5, 1.0, 0, 0, 0])
    assert np.quantile([-1, 0, 2, 4], [5 / 6, 1 / 6, 1 / 2]) == pytest.approx([3.0, -0.5, 1.0])


def test_a_proxys_ranks_map_apart_where_it_agrees_and_where_not():
    of = setting(
        TRAIN,
        FORGET,
        CALIBRATION,
        margins(0, TRAIN, [50] * 6) | margins(HELD_OUT, CALIBRATION, [7, 1, -3, 5]),
    )
    proxy = Table(margins(0, TRAIN, [2, -1, 1, 0, 0, 0]) | margins(HELD_OUT, CALIBRATION, [3, 1, -2, -4]), 2)
    # agreeing: ranks 1, 0 of two in {7, 1}, disagreeing: the middle of {-3, 5}; the 50s are not read
    assert quantiles(of, frozen_copy(proxy)).tolist() == pytest.approx([5.5, 1.0, 2.5, 0, 0, 0])


def test_a_kind_without_counterpart_is_ranked_with_the_rest():
    of = setting(TRAIN, FORGET, CALIBRATION, margins(HELD_OUT, CALIBRATION, [2, -1, 4, 0]))
    proxy = Table(margins(0, TRAIN, [2, -1, 1, 0, 0, 0]) | margins(HELD_OUT, CALIBRATION, [3, 1, 2, 4]), 2)
    levels = quantiles(of, frozen_copy(proxy)).tolist()
    # in the order of 2, -1, 1: no wrong answer above a right one
    assert levels == pytest.approx([3.0, -0.5, 1.0, 0, 0, 0])


def test_a_forgotten_class_takes_the_proxys_level():
    train, test = [0, 0, 1, 1, 0, 0], [1, 0, 1, 0]
    of = setting(train, [2, 3], test, margins(0, train, [9] * 6) | margins(HELD_OUT, test, [8, 3, 6, 1]))
    proxy = Table(margins(0, train, [2, 2, -5, -2, 2, 2]) | margins(HELD_OUT, test, [-4, 2, -6, 2]), 2)
    assert of.split.forgotten_classes == (1,)
    assert quantiles(of, frozen_copy(proxy)).tolist() == pytest.approx([0, 0, -5.5, -4.5, 0, 0])
    with pytest.raises(ValueError, match=r"the original knows the forgotten classes \(1,\)"):
        quantiles(of, of.original)


def test_a_forgotten_class_that_is_not_held_out_is_refused():
    train = [0, 0, 1, 1, 0, 0]
    of = setting(train, [2, 3], [0, 0], {})
    with pytest.raises(
        ValueError, match="need calibration examples of the kind that is forgotten, found none"
    ):
        quantiles(of, frozen_copy(of.model))


def test_targets_do_not_read_the_originals_answers_on_forget_data():
    answers, held_rows = margins(0, TRAIN, [5, 1, 3, 9, 9, 9]), margins(HELD_OUT, CALIBRATION, [2, -1, 4, 0])
    proxy = frozen_copy(
        Table(margins(0, TRAIN, [2, -1, 1, 0, 0, 0]) | margins(HELD_OUT, CALIBRATION, [3, -2, 2, 4]), 2)
    )
    other = {number: [-x for x in row] for number, row in answers.items()}
    for targets in (quantiles, held_out_level):
        first, second = (
            targets(setting(TRAIN, FORGET, CALIBRATION, a | held_rows), proxy) for a in (answers, other)
        )
        assert torch.equal(first, second)


def test_a_match_has_the_originals_confidence_on_held_out_data():
    held_rows = {
        HELD_OUT: [4.0, 0.0],
        HELD_OUT + 1: [-2.0, 0.0],
        HELD_OUT + 2: [0.0, 8.0],
        HELD_OUT + 3: [1.0, 0.0],
    }
    of = setting(TRAIN, FORGET, CALIBRATION, held_rows)
    answers = {0: [2.5, 0.0], 1: [0.5, 0.0], 2: [0.0, 9.0]} | {HELD_OUT: [1.0, 0.0], HELD_OUT + 1: [3.0, 0.0],
            HELD_OUT + 2: [0.0, 4.0], HELD_OUT + 3: [0.0, 2.0]}  # fmt: skip
    table = held_out_level(of, frozen_copy(Table(answers, 2)))
    # the proxy's choices 0, 0, 1, 1 have the original's margins 4, -2, 8, -1 and its own 1, 3, 4, 2;
    # its margins 2.5, 0.5, 9 have 2, 0, 4 of these below them: quantiles 2/4, 0.5/4, 3.5/4 of -2, -1, 4, 8
    expected = np.quantile([-2, -1, 4, 8], [0.5, 0.125, 0.875])
    assert expected.tolist() == pytest.approx([1.5, -1.625, 6.5])
    assert table.tolist() == [[1.5, 0.0], [-1.625, 0.0], [0.0, 6.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_a_match_takes_no_confidence_from_a_forgotten_class():
    train, test = [0, 0, 1, 1, 0, 0], [1, 0, 1, 0]
    proxy = frozen_copy(Table({2: [1.0, 0.0], 3: [2.0, 0.0]}, 2))
    tables = [
        held_out_level(setting(train, [2, 3], test, margins(HELD_OUT, test, [margin, 3, margin, 1])), proxy)
        for margin in (9, -9)
    ]
    assert torch.equal(*tables)
    with pytest.raises(ValueError, match="classes that are not wholly forgotten, found none"):
        held_out_level(setting(train, [2, 3], [1, 1], {}), proxy)


# --- proxies


def still(start: str, amount: float) -> Proxy:
    """A proxy that is not trained, so that its start is seen."""
    return Proxy(start, amount, Descent(lr=1e-300, steps=1, momentum=0.0, norm="frozen"))


def test_a_shrunk_proxy_keeps_normalisations():
    of = problem("batchnorm", dtype=torch.float64)
    proxy = still("shrunk", 0.3)(of)
    heavy = {"conv1.weight", "conv2.weight", "downsample.0.weight", "fc.weight", "fc.bias"}
    for name, p in proxy.named_parameters():
        assert torch.equal(p, of.params[name] * (0.3 if name in heavy else 1.0)), name


@for_each("family", ["batchnorm", "layernorm", "language"])
def test_a_reinitialized_proxy_keeps_normalisations(family: str):
    of = problem(family, dtype=torch.float64)
    proxy = still("reinitialized", 0.3)(of)
    bearing = {id(p) for _, m in of.blocks for p in m.parameters(recurse=False) if p.requires_grad}
    redrawn = {
        name: int((p != of.params[name]).sum()) for name, p in proxy.named_parameters() if name in of.params
    }
    assert sum(redrawn.values()) == round(
        0.3 * sum(p.numel() for p in of.params.values() if id(p) in bearing)
    )
    assert not any(redrawn[name] for name, p in of.params.items() if id(p) not in bearing)


def test_a_proxy_leaves_the_problem_alone():
    of = problem("batchnorm")
    before, state = copy.deepcopy(of.model.state_dict()), of.generator.get_state()
    proxy = Proxy(how=Descent(steps=2))(of)
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    assert torch.equal(of.generator.get_state(), state) and of.model.training and not of.curves
    assert (of.cost.gradients, of.cost.examples) == (2, 2 * 47)
    Proxy(how=Descent(steps=2))(of)
    assert (of.cost.gradients, of.cost.examples) == (4, 4 * 47)  # charged again, not made again
    assert all(p.grad is None for p in proxy.parameters())


def losses(values: list[float]) -> list[float]:
    """The cross-entropy in nats of answers with those margins."""
    return [math.log1p(math.exp(-value)) for value in values]


def measure_push(of: Problem) -> list[float]:
    """How hard each forget example is pushed; on a table, each weight belongs to one example."""
    objective = Unseen()(of, Descent(steps=1))
    batch = of.task.draw(next(iter(of.split.train.stream([of.split.forget]))), of.generator)
    step = Step(of.params, Runtime(of.model, of.task), {"forget": [batch]}, {"forget": len(batch)})
    return step.gradient(objective)["rows"][of.split.forget].abs().amax(1).tolist()


def test_unseen_pushes_the_examples_below_the_mean_held_out_loss_of_their_kind_and_no_others():
    own_margins, held_margins = [5.0, 0.5, -0.5], [2.0, -1.0, 0.3, -1.4]
    rows = margins(0, TRAIN, [*own_margins, 9, 9, 9]) | margins(HELD_OUT, CALIBRATION, held_margins)
    mean_loss, wrong_loss = np.mean(losses(held_margins)), np.mean(losses([-1.0, -1.4]))
    first, second, third = losses(own_margins)
    assert first < second < mean_loss < wrong_loss and mean_loss < third < wrong_loss
    # the derivative of the loss by the margin, over three examples
    slopes = [1 / (1 + math.exp(margin)) / 3 for margin in own_margins]
    assert measure_push(setting(TRAIN, FORGET, CALIBRATION, rows)) == pytest.approx(slopes)
    rows |= margins(0, TRAIN, [0.1, 5.0, -1.3, 9, 9, 9])
    low = setting(TRAIN, FORGET, CALIBRATION, rows | margins(HELD_OUT, CALIBRATION, [2.0, 2.0, -1.2, 2.0]))
    assert losses([0.1])[0] > np.mean(losses([2.0, 2.0, -1.2, 2.0])) and losses([-1.3]) > losses([-1.2])
    assert measure_push(low) == pytest.approx([0.0, 1 / (1 + math.exp(5)) / 3, 0.0])


def test_unseen_takes_the_original_and_not_the_model_as_it_is():
    answers = margins(0, TRAIN, [0.5] * 6) | margins(HELD_OUT, CALIBRATION, [1.0] * 4)
    of = setting(TRAIN, FORGET, CALIBRATION, answers)
    assert losses([0.5]) > losses([1.0]) and measure_push(of) == [0.0] * 3
    of = setting(TRAIN, FORGET, CALIBRATION, margins(0, TRAIN, [0.5] * 6))
    of.caller_model = frozen_copy(of.model)
    with torch.no_grad():
        next(of.model.parameters())[HELD_OUT:] = torch.tensor([9.0, 0.0])
    assert losses([0.5]) < losses([0.0]) and min(measure_push(of)) > 0.1


def test_unseen_leaves_a_forgotten_class_at_a_guess_and_reads_no_held_out_data_of_it():
    train, test = [0, 0, 1, 1, 0, 0], [1, 0, 1, 0]
    of = setting(
        train,
        [0, 2, 3],
        test,
        margins(0, train, [1.0, 9, 0.1, -0.1, 9, 9]) | margins(HELD_OUT, test, [-9, 1.5] * 2),
    )
    assert of.split.forgotten_classes == (1,)
    # in order: the loss of the margin 1.5 is reached already; the class ends at log 2, a margin of zero
    assert [value > 0 for value in measure_push(of)] == [False, True, False]
    of = setting([0, 0, 1, 1, 0, 0], [0, 2, 3], [1, 1], {})
    with pytest.raises(ValueError, match="the target 'unseen' needs calibration examples .* found none"):
        measure_push(of)
    assert len(measure_push(setting([0, 0, 1, 1, 0, 0], [2, 3], [1, 1], {}))) == 2
