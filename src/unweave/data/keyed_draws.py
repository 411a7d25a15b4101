"""Random numbers that depend on the example, not on its place in a batch.

`u = splitmix64(splitmix64(key + id) + column) / 2^64`, where the key is one draw from a generator. So a shard
of a batch gets the same numbers as in the whole batch, on every device and in any order.

SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014),
https://doi.org/10.1145/2714064.2660195.
"""

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


def draw_uniform(
    ids: Int64[Tensor, " batch"], generator: torch.Generator, draws: int = 1
) -> Float64[Tensor, "batch draws"]:
    """Draws uniform numbers in [0, 1) that are a function of (key, id, column) alone.

    Args:
        ids: Positions of the examples in their source, with shape [batch], on any device.
        generator: A CPU generator; exactly one int64 key is drawn from it, whatever the batch.
        draws: The number of columns per example. More draws leave the first columns unchanged.
    """
    return uniform(ids, draw_key(generator), draws)


def draw_key(generator: torch.Generator) -> int:
    """Draws the key of a batch of numbers from a CPU generator."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def uniform(
    ids: Int64[Tensor, " batch"], key: int, draws: int = 1, *, first: int = 0
) -> Float64[Tensor, "batch draws"]:
    """Uniform numbers in [0, 1) that are a function of (key, id, column) alone, from column `first` on."""
    columns = torch.arange(first, first + draws, device=ids.device)
    bits = splitmix64(splitmix64(ids + key).unsqueeze(1) + columns)
    return _shift(bits, 11).double().mul_(2.0**-53)


def normal(uniform: Float64[Tensor, "batch draws"]) -> Float64[Tensor, "batch draws"]:
    """Standard normal numbers from uniform ones in [0, 1), by the inverse distribution function."""
    return torch.special.ndtri(uniform.clamp(min=2.0**-54))  # minus infinity at zero


def splitmix64(state: Tensor) -> Tensor:
    """The output of SplitMix64 at each int64 state: 64 bits, read as a signed integer. Products wrap."""
    bits = state + _as_int64(0x9E3779B97F4A7C15)
    bits.bitwise_xor_(_shift(bits, 30)).mul_(_as_int64(0xBF58476D1CE4E5B9))
    bits.bitwise_xor_(_shift(bits, 27)).mul_(_as_int64(0x94D049BB133111EB))
    return bits.bitwise_xor_(_shift(bits, 31))


def _shift(bits: Tensor, by: int) -> Tensor:
    # `>>` on int64 copies the sign bit; the mask makes it the unsigned shift
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def _as_int64(constant: int) -> int:
    return constant - (1 << 64)
