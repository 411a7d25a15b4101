"""Which layers of a model can have a low-rank addition."""

import re
from collections.abc import Mapping

from torch import nn

FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
"""torch may run these as one kernel on the weights of their layers, past any addition."""


def find_layers(model: nn.Module, pattern: str | None = None) -> list[str]:
    """The names of the layers that can have an addition.

    They are linear layers and convolutions without groups whose weight is trainable and not tied to another,
    and which have one name in the model.
    Layers that torch may run fused with others (`nn.MultiheadAttention`, `nn.TransformerEncoderLayer`) can't.

    Args:
        model: The model.
        pattern: A pattern for their names; all if None.

    Raises:
        ValueError: If there are none.
    """
    fused_prefixes = {f"{name}." for name, m in model.named_modules() if name and isinstance(m, FUSED)}
    candidates = {
        name: module
        for name, module in model.named_modules()
        if name and can_have_addition(module) and not name.startswith(tuple(fused_prefixes))
    }
    tied_ids = tied_weights(model)
    names = [
        name
        for name, module in candidates.items()
        if re.search(pattern or "", name) and id(module.weight) not in tied_ids
    ]
    if not names:
        condition = "" if pattern is None else f" whose name matches {pattern!r}"
        raise ValueError(
            f"LoRA needs a trainable linear or convolutional layer{condition}, found none in "
            f"{type(model).__name__}: {describe_layers(model, candidates)}"
        )
    return names


def can_have_addition(module: nn.Module) -> bool:
    """Whether a module is a layer with a trainable weight to which peft can add."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer; peft needs transformers

    weight = module._parameters.get("weight")
    if weight is None or not weight.requires_grad:
        return False
    return isinstance(module, nn.Linear | Conv1D) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def tied_weights(model: nn.Module) -> set[int]:
    """The ids of the weights with several names: an addition to one of them would leave the others."""
    seen_ids, tied_ids = set[int](), set[int]()
    for _, module in model.named_modules(remove_duplicate=False):
        for p in module.parameters(recurse=False):
            (tied_ids if id(p) in seen_ids else seen_ids).add(id(p))
    return tied_ids


def describe_layers(model: nn.Module, candidates: Mapping[str, nn.Module]) -> str:
    """The layers that could have an addition, or else the kinds of all modules with weights, for errors."""
    if candidates:
        names = list(candidates)
        return f"there are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
    kinds = {type(m).__name__ for m in model.modules() if list(m.parameters(recurse=False))}
    fused_kinds = {each.__name__ for each in FUSED if any(isinstance(m, each) for m in model.modules())}
    note = f", those of {' and '.join(sorted(fused_kinds))} being fused" if fused_kinds else ""
    return f"its modules with weights are {', '.join(sorted(kinds))}{note}"
