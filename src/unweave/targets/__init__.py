"""Where the forget data should end: values that make a forget objective of a problem.

    NegGradPlus(forget=Clamped(cap=4.0))
    LUR(forget=Match(proxy=Proxy(start="shrunk")))

Every method with a forget loss takes one. A new target is one file, one member of `Target` and one line of
`TARGETS`.
"""

from collections.abc import Mapping

from unweave.targets.estimate import Estimate
from unweave.targets.level import Level
from unweave.targets.match import Match
from unweave.targets.quantile import Quantile
from unweave.targets.usual import Ascent, Bounded, Clamped, Mislabel, Surrogate, Uniform

Target = Bounded | Clamped | Ascent | Mislabel | Uniform | Surrogate | Level | Match | Quantile | Estimate
"""Frozen settings. Called with a problem and the descent that follows it, a target gives its objective."""

TARGETS: Mapping[str, Target] = {
    "bounded": Bounded(),
    "clamped": Clamped(),
    "ascent": Ascent(),
    "mislabel": Mislabel(),
    "uniform": Uniform(),
    "surrogate": Surrogate(),
    "level": Level(),
    "match": Match(),
    "quantile": Quantile(),
    "estimate": Estimate(),
}
"""The targets by the names that recipes and the command line use."""
