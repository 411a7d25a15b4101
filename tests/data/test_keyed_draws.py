"""The random numbers of an example are a function of (key, id, column) alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unweave.data.keyed_draws import draw_key, draw_uniform, splitmix64, uniform


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(0, 2**40), min_size=1, max_size=20), seed=st.integers(0, 2**31), data=st.data()
)
def test_a_shard_gets_the_numbers_of_the_whole_batch(ids: list[int], seed: int, data: st.DataObject) -> None:
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1)))
    draws = draw_uniform(torch.tensor(ids), make_generator(seed), 2)
    assert torch.equal(draw_uniform(torch.tensor(ids)[rows], make_generator(seed), 2), draws[rows])


def test_more_draws_leave_the_first_columns_as_they_were() -> None:
    ids = torch.arange(50)
    assert torch.equal(draw_uniform(ids, make_generator(), 1), draw_uniform(ids, make_generator(), 5)[:, :1])


def test_columns_can_be_drawn_later_and_apart() -> None:
    ids, key = torch.arange(50), draw_key(make_generator())
    draws = uniform(ids, key, 5)
    assert torch.equal(torch.cat([uniform(ids, key, 2), uniform(ids, key, 3, first=2)], 1), draws)
    assert torch.equal(draws, draw_uniform(ids, make_generator(), 5))


def test_exactly_one_key_is_drawn_whatever_the_batch() -> None:
    small, large = make_generator(), make_generator()
    draw_uniform(torch.arange(1), small)
    draw_uniform(torch.arange(1000), large, 7)
    assert torch.equal(small.get_state(), large.get_state())
    assert not torch.equal(small.get_state(), make_generator().get_state())


def test_another_key_gives_other_numbers() -> None:
    generator, ids = make_generator(), torch.arange(100)
    assert not (draw_uniform(ids, generator) == draw_uniform(ids, generator)).any()


def test_numbers_are_uniform_and_independent_over_ids_and_columns() -> None:
    n = 40_000
    uniform = draw_uniform(torch.arange(n), make_generator(), 3)
    assert uniform.dtype == torch.float64
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    counts = (uniform[:, 0] * 20).long().bincount(minlength=20)
    chi_square = float(((counts - n / 20) ** 2 / (n / 20)).sum())
    assert chi_square < 43.8  # the 99.9 % quantile with 19 degrees of freedom
    columns = torch.corrcoef(uniform.T) - torch.eye(3)
    neighbours = torch.corrcoef(torch.stack((uniform[1:, 0], uniform[:-1, 0])))[0, 1]
    assert float(columns.abs().max()) < 4 / n**0.5
    assert abs(float(neighbours)) < 4 / n**0.5


def test_splitmix64_has_the_published_first_outputs() -> None:
    # seed 1234567: the five outputs in Rosetta Code, "Pseudo-random numbers/Splitmix64"
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    golden = 0x9E3779B97F4A7C15 - 2**64
    outputs = splitmix64(1234567 + torch.arange(5) * golden)
    assert [value % 2**64 for value in outputs.tolist()] == expected


def test_numbers_equal_plain_integer_arithmetic() -> None:
    def mix(state: int) -> int:
        z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    key = int(torch.empty((), dtype=torch.int64).random_(generator=make_generator(3)))
    by_hand = [[(mix(mix(key + i) + c) >> 11) / 2**53 for c in range(2)] for i in (0, 1, 59_999)]
    assert draw_uniform(torch.tensor([0, 1, 59_999]), make_generator(3), 2).tolist() == by_hand
