"""Antithetic halves: of the two models of a pair, one trains on a target and the other does not.

A shadow attack then has as many models that saw a target as models that did not, from T trainings.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from unweave.descent.populations.population import Member
from unweave.split import Split


def antithetic_halves(targets: int, pairs: int, generator: torch.Generator) -> Bool[Tensor, "model target"]:
    """Which targets each model trains on: rows 2 i and 2 i + 1 are the two halves of one random cut.

    With an odd number of targets the second half is larger by one.

    Raises:
        ValueError: With fewer than two targets or without a pair.
    """
    if targets < 2 or pairs < 1:
        raise ValueError(f"halves need at least 2 targets and 1 pair, found {targets} and {pairs}")
    halves = torch.zeros(2 * pairs, targets, dtype=torch.bool)
    for pair in range(pairs):
        half = torch.randperm(targets, generator=generator)[: targets // 2]
        halves[2 * pair, half] = True
        halves[2 * pair + 1] = ~halves[2 * pair]
    return halves


def half_members(split: Split, halves: Bool[Tensor, "model target"], *, seed: int = 0) -> list[Member]:
    """Models that train on the retain set and their half of the forget set; model i has the seed `seed + i`.

    Raises:
        ValueError: If the halves are not those of this forget set.
    """
    if halves.shape[1] != len(split.forget):
        raise ValueError(
            f"halves must be of the {len(split.forget)} examples of the forget set, found {halves.shape[1]}"
        )
    return [Member(forget_only(split, ~half), "retain", seed + i) for i, half in enumerate(halves)]


def forget_only(split: Split, gone: Bool[Tensor, " target"]) -> Split:
    """The split whose forget set is only a part of the targets: its retain set holds the others."""
    calibration = split.calibration.tolist()
    return Split(split.train, split.forget[gone], split.held_out, calibration=calibration)
