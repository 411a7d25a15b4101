"""Intervals of means and shares over the examples of one model."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from unweave.audits.score import Interval, Share, Z


def mean_interval(values: Sequence[float] | Float64[np.ndarray, " example"]) -> Interval:
    """The mean with its normal 95 % interval, ends in [0, 1]; NaN ends with fewer than two values."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, math.nan, math.nan)
    reach = Z * float(array.std(ddof=1)) / math.sqrt(len(array))
    return Interval(mean, max(0.0, mean - reach), min(1.0, mean + reach))


def share_interval(hits: Sequence[float]) -> Interval:
    """The share of ones with its exact 95 % interval."""
    share = Share(int(sum(hits)), len(hits), exact=True)
    return Interval(share.value, share.low, share.high)
