"""Proxy requests: each stratum deals what its name says, or says why it can't."""

import pytest
import torch
from torch.utils.data import TensorDataset

from for_each import for_each
from unweave.bench.draw_requests import FEWEST_OF_CLASS, STRATA, Plan, draw_requests
from unweave.bench.qualification import refuse_unseen_class
from unweave.split import Split

N, CLASSES = 400, 5
LABELS = torch.arange(N) % CLASSES
HARDNESS = torch.rand(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SILHOUETTE = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PLAN = Plan(requests=4)


def make_split(labels: torch.Tensor = LABELS, held_out: torch.Tensor = LABELS[:50]) -> Split:
    train, test = (TensorDataset(torch.zeros(len(each), 1), each) for each in (labels, held_out))
    return Split(train, [0], test, calibration=range(25))


def draw(plan: Plan = PLAN, **changes: torch.Tensor):
    return draw_requests(make_split(**changes), HARDNESS, SILHOUETTE, plan)


def of(deal, stratum: str) -> list[torch.Tensor]:
    return [deal.positions[name] for name, each in deal.strata.items() if each == stratum]


def test_every_stratum_deals_disjoint_requests_of_its_size():
    deal = draw()
    assert list(dict.fromkeys(deal.strata.values())) == list(STRATA) and not deal.skipped
    sizes = {"class": N // CLASSES, "single": 1}
    for stratum in STRATA:
        requests = of(deal, stratum)
        positions = torch.cat(requests)
        assert len(requests) == 4 and len(positions.unique()) == len(positions)
        assert {len(each) for each in requests} == {sizes.get(stratum, 20)}


def test_strata_hold_the_extremes():
    deal = draw()
    for stratum, scores in (
        ("memorized", -HARDNESS),
        ("generalized", HARDNESS),
        ("entangled", SILHOUETTE),
    ):
        positions = torch.cat(of(deal, stratum))
        is_other = torch.ones(N, dtype=torch.bool).index_fill_(0, positions, False)
        assert scores[positions].max() < scores[is_other].min()
    for places in of(deal, "class"):
        assert len(LABELS[places].unique()) == 1


def test_the_seed_chooses_them():
    first, second, other = (draw(Plan(requests=4, seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(first.positions[name], second.positions[name]) for name in first.positions)
    assert not torch.equal(first.positions["random-1"], other.positions["random-1"])


def test_a_stratum_with_too_few_records_is_named_and_the_others_go_on():
    deal = draw(Plan(requests=4, fraction=0.1))
    assert deal.skipped.keys() == {"memorized", "generalized", "entangled"}
    assert "4 requests of 40 records need at most 133 of 400" in deal.skipped["memorized"]
    assert set(deal.strata.values()) == {"random", "class", "single"}
    small_deal = draw(Plan(requests=4, fraction=0.002))
    assert "random" in small_deal.skipped and "--fraction" in small_deal.skipped["random"]


def test_a_class_without_enough_examples_is_no_request():
    rare_labels = torch.where(torch.arange(N) < FEWEST_OF_CLASS - 1, 4, torch.arange(N) % 4)
    assert all(not bool((rare_labels[each] == 4).any()) for each in of(draw(labels=rare_labels), "class"))
    deal = draw(labels=rare_labels, held_out=torch.arange(50) % 3)
    assert "3 classes have" in deal.skipped["class"] and "class" not in deal.strata.values()


def test_no_single_record_is_a_whole_class():
    labels = torch.where(torch.arange(N) < 200, torch.arange(N) + 2, LABELS % 2)
    positions = torch.cat(
        of(draw_requests(make_split(labels), HARDNESS, SILHOUETTE, Plan(("single",), requests=9)), "single")
    )
    assert int(positions.min()) >= 200


def test_no_request_of_records_holds_a_rare_class_whole():
    rare_labels = torch.where(torch.arange(N) < 60, 5 + torch.arange(N) // 2, torch.arange(N) % 5)
    strata = ("random", "memorized", "generalized", "entangled", "single")
    # the rare classes come first in every order
    deal = draw_requests(
        make_split(rare_labels),
        (rare_labels >= 5).double(),
        -(rare_labels >= 5).double(),
        Plan(strata, requests=4),
    )
    assert set(deal.strata.values()) == set(strata)
    for places in deal.positions.values():
        counts = rare_labels[places].bincount(minlength=35)
        assert not ((counts > 0) & (counts == rare_labels.bincount(minlength=35))).any()


def test_a_class_that_a_part_holds_whole_needs_an_unseen_example():
    train, test = (TensorDataset(torch.zeros(6, 1), torch.tensor(each)) for each in ([0, 0, 1, 1, 2, 2],) * 2)
    absent_class, present_class = (
        Split(train, [0, 4, 5], test, calibration=each) for each in ([0, 2], [0, 4])
    )
    refuse_unseen_class(present_class, "fold-0-1")
    with pytest.raises(ValueError, match="fold-0-1 holds all training examples of class 2.* part has none"):
        refuse_unseen_class(absent_class, "fold-0-1")


@for_each(
    ("wrong", "sentence"),
    [
        ({"strata": ("random", "hard")}, "found 'hard'"),
        ({"strata": ()}, "found none"),
        ({"requests": 3}, "at least 4"),
        ({"fraction": 1.0}, "found 1.0"),
    ],
)
def test_a_wrong_plan_is_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plan(**wrong)
