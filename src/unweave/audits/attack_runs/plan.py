"""Which attacks an audit runs: by name, by tier, and within a budget of gradient evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unweave.audits.attack import TIERS, Attack
from unweave.audits.attack_runs.budget import Duration
from unweave.audits.attacks import ATTACKS
from unweave.audits.diffusion.image_attacks import IMAGE_ATTACKS
from unweave.choices import explain_unknown

GROUPS = ("default", "all")


@dataclass(frozen=True)
class Request:
    """The attacks of an audit, as requested.

    Args:
        names: "default", "all", or names with commas between, of attacks on any family.
        tier: The largest tier; None for any.
        budget: The most gradient evaluations that examining a model may take, or the time of examining all
            of them; None for any. Retraining is not counted: a verdict needs the retrained models without
            any attack.

    Raises:
        ValueError: If a name or the tier is unknown, or the budget is negative.
    """

    names: str = "default"
    tier: int | None = None
    budget: int | Duration | None = None

    def __post_init__(self) -> None:
        for name in () if self.names in GROUPS else split_names(self.names):
            if name not in IMAGE_ATTACKS:
                attack_named(name)
        if self.tier is not None and self.tier not in TIERS:
            raise ValueError(f"a tier must be one of {', '.join(map(str, TIERS))}, found {self.tier}")
        if isinstance(self.budget, int) and self.budget < 0:
            raise ValueError(f"a budget must be 0 gradient evaluations or more, found {self.budget}")


@dataclass(frozen=True)
class Plan:
    """The attacks that run and those that do not.

    Args:
        request: The request.
        attacks: The attacks to run, the cheapest first.
        not_run: Why each other attack of the registry does not run, by name.
    """

    request: Request
    attacks: Sequence[Attack]
    not_run: Mapping[str, str]

    @property
    def model_attacks(self) -> list[Attack]:
        """The attacks that need the models themselves."""
        return [attack for attack in self.attacks if attack.examine is not None]


def attack_named(name: str) -> Attack:
    """The attack on classifiers of a name.

    Raises:
        ValueError: If there is none; the message lists all.
    """
    if name in IMAGE_ATTACKS:
        raise ValueError(f"the attack {name} is on generators of images, found a classifier")
    if name not in ATTACKS:
        raise ValueError(explain_unknown("attack", name, ATTACKS))
    return ATTACKS[name]


def choose_attacks(names: str) -> list[Attack]:
    """The attacks of "default" or "all", or those of names with commas between.

    Raises:
        ValueError: If a name is unknown or none is given.
    """
    if names in GROUPS:
        return [attack for attack in ATTACKS.values() if names == "all" or attack.default]
    return [attack_named(name) for name in split_names(names)]


def split_names(names: str) -> list[str]:
    """The different names between commas.

    Raises:
        ValueError: If there are none.
    """
    parts = [name.strip() for name in names.split(",") if name.strip()]
    if not parts:
        raise ValueError(f"attacks must be default, all, or names such as rmia, found {names!r}")
    return [*dict.fromkeys(parts)]


def plan_attacks(request: Request, *, retrained: int, has_models: bool) -> Plan:
    """Chooses the attacks that can run, the cheapest first as long as they fit the budget.

    Args:
        request: The request.
        retrained: The number of references.
        has_models: Whether the models themselves can be examined; otherwise only answers are known.
    """
    if isinstance(request.budget, Duration):
        raise ValueError("a budget of time must be measured first: see gradients_within")
    candidates = choose_attacks(request.names)
    not_run = {name: "not asked for" for name in ATTACKS if name not in {each.name for each in candidates}}
    budget, attacks = request.budget, []
    for attack in sorted(candidates, key=lambda each: each.gradients):
        reason = why_not(attack, request, retrained, has_models=has_models)
        if not reason and budget is not None and attack.gradients > budget:
            reason = f"it takes {attack.cost}, and {budget} of the budget are left"
        if reason:
            not_run[attack.name] = reason
            continue
        budget = None if budget is None else budget - attack.gradients
        attacks.append(attack)
    return Plan(request, attacks, not_run)


def why_not(attack: Attack, request: Request, retrained: int, *, has_models: bool) -> str:
    """Why an attack can't run in an audit; empty if it can."""
    if request.tier is not None and attack.tier > request.tier:
        return f"its tier is T{attack.tier}, and T{request.tier} was asked for"
    if attack.figures is None:
        return f"it needs more than an audit of one model has: {attack.evidence}; call {attack.function}"
    if attack.examine is not None and not has_models:
        return "it needs the models themselves, and only their answers are known"
    if attack.tier >= 1 and retrained < 1:
        return f"it needs at least {attack.fewest} retrained models, found none"
    return ""
