"""`unweave attacks`: lists attacks with their needs, tiers, costs and limits."""

import json
from collections.abc import Mapping
from typing import Any

from unweave.audits.attack import TIERS, Attack
from unweave.audits.attack_runs.plan import attack_named
from unweave.audits.attacks import ATTACKS
from unweave.cli.inputs import out
from unweave.cli.options import DEFAULTS, CommonFlags
from unweave.cli.terminal import show
from unweave.record.files import write_atomically

FILE = "attacks.json"


def attacks(name: str | None = None, /, *, flags: CommonFlags = DEFAULTS) -> int:
    """List the attacks of audit --attacks: paper, tier, models needed, cost, what each cannot show.

    Args:
        name: An attack to show alone.
        flags: The flags of every verb.
    """
    selection = ATTACKS if name is None else {name: attack_named(name)}
    descriptions = {each: describe_attack(attack) for each, attack in selection.items()}
    if flags.out is not None:
        facts = {"verb": "attacks", "attacks": descriptions}
        with out.open_folder(out.choose_folder(flags.out, facts), facts) as folder:
            write_atomically(folder / FILE, json.dumps(descriptions, indent=1))
    if flags.json:
        show.print_json(descriptions)
    elif name is None:
        print_attacks(descriptions)
    else:
        print_attack(name, descriptions[name])
    return 0


def describe_attack(attack: Attack) -> dict[str, Any]:
    """The facts about an attack."""
    return {
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
    rows = [
        (name, f"T{each['tier']}", "yes" if each["default"] else "", each["cost"], each["paper"])
        for name, each in descriptions.items()
    ]
    show.print_table(("Attack", "Tier", "Default", "Cost", "Paper"), rows, words=range(5))
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
        f"Needs: {each['evidence']}; at least {each['fewest']} models of each kind (T{each['tier']}: "
        f"{TIERS[each['tier']]}).",
        f"Cost: {each['cost']}.",
        f"It cannot show: {each['cannot']}",
        f"Runs in: {each['runs_in']}.",
    )
