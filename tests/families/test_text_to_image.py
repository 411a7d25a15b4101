import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unweave
from for_each import for_each
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS
from unweave.audits.diffusion.concept_metrics import CONCEPT
from unweave.data.in_memory import Resident
from unweave.families import FAMILIES, default_exam, family_of_stage, metric_named
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods.configure import configure, refuse_unknown_settings
from unweave.methods.simple import FineTune
from unweave.methods.uce import UCE
from unweave.result import Result
from unweave.space import Tunable
from unweave.split import Split
from unweave.tasks.diffusion.schedule import Schedule
from unweave.tasks.diffusion.text_to_image import TextToImage, make_task, number_prompts
from unweave.weights.cost import Cost

PROMPTS = number_prompts(["a two", "a four"], concepts=["a three"], forgotten=["a three"])


def test_it_is_registered_under_the_word_of_its_task():
    family = FAMILIES[TextToImage.family]
    assert isinstance(family, TextToImageFamily)
    assert isinstance(family.method_named("uce"), UCE) and "uce" in family.methods
    assert "how.lr" in family.space("finetune", FineTune(), 100)


@for_each("name", TextToImageFamily().methods)
def test_the_space_of_a_method_names_fields_that_it_has(name: str):
    family = TextToImageFamily()
    method = family.method_named(name)
    space = family.space(name, method, 400)
    refuse_unknown_settings(method, space, name)
    assert bool(space) == isinstance(method, Tunable)


def test_its_metrics_are_told_from_those_of_other_families():
    def stage(metrics: Iterable[str]) -> dict[str, Any]:
        return {"reference": {"scores": {}}, "methods": {"lur": {"scores": dict.fromkeys(metrics)}}}

    assert family_of_stage(stage(CONCEPT)) is FAMILIES["text-to-image"]
    assert family_of_stage(stage(["ua", "ra", "class_tv", "kid"])) is FAMILIES["diffusion"]
    for name in (*CONCEPT, *CONCEPT_ATTACKS):
        metric, own = metric_named(name), TextToImageFamily.metrics[name]
        assert metric is not None and (metric.title, metric.unit) == (own.title, own.unit)


def test_what_only_recipes_ask_says_what_to_do():
    labels = torch.arange(4)
    split = Split(Resident(torch.zeros(4, 1), labels), [0], Resident(torch.zeros(4, 1), labels))
    task = make_task(PROMPTS, Schedule())
    model = nn.Linear(1, 1)
    result = Result(model, FineTune(), split, task, 0, model, Cost())
    with pytest.raises(ValueError, match="audit it with unweave audit FOLDER --prompts"):
        default_exam(result)
    with pytest.raises(ValueError, match="unweave forget FOLDER --concept"):
        FAMILIES["text-to-image"].build("unet", 3, {})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"images": 19}, "images must be at least 20"), ({"attacks": -1}, "attacks")],
)
def test_settings_that_no_audit_can_use_are_refused(settings, expected):
    with pytest.raises(ValueError, match=expected):
        TextToImageFamily(**settings)


def test_the_budget_of_attackers_can_be_set_by_tables():
    tables = {"attacks": 3, "attacker": {"relearning": {"lr": 0.001}, "vector_steps": 5}, "images": 30}
    family = configure(TextToImageFamily(), tables)
    assert (family.attacks, family.attacker.relearning.lr, family.attacker.vector_steps) == (3, 0.001, 5)
    assert family.attacker.seeds == 100 and family.sampler == TextToImageFamily().sampler


def test_nothing_outside_of_the_families_asks_for_its_class():
    package = Path(unweave.__file__).parent
    asking = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
        if "TextToImageFamily" in ast.dump(node)
    ]
    assert asking == []
