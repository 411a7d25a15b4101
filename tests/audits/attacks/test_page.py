"""The page on attacks lists the registry."""

from pages import table
from unweave.audits.attacks import ATTACKS

PAGE = "docs/attacks.md"


def test_the_table_of_attacks_is_the_registry() -> None:
    rows = table(PAGE, "| Attack | Tier | Default | Cost | Runs in |")
    assert list(rows) == list(ATTACKS)
    for name, (_, *cells) in rows.items():
        attack = ATTACKS[name]
        default = "yes" if attack.default else "no"
        assert cells == [f"T{attack.tier}", default, attack.cost, attack.function or "an audit"]


def test_the_limits_are_those_of_the_registry() -> None:
    rows = table(PAGE, "| Attack | What it shows | What it cannot show |")
    assert {name: row[1:] for name, row in rows.items()} == {
        name: [attack.says, attack.cannot] for name, attack in ATTACKS.items()
    }
