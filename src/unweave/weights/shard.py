"""Cuts a model over processes by FSDP2, block by block."""

import re
from collections.abc import Iterator

import torch.distributed as dist
from torch import nn

from unweave.weights.sharded_model import is_model_sharded, prepare_sharded, refuse_wrapped

__all__ = ["shard_model"]


def shard_model(model: nn.Module, blocks: str | None = None) -> nn.Module:
    """Cuts the weights of a model over all processes, in place; returns the model.

    A pass gathers one block at a time, so a process holds its pieces and one whole block. All processes must
    call this together with the same whole model.

    Args:
        model: The model, whole on every process.
        blocks: A pattern for the names of the modules that are blocks; by default the model's own repeated
            layers. What is outside of them forms a block of its own.

    Raises:
        ValueError: If there is no process group, the model is sharded already, or no module is a block.
    """
    from torch.distributed.device_mesh import init_device_mesh  # takes a second
    from torch.distributed.fsdp import fully_shard

    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "shard_model cuts a model over processes, found no process group: start the program with "
            "torchrun, and call torch.distributed.init_process_group() first"
        )
    refuse_wrapped(model)
    if is_model_sharded(model):
        raise ValueError("expected a whole model to shard, found a sharded one: use it as it is")
    modules, names = dict(model.named_modules()), find_blocks(model, blocks)
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for name in reversed(names):  # inner ones first
        fully_shard(modules[name], mesh=mesh)
    fully_shard(model, mesh=mesh)
    prepare_sharded(model)
    return model


def find_blocks(model: nn.Module, pattern: str | None = None) -> list[str]:
    """The names of the modules that are gathered one at a time, outer ones first.

    Args:
        model: The model.
        pattern: A pattern for their names; by default the model's own repeated layers.

    Raises:
        ValueError: If there are none.
    """
    candidates = [name for name, m in model.named_modules() if name and list(m.parameters())]
    if pattern is None:
        names = list(repeated_layers(model))
        kind = "two or more in one nn.ModuleList or nn.Sequential"
    else:
        names = [name for name in candidates if re.search(pattern, name)]
        kind = f"names that match {pattern!r}"
    if not names:
        raise ValueError(
            f"a sharded model needs blocks, {kind}, found none: name them by a pattern; the modules are "
            f"{', '.join(candidates[:8])}{', ...' if len(candidates) > 8 else ''}"
        )
    return names


def repeated_layers(module: nn.Module, path: str = "") -> Iterator[str]:
    """The outermost modules with weights that stand beside others in a list or a sequence."""
    children = {name: child for name, child in module.named_children() if list(child.parameters())}
    if isinstance(module, nn.ModuleList | nn.Sequential) and len(children) > 1:
        yield from (path + name for name in children)
        return
    for name, child in children.items():
        yield from repeated_layers(child, f"{path}{name}.")
