"""Runs in several processes resume from their saved states, on another number of processes too."""

from pathlib import Path

import pytest
import torch

import resumed
from for_each import for_each

pytestmark = pytest.mark.slow  # cli/test_killed.py has two processes that resume


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resumed")


@pytest.fixture(scope="module")
def results(place: Path) -> list[dict[str, resumed.Found]]:
    return resumed.together(2, place)


@pytest.fixture(scope="module")
def more(results: object, place: Path) -> list[dict[str, resumed.Found]]:
    return resumed.together(4, place)


def near(actual: resumed.Found, expected: resumed.Found, name: str) -> bool:
    """Whether weights agree to rounding."""
    assert isinstance(actual, dict) and isinstance(expected, dict), (actual, expected)
    assert actual.keys() == expected.keys()
    tolerance = 1e-12 if resumed.CASES[name][1] == torch.float64 else 1e-6
    size, difference = (
        torch.stack([each.double().norm() for each in values]).norm()
        for values in (expected.values(), [actual[key].double() - expected[key].double() for key in expected])
    )
    return bool(difference <= tolerance * size)


def same(actual: resumed.Found, expected: resumed.Found) -> bool:
    """Whether weights are equal in every bit."""
    assert isinstance(actual, dict) and isinstance(expected, dict), (actual, expected)
    return all(torch.equal(actual[key], value) for key, value in expected.items())


CASES = [(name, way) for name in resumed.CASES for way in resumed.WAYS]


@for_each(("name", "way"), CASES)
def test_as_many_processes_end_in_the_same_bits(name, way, results):
    assert all(each[f"{name}, {way}, interrupted"] == "interrupted" for each in results)
    assert same(results[0][f"{name}, {way}, resumed"], results[0][f"{name}, {way}, whole"])


@for_each("way", resumed.WAYS)
def test_a_finished_run_gives_its_model_back(way, results):
    assert same(results[0][f"{way}, again"], results[0][f"lagged, {way}, whole"])


@for_each(("name", "way"), CASES)
def test_one_process_resumes_what_two_began(name, way, results, place):
    single = resumed.run(name, "replicated", place / f"{name}, {way}, alone")
    assert near(single, results[0][f"{name}, {way}, whole"], name)


@for_each(("name", "way"), CASES)
def test_four_processes_resume_what_two_began(name, way, results, more):
    assert near(more[0][f"{name}, {way}"], results[0][f"{name}, {way}, whole"], name)


@for_each("way", resumed.WAYS)
def test_shards_resume_whole_weights_and_whole_weights_shards(way, results):
    assert near(results[0][f"{way}, other way"], results[0][f"lagged, {way}, whole"], "lagged")


@for_each("way", resumed.WAYS)
def test_a_process_that_can_not_write_ends_all_and_leaves_the_last_state(way, results, place):
    for each in results:
        assert each[f"{way}, full"] == "OSError: [Errno 28] No space left on device"
    assert same(results[0][f"{way}, after full"], results[0][f"masked, {way}, whole"])
    assert [each.name for each in (place / f"full, {way}").iterdir() if each.is_dir()] == ["000-end"]


@for_each("way", resumed.WAYS)
def test_the_states_of_another_run_are_refused_on_all(way, results):
    for each in results:
        assert "holds the states of another run, which differs in 'method'" in each[f"{way}, another run"]


@for_each("way", resumed.WAYS)
def test_what_is_no_state_is_refused_on_all_and_not_run(way, results):
    for each in results:
        assert "is no saved state: delete it to start again" in each[f"{way}, spoilt"]
