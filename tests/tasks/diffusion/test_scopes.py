import re

import pytest
import torch
from torch import nn

import every_family
from denoisers import CONFIGS, inputs
from for_each import for_each

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from presets import soon
from unweave.families.diffusion_settings import PRESETS
from unweave.tasks.diffusion.class_denoisers import CLASS_DENOISERS, build_class_denoiser
from unweave.tasks.diffusion.scopes import drop_low_rank, merge_low_rank, restrict
from unweave.tasks.low_rank import find_additions


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", CLASS_DENOISERS)
def test_a_scope_is_what_its_name_says(name: str):
    model = build_class_denoiser(CONFIGS[name])
    names = trainable(model)
    restrict(model, "class embedding")
    assert trainable(model) == {n for n in names if "class_embed" in n} != set()
    restrict(model, "attention")
    assert trainable(model) == {n for n in names if re.search(r"attentions|attn1", n)} != set()
    kinds = {n.rpartition(".")[0].rpartition(".")[2] for n in trainable(model)}
    assert {"to_q", "to_k", "to_v", "0"} <= kinds <= {"to_q", "to_k", "to_v", "0", "group_norm"}
    restrict(model, "all")
    assert trainable(model) == names


@pytest.mark.parametrize("name", CLASS_DENOISERS)
def test_an_addition_changes_nothing_until_it_is_trained_and_comes_off_again(name: str):
    plain, model = build_class_denoiser(CONFIGS[name]).eval(), build_class_denoiser(CONFIGS[name]).eval()
    model.load_state_dict(plain.state_dict())
    state = torch.get_rng_state()
    restrict(model, "lora", rank=2)
    assert torch.equal(torch.get_rng_state(), state)
    x, t, condition = inputs(model)
    torch.testing.assert_close(model(x, t, condition), plain(x, t, condition), rtol=0, atol=1e-6)
    assert not any(module.training for module in model.modules())
    assert trainable(model) and all("lora_" in n for n in trainable(model))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_(std=0.1)  # larger ones lose digits in float32, how many depends on the processor
    outputs = model(x, t, condition)
    assert not torch.allclose(outputs, plain(x, t, condition))
    merged_model = merge_low_rank(model)
    torch.testing.assert_close(merged_model(x, t, condition), outputs)
    assert [n for n, _ in merged_model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert find_additions(model) and not find_additions(merged_model)
    for _, addition in find_additions(model):  # the attack: whoever has the model takes it off
        addition.enable_adapters(False)
    torch.testing.assert_close(model(x, t, condition), plain(x, t, condition), rtol=0, atol=1e-6)
    base_weights = {n.replace(".base_layer", ""): p for n, p in model.named_parameters() if "lora_" not in n}
    assert all(torch.equal(p, plain.state_dict()[n]) for n, p in base_weights.items())
    bare_model = drop_low_rank(model)
    assert torch.equal(bare_model(x, t, condition), plain(x, t, condition)) and not find_additions(bare_model)
    assert [n for n, _ in bare_model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    assert find_additions(model) and all(p.requires_grad for p in bare_model.parameters())


@pytest.mark.parametrize("name", ["lur", "lur-exact", "salun", "sa", "esd", "erasediff"])
@for_each("family", ["unet", "dit"])
def test_a_method_moves_the_additions_and_no_other_bit(family: str, name: str):
    of = every_family.problem(family, whole_class=True)
    restrict(of.model, "lora", rank=2)
    before = {n: p.detach().clone() for n, p in of.model.named_parameters()}
    soon(PRESETS[name], lr=0.01, weight_decay=0.1)(of)
    names = {n for n, p in of.model.named_parameters() if not torch.equal(p, before[n])}
    assert names and names <= set(of.params) and all("lora_" in n for n in names)


def test_a_seed_decides_the_addition():
    def draw_addition(seed: int) -> torch.Tensor:
        model = build_class_denoiser(CONFIGS["UNet2DModel"])
        restrict(model, "lora", seed=seed)
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert torch.equal(draw_addition(0), draw_addition(0)) and not torch.equal(
        draw_addition(0), draw_addition(1)
    )


@for_each(
    ("scope", "message"),
    [
        ("attention", "no weight of Linear belongs to the scope 'attention': choose another"),
        ("class embedding", "no weight of Linear belongs to the scope 'class embedding'"),
        ("lora", "needs attention projections, and Linear has none"),
    ],
)
def test_a_model_without_such_weights_is_refused(scope, message: str):
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=message):
        restrict(model, scope)
    assert model.weight.requires_grad


def test_a_model_without_additions_is_copied():
    model = nn.Linear(2, 2)
    assert torch.equal(merge_low_rank(model).weight, model.weight) and merge_low_rank(model) is not model
