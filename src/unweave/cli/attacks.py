"""`unweave attacks`: lists attacks with their needs, tiers, costs and limits."""

from collections.abc import Mapping
from typing import Any

from unweave.audits.attack import TIERS, Attack
from unweave.audits.attack_runs.plan import attack_named
from unweave.audits.attacks import ATTACKS
from unweave.audits.diffusion.image_attacks import CLASSES, IMAGE_ATTACKS, IMAGES, ImageAttack
from unweave.cli.inputs import out
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.terminal import show
from unweave.tasks.classifier import Classifier

FILE = "attacks.json"


def attacks(name: str | None = None, /, *, flags: CommonFlags = DEFAULTS) -> int:
    """List the attacks of audit --attacks: family, paper, tier, models needed, cost, what each cannot show.

    Args:
        name: An attack to show alone.
        flags: The flags of every verb.
    """
    descriptions = describe_all() if name is None else {name: describe_named(name)}
    out.write_json(flags.out, {"verb": "attacks", "attacks": descriptions}, FILE, descriptions)
    if flags.json:
        show.print_json(descriptions)
    elif name is None:
        print_attacks(descriptions)
    else:
        print_attack(name, descriptions[name])
    return 0


def describe_all() -> dict[str, dict[str, Any]]:
    """The facts about every attack, by name."""
    return {name: describe_named(name) for name in (*ATTACKS, *IMAGE_ATTACKS)}


def describe_named(name: str) -> dict[str, Any]:
    """The facts about the attack of a name.

    Raises:
        ValueError: If there is none.
    """
    if name in IMAGE_ATTACKS:
        return describe_image_attack(IMAGE_ATTACKS[name])
    return describe_attack(attack_named(name))


def describe_image_attack(attack: ImageAttack) -> dict[str, Any]:
    """The facts about an attack on a generator."""
    from unweave.audits.diffusion import attack_metrics, concept_attack_metrics  # they take time to import

    of_family = (
        attack_metrics.ATTACKS if CLASSES in attack.families else concept_attack_metrics.CONCEPT_ATTACKS
    )
    main = of_family[attack.figures[0]]
    return {
        "families": list(attack.families),
        "paper": attack.paper,
        "tier": 0,
        "evidence": attack.needs,
        "fewest": 1,
        "cost": f"{IMAGES} images of each setting, or as many as the setting attacks says",
        "says": main.says,
        "cannot": main.cannot,
        "default": True,
        "runs_in": "unweave audit --attacks",
    }


def describe_attack(attack: Attack) -> dict[str, Any]:
    """The facts about an attack on classifiers."""
    return {
        "families": [Classifier.family],
        "paper": attack.paper,
        "tier": attack.tier,
        "evidence": attack.evidence,
        "fewest": attack.fewest,
        "cost": attack.cost,
        "says": attack.says,
        "cannot": attack.cannot,
        "default": attack.default,
        "runs_in": attack.function or "unweave audit --attacks",
    }


def print_attacks(descriptions: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for each attack, the tiers, and what each attack cannot show."""
    on_classifiers = {name: each for name, each in descriptions.items() if name in ATTACKS}
    rows = [
        (name, f"T{each['tier']}", "yes" if each["default"] else "", each["cost"], each["paper"])
        for name, each in on_classifiers.items()
    ]
    show.print_lines("Attacks on classifiers:")
    show.print_table(("Attack", "Tier", "Default", "Cost", "Paper"), rows, words=range(5))
    show.print_lines("", "Attacks on generators, all by default:")
    rows = [
        (name, ", ".join(each["families"]), each["evidence"], each["paper"])
        for name, each in descriptions.items()
        if name not in on_classifiers
    ]
    show.print_table(("Attack", "Family", "Needs", "Paper"), rows, words=range(4))
    show.print_lines("", "Tiers: the models that an attack needs beside the unlearned one.")
    show.print_table(("Tier", "Models"), [(f"T{tier}", text) for tier, text in TIERS.items()], words=range(2))
    show.print_lines("", "What each cannot show:")
    show.print_table(
        ("Attack", ""), [(name, each["cannot"]) for name, each in descriptions.items()], words=range(2)
    )


def print_attack(name: str, each: Mapping[str, Any]) -> None:
    """Prints the facts about one attack."""
    show.print_sentences(f"{name}: {each['paper']}", each["says"])
    show.print_sentences(
        f"For: {', '.join(each['families'])}.",
        f"Needs: {each['evidence']}; at least {each['fewest']} models of each kind (T{each['tier']}: "
        f"{TIERS[each['tier']]}).",
        f"Cost: {each['cost']}.",
        f"It cannot show: {each['cannot']}",
        f"Runs in: {each['runs_in']}.",
    )
