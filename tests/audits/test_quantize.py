"""Weights of a few bits."""

import torch

from unweave.audits.quantize import quantize


def test_each_row_has_multiples_of_its_own_step() -> None:
    rows = torch.tensor([[127.0, 1.4, -0.6], [0.0, 0.0, 0.0], [1.27, 0.014, -1.0]])
    expected = torch.tensor([[127.0, 1.0, -1.0], [0.0, 0.0, 0.0], [1.27, 0.01, -1.0]])
    assert torch.allclose(quantize(rows, 8), expected)


def test_rounding_keeps_at_most_the_values_of_its_bits_within_half_a_step() -> None:
    weight = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4):
        rounded_weight, step = quantize(weight, bits), float(weight.abs().max()) / (2 ** (bits - 1) - 1)
        assert len(rounded_weight.unique()) <= 2**bits - 1
        assert float((rounded_weight - weight).abs().max()) <= step / 2 * 1.0001
        assert torch.allclose(quantize(rounded_weight, bits), rounded_weight)
