"""Settings that can't be meant are refused where they are set, before anything is computed."""

import math

import pytest

from plain import recorded
from unweave.methods.conflict import MGDA, CAGrad, PCGrad, UPGrad
from unweave.methods.gdr_gma import GDRGMA
from unweave.methods.msg import MaskedSmallGradients


@pytest.mark.parametrize("wrong", [-0.5, 1.5, math.inf, math.nan])
@pytest.mark.parametrize("name", ["rate", "kept"])
def test_what_msg_redraws_and_slows_are_fractions(name: str, wrong: float):
    with pytest.raises(ValueError, match=rf"{name} must be a fraction in \[0, 1\], found {wrong}"):
        MaskedSmallGradients(**{name: wrong})


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("kind", [PCGrad, MGDA, CAGrad, UPGrad])
def test_a_forget_loss_with_a_weight_that_teaches_is_refused(kind, wrong: float):
    of, _ = recorded()
    with pytest.raises(ValueError, match=f"forget_weight must be positive and finite, found {wrong}"):
        kind(forget_weight=wrong)(of)


@pytest.mark.parametrize("wrong", [{"gamma": 0.0}, {"gamma": math.nan}, {"epsilon": math.inf}])
def test_gdr_gma_turns_one_way_at_a_loss_that_there_is(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="gamma must be positive and epsilon a number"):
        GDRGMA(**wrong)
