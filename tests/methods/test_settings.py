"""Settings that can't be meant are refused where they are set, before anything is computed."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from for_each import for_each
from unweave.families.diffusion_settings import PRESETS
from unweave.methods import METHODS
from unweave.methods.conflict import MGDA, CAGrad, PCGrad, UPGrad
from unweave.methods.gdr_gma import GDRGMA
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.simple import NegGradPlus


def numeric(settings: Any) -> Iterator[tuple[Any, str]]:
    """The fields of a dataclass that take numbers, and those of the dataclasses in it."""
    hints = get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from numeric(value)
        elif {int, float} & {hints[field.name], *get_args(hints[field.name])}:
            yield settings, field.name


FIELDS = {
    f"{type(settings).__name__}.{name}": (settings, name)
    for method in (*METHODS.values(), *PRESETS.values())
    for settings, name in numeric(method)
}


@for_each("wrong", [-1, math.nan, -math.inf])
@for_each("field", FIELDS)
def test_a_number_that_makes_no_sense_is_refused_by_the_name_of_its_field(field: str, wrong: float):
    settings, name = FIELDS[field]
    settings = dataclasses.replace(settings)
    object.__setattr__(settings, name, wrong)  # past the types that tests are run with
    with pytest.raises(ValueError, match=rf"^{name} must be (in [\[(]|one of ).*, found {wrong}$"):
        settings.__post_init__()


def test_the_fields_are_those_of_every_method():
    assert len(FIELDS) > 80 and {"LUR.weight", "Descent.lr", "Proxy.amount", "Sampler.eta"} <= FIELDS.keys()


@for_each("wrong", [-0.5, 1.5, math.inf, math.nan])
@for_each("name", ["rate", "kept"])
def test_what_msg_redraws_and_slows_are_fractions(name: str, wrong: float):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], found {wrong}"):
        MaskedSmallGradients(**{name: wrong})


@for_each("wrong", [0.0, -1.0, math.inf, math.nan])
@for_each("kind", [PCGrad, MGDA, CAGrad, UPGrad])
def test_a_forget_loss_with_a_weight_that_teaches_is_refused(kind, wrong: float):
    with pytest.raises(ValueError, match=rf"forget_weight must be in \(0, inf\), found {wrong}"):
        kind(forget_weight=wrong)


def test_a_weight_of_the_retain_loss_that_would_teach_what_is_to_be_forgotten_is_refused():
    with pytest.raises(ValueError, match=r"retain_weight must be in \[0, 1\], found 1.5"):
        NegGradPlus(retain_weight=1.5)


@for_each("wrong", [{"gamma": 0.0}, {"gamma": math.nan}, {"epsilon": math.inf}])
def test_gdr_gma_turns_one_way_at_a_loss_that_there_is(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=r"(gamma|epsilon) must be in [\[(]0, inf\), found"):
        GDRGMA(**wrong)
