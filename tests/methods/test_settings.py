"""Settings that can't be meant are refused where they are set, before anything is computed."""

import math

import pytest

from unweave.methods.msg import MaskedSmallGradients


@pytest.mark.parametrize("wrong", [-0.5, 1.5, math.inf, math.nan])
@pytest.mark.parametrize("name", ["rate", "kept"])
def test_what_msg_redraws_and_slows_are_fractions(name: str, wrong: float):
    with pytest.raises(ValueError, match=rf"{name} must be a fraction in \[0, 1\], found {wrong}"):
        MaskedSmallGradients(**{name: wrong})
