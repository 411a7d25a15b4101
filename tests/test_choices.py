"""A misspelt choice never passes for another one, nor a number outside its interval for a setting."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest

from for_each import for_each
from unweave.bench import recipe
from unweave.choices import refuse_outside, refuse_unknown_choices, suggest_word
from unweave.data import datasets
from unweave.descent.descend import Descent
from unweave.descent.importance import Salient
from unweave.methods.esd import ESD
from unweave.methods.lur import LUR
from unweave.methods.sa import SelectiveAmnesia
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.starts import Redraw, ShrinkPerturb
from unweave.targets.estimators.proxy import Proxy
from unweave.tasks.models import build


@dataclass(frozen=True)
class Settings:
    one: Literal["a", "b"] = "a"
    other: Literal["null"] | int | None = None

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)


@for_each("fields", [{}, {"one": "b"}, {"other": "null"}, {"other": 3}, {"other": None}])
def test_what_is_named_and_what_may_stand_in_its_place_is_taken(fields: dict) -> None:
    Settings(**fields)


@for_each("fields", [{"one": "c"}, {"one": None}, {"other": "nul"}])
def test_anything_else_is_refused_by_the_name_of_its_field(fields: dict) -> None:
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=f"^{name} must be one of .*, found {value!r}$"):
        Settings(**fields)


@for_each(
    ("kind", "fields"),
    [
        (ESD, {"erase_from": "nul"}),
        (ESD, {"images": "orignal"}),
        (SelectiveAmnesia, {"estimator": "sample"}),
        (SelectiveAmnesia, {"replay": "relive"}),
        (SalUn, {"feed": "pairs"}),
        (LUR, {"mode": "lag"}),
        (Proxy, {"start": "zero"}),
        (Descent, {"steps": 1, "optimizer": "adan"}),
    ],
)
def test_methods_refuse_it_in_python_as_recipes_do(kind: type, fields: dict) -> None:
    settings = kind(**{name: each for name, each in fields.items() if name == "steps"})
    for name, value in fields.items():
        object.__setattr__(settings, name, value)  # past the types that tests are run with
    with pytest.raises(ValueError, match="must be one of"):
        settings.__post_init__()


@dataclass(frozen=True)
class Numbers:
    half: float | None = 0.5
    whole: int | Literal["all"] = 1

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1)", "half")
        refuse_outside(self, "(0, inf]", "whole")


@for_each("fields", [{"half": 0.0}, {"half": 0.999}, {"half": None}, {"whole": "all"}])
def test_a_number_in_its_interval_is_taken_and_what_is_no_number(fields: dict) -> None:
    Numbers(**fields)


@for_each(
    ("fields", "message"),
    [
        ({"half": 1.0}, r"^half must be in \[0, 1\), found 1.0$"),
        ({"half": -0.1}, r"^half must be in \[0, 1\), found -0.1$"),
        ({"half": math.nan}, r"^half must be in \[0, 1\), found nan$"),
        ({"whole": 0}, r"^whole must be in \(0, inf\], found 0$"),
    ],
)
def test_a_number_outside_is_refused_by_the_name_of_its_field(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Numbers(**fields)


def test_an_end_with_a_bracket_is_part_of_its_interval() -> None:
    settings = Numbers()
    object.__setattr__(settings, "whole", math.inf)  # past the types that tests are run with
    settings.__post_init__()


@for_each(
    ("kind", "name"),
    [
        (LUR, "where"),
        (Redraw, "eligible"),
        (ShrinkPerturb, "where"),
        (Salient, "within"),
        (Scissorhands, "eligible"),
        (SelectiveAmnesia, "where"),
        (ESD, "where"),
    ],
)
def test_what_is_no_regular_expression_is_refused(kind: type, name: str) -> None:
    kind(**{name: "head|body[0-9]"})
    with pytest.raises(ValueError, match=rf"^{name} must be a regular expression, found '\[head' \(unterm"):
        kind(**{name: "[head"})


@for_each(
    ("noun", "refuse"),
    [
        ("data set", datasets.load),
        ("model", lambda name: build(name, 2, {})),
        ("recipe", recipe.load),
    ],
)
def test_an_unknown_name_is_refused_alike_whatever_is_named(noun: str, refuse) -> None:
    typo = {"data set": "digit", "model": "resnet8", "recipe": "digits-trac"}[noun]
    with pytest.raises(ValueError, match=rf"^unknown {noun} '{typo}' \(did you mean '[\w-]+'\?\); known: "):
        refuse(typo)
    with pytest.raises(ValueError, match=rf"^unknown {noun} 'zzzzzz'; known: "):
        refuse("zzzzzz")


def test_the_nearest_counts_the_last_name_of_a_path() -> None:
    assert (
        suggest_word("lr", ["how.lr", "proxy.how.lr", "alpha"])
        == " (did you mean 'how.lr' or 'proxy.how.lr'?)"
    )
    assert suggest_word("salum", {"salun": 1, "lur": 2}) == " (did you mean 'salun'?)"
    assert suggest_word("zzz", ["salun"]) == ""
