"""The frozen weights of a text-to-image model are shared with the original, and no method changes them."""

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from for_each import for_each

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from presets import soon
from text_to_image import pipeline, prompts, split
from unweave import unlearn
from unweave.descent.descend import Descent
from unweave.errors import Failed
from unweave.methods import METHODS, STAGES, Method, methods_for
from unweave.methods.pipeline import Pipeline
from unweave.methods.simple import FineTune
from unweave.problem import Problem
from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.scopes import Scope
from unweave.tasks.diffusion.text_to_image import make_task

slow = pytest.mark.slow
OTHERS: list[Scope] = ["text encoder", "lora", "all"]
NAMES = [*methods_for("text-to-image"), *STAGES]
FINE_TUNE = FineTune(Descent(lr=1e-3, steps=1, batch=4))


def contents(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights and buffers."""
    return {name: each.clone() for name, each in [*model.named_parameters(), *model.named_buffers()]}


def refuse_moved(model: Prompted, method: Method) -> None:
    """Unlearns; fails if a bit of the model or of its pipeline has changed."""
    before, weights = contents(model), pipeline().digest()
    prompt_list = prompts()
    try:
        unlearn(
            model, split(prompt_list, torch.float32), method,
            task=make_task(prompt_list, pipeline().schedule), build=lambda: pipeline().fresh(model),
        )  # fmt: skip
    finally:
        after = contents(model)
        assert [name for name in before if not torch.equal(before[name], after[name])] == []
        assert pipeline().digest() == weights


@pytest.mark.parametrize("scope", ["cross-attention", *(pytest.param(each, marks=slow) for each in OTHERS)])
@for_each("name", NAMES)
def test_no_method_changes_a_bit_of_the_original(name: str, scope: Scope):
    method = soon({**METHODS, **STAGES}[name], steps=1, batch=4, forget_batch=4)
    model = pipeline().model(prompts(), scope, rank=2)
    # a refused method owes the same
    with suppress(ValueError, Failed):
        refuse_moved(model, method)


def stretch_everything(problem: Problem) -> None:
    """A user's method that ignores what is frozen."""
    with torch.no_grad():
        for p in problem.model.parameters():
            p.mul_(1.5)


@pytest.mark.parametrize("method", [stretch_everything, Pipeline(FINE_TUNE, stretch_everything)])
def test_a_function_of_a_user_changes_frozen_weights_of_a_copy_alone(method: Method):
    refuse_moved(pipeline().model(prompts(), "cross-attention"), method)
