"""The tests check types and shapes of the package at run time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from beartype import beartype
from jaxtyping import Float
from torch import Tensor

import typed
from unweave.choices import suggest_word
from unweave.report.ranks import Ranking
from unweave.split import Part
from unweave.weights.step import Step

Row = Float[Tensor, " class"]


def check(function):
    return typed.check_types(typechecker=beartype)(function)


def test_a_shape_is_found_wherever_it_stands():
    plain_hints = (int, list[int], Tensor | None, Step, dict[Part, int])
    assert not any(map(typed.has_shapes, plain_hints)) and not any(map(typed.has_quotes, plain_hints))
    assert all(map(typed.has_shapes, (Row, list[Row], dict[str, tuple[Row, ...]] | None)))
    assert all(map(typed.has_quotes, ("Step", list["Step"], Callable[["Step"], int])))


def test_types_are_checked_and_shapes_too():
    def twice(number: int) -> int:
        return number * 2

    def sum_rows(one: Row, other: Row) -> Row:
        return one + other.sum()

    def shorten(one: Row, length: int) -> Row:
        return one[:length]

    def each(one: Row, other: Row) -> Iterator[Tensor]:
        yield from one + other

    def quoted(one: Row, other: Row) -> "Row":
        return one + other

    @dataclass(frozen=True)
    class Point:
        at: int

    @dataclass(frozen=True)
    class Pair:
        one: Row
        other: Row

    assert check(twice)(2) == 4 and check(Point)(1) == Point(1)
    for call in (lambda: check(twice)("2"), lambda: check(Point)("1")):
        with pytest.raises(Exception, match="'[12]'"):
            call()
    three, four = torch.zeros(3), torch.zeros(4)
    for function in (sum_rows, each, quoted, Pair):
        checked_function = check(function)
        checked_function(three, three)
        checked_function(four, four)  # another call, another size
        with pytest.raises(Exception, match="Type-check error|violates type hint"):
            checked_function(three, four)
    with pytest.raises(Exception, match="violates type hint"):
        check(shorten)(four, 3)


def test_the_first_calls_of_each_test_are_checked():
    def echo(number: int) -> int:
        return number

    def first(row: Row) -> Row:
        return row[:1]

    for function, good_value, bad_value in ((echo, 1, "1"), (first, torch.zeros(1), torch.zeros(2))):
        checked_function = check(function)
        for _ in range(typed.CHECKED_CALLS - 1):
            checked_function(good_value)
        with pytest.raises(Exception, match="violates type hint"):
            checked_function(bad_value)
        assert checked_function(bad_value) is not None
        typed.check_again()  # as another test does
        with pytest.raises(Exception, match="violates type hint"):
            checked_function(bad_value)


def test_the_package_is_checked():
    with pytest.raises(Exception, match="violates type hint"):
        suggest_word(1, ["one"])
    with pytest.raises(Exception, match="violates type hint"):
        Ranking({"a": 1.0}, "14")
