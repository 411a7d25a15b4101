"""Copies of models, which need not hold twice the weights that nothing changes."""

import copy
from typing import Protocol, TypeVar, runtime_checkable

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@runtime_checkable
class SharesFrozen(Protocol):
    """A model whose frozen weights are large; no method of the package changes them in place."""

    def editable_copy(self) -> nn.Module:
        """A copy that shares the memory of the frozen weights."""
        ...


def editable_copy(model: nn.Module) -> nn.Module:
    """A copy to edit; of a model that `SharesFrozen`, only the trainable weights are copied."""
    return model.editable_copy() if isinstance(model, SharesFrozen) else copy.deepcopy(model)


def share_frozen(model: Model) -> Model:
    """A copy that shares the memory of the frozen weights with the model."""
    return copy.deepcopy(model, shared_memory(model, trainable=False))


def share_all(model: Model) -> Model:
    """A copy that shares the memory of all weights and buffers with the model; its weights are frozen."""
    return copy.deepcopy(model, shared_memory(model, trainable=True)).requires_grad_(False)


def own_trainable(model: nn.Module) -> None:
    """Gives the trainable weights of a model that shares memory a memory of their own, in place."""
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.clone()


def shared_memory(model: nn.Module, *, trainable: bool) -> dict[int, object]:
    """What a deep copy is told in order to share weights: the frozen ones, or all and the buffers."""
    memo: dict[int, object] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False)
        for p in model.parameters()
        if trainable or not p.requires_grad
    }
    return memo | ({id(b): b.detach() for b in model.buffers()} if trainable else {})
