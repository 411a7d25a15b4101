"""Synthetic evidence: Gaussian margins, whose distance is known."""

import numpy as np

from unweave.audits.attacks.ulira import Shadows


def margins(models: int, examples: int, seed: int, shift: float = 0.0, level: int = 0) -> np.ndarray:
    """Margins of models on examples of unequal difficulty, which `level` fixes; `shift` in deviations."""
    difficulty = np.random.default_rng(1000 + level).normal(scale=3, size=examples)
    return difficulty + shift + np.random.default_rng(seed).normal(size=(models, examples))


def shadows(pairs: int, targets: int, seed: int, shift: float = 0.0) -> Shadows:
    """Antithetic pairs whose margins are higher by `shift` deviations where a target was seen."""
    is_seen = np.repeat(np.random.default_rng(seed + 500).random((pairs, targets)) < 0.5, 2, axis=0)
    is_seen[1::2] = ~is_seen[1::2]
    return Shadows(margins(2 * pairs, targets, seed) + shift * is_seen, is_seen)
