"""Attacks the models of a stage and its retrained models, from the answers in its cells."""

from collections.abc import Mapping, Sequence
from typing import Any

from unweave.audits.attack import Attack, ModelAnswers
from unweave.audits.attack_runs.compare import AuditedModels, figures_of, judge_figures, null_of
from unweave.audits.attack_runs.plan import GROUPS, choose_attacks
from unweave.bench.cell import REFERENCE, cell_path, read_answers
from unweave.bench.recipe import Recipe
from unweave.bench.stage import Stage
from unweave.tasks.classifier import Classifier

FEWEST = 2
"""The fewest seeds: a retrained model is attacked beside the others."""


def answer_attacks(names: str) -> tuple[Attack, ...]:
    """The attacks of "default" or "all", or of names with commas between, that need answers alone.

    Raises:
        ValueError: If a name is unknown, or is of an attack that needs more.
    """
    attacks = choose_attacks(names)
    usable_attacks = tuple(each for each in attacks if each.figures is not None and each.examine is None)
    unusable = [each.name for each in attacks if each not in usable_attacks]
    if unusable and names not in GROUPS:
        choices = ", ".join(each.name for each in answer_attacks("all"))
        raise ValueError(
            f"--attacks of a bench use the answers that it stores ({choices}), found {unusable[0]}, which "
            "needs more: see unweave attacks"
        )
    return usable_attacks


def refuse_unattackable(recipe: Recipe) -> None:
    """Raises if a stage can't be attacked: its models are no classifiers, or there are too few of them."""
    if recipe.family.name != Classifier.family:
        raise ValueError(f"--attacks are for classifiers, found {recipe.name!r}, of a {recipe.family.noun}")
    if len(recipe.seeds) < FEWEST:
        raise ValueError(f"--attacks need at least {FEWEST} seeds, found {len(recipe.seeds)}")


def attack_rows(stage: Stage, methods: Sequence[str], attacks: Sequence[Attack]) -> list[dict[str, Any]]:
    """A row per figure of an attack: its value per seed for each method and for the retrained models.

    Args:
        stage: The stage, with all of its cells.
        methods: The methods that ran on every seed.
        attacks: The attacks.
    """
    seeds = stage.recipe.seeds
    references = [read_model_answers(stage, REFERENCE, seed) for seed in seeds]
    calibration = [read_model_answers(stage, REFERENCE, seed) for seed in stage.recipe.calibration_seeds]
    case = AuditedModels(references[0], references, calibration)
    by_method = {name: [read_model_answers(stage, name, seed) for seed in seeds] for name in methods}
    return [row for attack in attacks for row in rows_of(attack, case, by_method)]


def read_model_answers(stage: Stage, name: str, seed: int) -> ModelAnswers:
    """Reads the answers of the model of a cell."""
    return ModelAnswers(read_answers(stage.exam(), cell_path(stage, seed, name)))


def rows_of(
    attack: Attack, case: AuditedModels, by_method: Mapping[str, Sequence[ModelAnswers]]
) -> list[dict[str, Any]]:
    """The rows of one attack; a model is attacked beside the references of all seeds, as in an audit."""
    null = null_of(attack, case)
    results = {
        name: [judge_figures(attack, figures_of(attack, each, case.retrained), null) for each in models]
        for name, models in by_method.items()
    }
    return [
        {
            "attack": attack.name,
            "figure": figure,
            "retrained": [each[figure].value for each in null.references],
            "null_band": list(null.bands[figure]),
            "margin": null.margins.get(figure),
            "methods": {name: [each[figure].value for each in series] for name, series in results.items()},
            "findings": {name: [each[figure].finding for each in series] for name, series in results.items()},
        }
        for figure in null.bands
        if all(figure in each for series in results.values() for each in series)
    ]
