"""Targets: settings that make the forget objective of a problem.

    NegGradPlus(forget=Clamped(cap=4.0))
    LUR(forget=Match(proxy=Proxy(start="shrunk")))

Every method with a forget loss accepts one. A new target is one file, one member of `Target` and one line of
`TARGETS`.
"""

from collections.abc import Mapping

from unweave.space import Choice, Range
from unweave.targets.away import Away
from unweave.targets.estimate import Estimate
from unweave.targets.ideal import Ideal
from unweave.targets.level import Level
from unweave.targets.match import Match
from unweave.targets.quantile import Quantile
from unweave.targets.unseen import Unseen
from unweave.targets.usual import Ascent, Bounded, Clamped, Mislabel, Surrogate, Uniform

__all__ = ["TARGETS", "Target"]

Target = (
    Bounded
    | Clamped
    | Ascent
    | Mislabel
    | Uniform
    | Surrogate
    | Away
    | Ideal
    | Unseen
    | Level
    | Match
    | Quantile
    | Estimate
)
"""Frozen settings. Called with a problem and its descent, a target returns the forget objective."""

TARGETS: Mapping[str, Target] = {
    "bounded": Bounded(),
    "clamped": Clamped(),
    "ascent": Ascent(),
    "mislabel": Mislabel(),
    "uniform": Uniform(),
    "surrogate": Surrogate(),
    "away": Away(),
    "ideal": Ideal(),
    "unseen": Unseen(),
    "level": Level(),
    "match": Match(),
    "quantile": Quantile(),
    "estimate": Estimate(),
}
"""The targets by the names that recipes and the command line use."""

LIMITED_TO: Mapping[type, tuple[str, ...]] = {
    Uniform: ("classifier",),
    Quantile: ("classifier",),
    Estimate: ("classifier",),
    Surrogate: ("diffusion", "text-to-image"),
    Away: ("diffusion", "text-to-image"),
    Ideal: ("diffusion", "text-to-image"),
}
"""The families of each target that is not for all."""


def ascents(target: object) -> dict[str, Range]:
    """The search space of a field `forget`: all kinds of ascent if it holds one, otherwise empty."""
    kinds = Choice(("ascent", "bounded", "clamped", "unseen"))
    return {"forget": kinds} if isinstance(target, Ascent | Bounded | Clamped | Unseen) else {}


def refuse_other_family(target: object, family: str, path: str) -> None:
    """Raises if a target is for models of another family; errors name `path`."""
    families = LIMITED_TO.get(type(target), (family,))
    if family not in families:
        raise ValueError(
            f"{path} = {type(target).__name__.lower()!r} is for models of the family "
            f"{' or '.join(families)}, and this is "
            f"about {family}: use another target, such as 'clamped'"
        )
