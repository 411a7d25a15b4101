"""A study of planted examples: the control holds, methods have rows, and what fails keeps one."""

from dataclasses import replace

import pytest

from unweave.bench.planted_study import PlantedStudy, run_study, summarize
from unweave.bench.recipe import load


def study(name: str, folder, **changes) -> PlantedStudy:
    recipe = replace(load(name).with_short_training(150), seeds=(0,))
    plant = replace(recipe.data.plant, **changes)
    return PlantedStudy(replace(recipe, data=replace(recipe.data, plant=plant)), folder)


def test_a_backdoor_is_shown_by_originals_and_by_no_model_without_poison(tmp_path) -> None:
    names: list[str] = []
    result = run_study(study("digits-backdoor", tmp_path), ["finetune", "unsir"], names.append)
    assert result["valid"] and (result["planted"], result["known"]) == (144, 130)
    assert names == ["original", "retrained", "unplanted", "finetune", "unsir"]
    assert "class" in result["rows"].pop("unsir")["failed"]
    label_rates = {name: row["figures"]["taught label"]["value"] for name, row in result["rows"].items()}
    assert label_rates["original"] > 0.9 > 0.1 > label_rates["unplanted"]
    assert label_rates["unplanted"] <= label_rates["finetune"] <= label_rates["original"]
    assert result["rows"]["finetune"]["cost"]["gradients"] > 0
    lines = summarize(result)
    assert lines[0].startswith("The control holds: originals give the taught label to")
    assert [line.split()[0] for line in lines[2:]] == names[:-1]


def test_a_swap_is_measured_on_its_two_classes(tmp_path) -> None:
    swap_study = study("digits-backdoor", tmp_path, kind="swap", classes=(3, 8), fraction=0.9)
    (answers,) = swap_study.examine(swap_study.references("original")[:1])
    assert set(answers.truth.tolist()) == {3, 8} and (answers.truth + answers.taught == 11).all()
    assert (answers.affected.argmax(1) == answers.taught).mean() > 0.5


def test_canaries_are_scored_by_every_kind(tmp_path) -> None:
    result = run_study(study("digits-canaries", tmp_path, sigma=3.0), [], lambda name: None)
    means = {name: row["figures"]["mean"]["value"] for name, row in result["rows"].items()}
    assert means["original"] > 0.1 > means["unplanted"] and means["retrained"] == means["unplanted"]


def test_a_recipe_without_planted_examples_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="expected a recipe with planted .* found none in 'digits-clean'"):
        PlantedStudy(load("digits-clean"), tmp_path)
