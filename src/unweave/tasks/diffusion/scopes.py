"""Scopes: named sets of weights of a denoiser to train. For your own pattern use a method's `where`."""

import copy
import re
from collections.abc import Mapping
from typing import Literal

from torch import nn

from unweave.tasks.low_rank import add_low_rank, merge, remove, require_peft

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

    "lora" freezes all weights and gives the projections of attention low-rank additions. A user of such a
    model can remove them, so ship `merge_low_rank(model)`.

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
        add_to_attention(model, rank, seed)
        return
    names = {name for name, _ in model.named_parameters() if re.search(PATTERNS[scope], name)}
    if not names:
        raise ValueError(
            f"no weight of {type(model).__name__} belongs to the scope {scope!r}: choose another, or "
            "a method's own pattern (where)"
        )
    for name, p in model.named_parameters():
        p.requires_grad_(name in names)


def add_to_attention(model: nn.Module, rank: int, seed: int) -> None:
    """Freezes the model and adds trainable matrices to its projections of attention, in place."""
    require_peft()
    layers = [name for name, _ in model.named_modules() if re.fullmatch(PROJECTIONS, name)]
    if not layers:
        raise ValueError(f"scope 'lora' needs attention projections, and {type(model).__name__} has none")
    add_low_rank(model, layers, rank, seed)


def merge_low_rank(model: nn.Module) -> nn.Module:
    """A copy with its low-rank additions merged into the weights, under their original names."""
    model_copy = copy.deepcopy(model)
    merge(model_copy)
    return model_copy.requires_grad_(True)


def drop_low_rank(model: nn.Module) -> nn.Module:
    """A copy without its low-rank additions, that is, the model before them; any user can make it."""
    model_copy = copy.deepcopy(model)
    remove(model_copy)
    return model_copy.requires_grad_(True)
