"""Attacks on generators by name: each figure has one, and each name belongs to families."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from for_each import for_each
from pages import table
from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.audits.diffusion.image_attacks import (
    CLASSES,
    CONCEPTS,
    IMAGE_ATTACKS,
    choose_image_attacks,
    names_for,
)
from unweave.audits.metrics import Metric
from unweave.cli.audits.run import absent_attacks

FAMILIES = {CLASSES: ATTACKS, CONCEPTS: CONCEPT_ATTACKS}


@for_each(("family", "metrics"), [*FAMILIES.items()])
def test_every_figure_of_a_family_is_of_one_attack(family: str, metrics: Mapping[str, Metric[Any]]) -> None:
    figures = Counter(figure for name in names_for(family) for figure in IMAGE_ATTACKS[name].figures)
    assert set(figures.values()) == {1}
    assert metrics.keys() - figures.keys() == {"asked"}
    assert all(IMAGE_ATTACKS[name].figures[0] in metrics for name in names_for(family))


def test_names_are_chosen_in_one_order_and_groups_mean_all() -> None:
    assert choose_image_attacks("interpolation, guidance,guidance", CLASSES) == ("guidance", "interpolation")
    assert choose_image_attacks("default", CLASSES) == choose_image_attacks("all", CONCEPTS) == ()


@for_each(
    ("names", "family"),
    [("chosen-prefix", CLASSES), ("interpolation", CONCEPTS), ("rmia", CLASSES), (",", CLASSES)],
)
def test_an_attack_on_another_family_is_refused(names: str, family: str) -> None:
    with pytest.raises(ValueError, match=f"unknown attack on a model of the family {family}"):
        choose_image_attacks(names, family)


def test_the_page_lists_them() -> None:
    rows = table("docs/attacks.md", "| Attack on a generator | Family | What it needs |")
    assert {name: row[1:] for name, row in rows.items()} == {
        name: [", ".join(attack.families), attack.needs] for name, attack in IMAGE_ATTACKS.items()
    }


def test_the_attacks_that_were_not_chosen_are_named() -> None:
    (sentence,) = absent_attacks("guidance,interpolation", CLASSES)
    assert "many-seeds" in sentence and "guidance" not in sentence and "best-prompt" not in sentence
    assert absent_attacks("all", CLASSES) == absent_attacks(None, CLASSES) == []
