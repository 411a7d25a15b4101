"""Scopes: named sets of weights of a denoiser to train. For your own pattern use a method's `where`."""

import copy
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer

Scope = Literal[
    "all",
    "attention",
    "cross-attention",
    "cross-attention keys and values",
    "self-attention",
    "all but cross-attention",
    "class embedding",
    "text encoder",
    "lora",
]

PATTERNS: Mapping[str, str] = {
    "all": "",
    "attention": r"(^|\.)(attentions\.\d+|attn\d+)\.",
    "cross-attention": r"(^|\.)attn2\.",
    "cross-attention keys and values": r"(^|\.)attn2\.to_[kv]\.",
    "self-attention": r"(^|\.)attn1\.",
    # as released for ESD and Selective Amnesia: the embedding of the time and the output stay too
    "all but cross-attention": r"^(?!.*\b(attn2|time_embedding|conv_norm_out|conv_out|text_encoder)\.)",
    "class embedding": r"(^|\.)class_embed(ding|der)\.",
    "text encoder": r"(^|\.)text_encoder\.",
}
"""The patterns of the weights' names, for diffusers' denoisers and the text encoder of a pipeline."""

PROJECTIONS = r".*\.(to_q|to_k|to_v|to_out\.0)"
"""The layers that get a low-rank addition."""


def restrict(model: nn.Module, scope: Scope, *, rank: int = 8, seed: int = 0) -> None:
    r"""Leaves the weights of a scope trainable and freezes the others, in place.

    "lora" (Hu et al., 2022, https://arxiv.org/abs/2106.09685) freezes all weights and adds :math:`B A` of low
    rank to the projections of attention, with peft. It starts at :math:`B = 0`, where the model is unchanged
    and the first step changes only B. A user of such a model can remove the addition, so ship
    `merge_low_rank(model)`.

    Args:
        model: The denoiser.
        scope: The name of the scope.
        rank: The rank of the addition; its scale is one.
        seed: The seed of the matrices A.

    Raises:
        ValueError: If the model has no such weights.
        ImportError: If peft is missing.
    """
    if scope == "lora":
        add_low_rank(model, rank, seed)
        return
    chosen = {name for name, _ in model.named_parameters() if re.search(PATTERNS[scope], name)}
    if not chosen:
        raise ValueError(
            f"no weight of {type(model).__name__} belongs to the scope {scope!r}: use a pattern (where=)"
        )
    for name, p in model.named_parameters():
        p.requires_grad_(name in chosen)


def add_low_rank(model: nn.Module, rank: int, seed: int) -> None:
    """Freezes the model and adds trainable matrices to its projections, in place."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("scope 'lora' needs the extra: pip install 'unweave[diffusion]'") from error
    if not any(re.fullmatch(PROJECTIONS, name) for name, _ in model.named_modules()):
        raise ValueError(f"scope 'lora' needs attention projections, and {type(model).__name__} has none")
    known = set(map(id, model.modules()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=PROJECTIONS), model)
    for module in model.modules():
        if id(module) not in known:
            module.training = model.training


def merge_low_rank(model: nn.Module) -> nn.Module:
    """A copy with its low-rank additions merged into the weights, under their original names."""
    whole = copy.deepcopy(model)
    for _, addition in additions(whole):
        addition.merge()
    return unwrap_low_rank(whole)


def drop_low_rank(model: nn.Module) -> nn.Module:
    """A copy without its low-rank additions, that is, the model before them; any user can make it."""
    return unwrap_low_rank(copy.deepcopy(model))


def unwrap_low_rank(model: nn.Module) -> nn.Module:
    """Unwraps the layers with additions in the model itself, and makes all of it trainable."""
    for name, addition in additions(model):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, addition.get_base_layer())
    return model.requires_grad_(True)


def additions(model: nn.Module) -> "list[tuple[str, BaseTunerLayer]]":
    """The layers with an addition, by name; none if peft was never used."""
    if "peft" not in sys.modules:
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
