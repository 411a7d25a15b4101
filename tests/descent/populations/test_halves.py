import pytest
import torch

from descent.populations.test_together import source
from unweave.descent.populations.halves import antithetic_halves, half_members
from unweave.split import Split


def test_the_models_of_a_pair_hold_complementary_halves() -> None:
    halves = antithetic_halves(20, 4, torch.Generator().manual_seed(0))
    assert halves.shape == (8, 20)
    assert (halves.sum(1) == 10).all() and (halves[::2] ^ halves[1::2]).all()
    assert len({tuple(row.tolist()) for row in halves}) == 8
    assert (halves.sum(0) == 4).all(), "each target is in as many models as it is not in"


def test_members_train_on_the_retain_set_and_their_half() -> None:
    split = Split(source(60), list(range(20, 30)), source(20))
    halves = antithetic_halves(10, 2, torch.Generator().manual_seed(0))
    for number, member in enumerate(half_members(split, halves, seed=5)):
        trained = set(member.split.part(member.part)[1].tolist())
        assert trained == set(split.retain.tolist()) | set(split.forget[halves[number]].tolist())
        assert member.seed == 5 + number
        assert torch.equal(member.split.test, split.test)


def test_halves_of_another_forget_set_are_refused() -> None:
    split = Split(source(60), list(range(9)), source(20))
    with pytest.raises(ValueError, match="of the 9 examples of the forget set, found 10"):
        half_members(split, antithetic_halves(10, 1, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="at least 2 targets and 1 pair, found 1 and 1"):
        antithetic_halves(1, 1, torch.Generator().manual_seed(0))
