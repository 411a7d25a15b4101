"""Low-rank additions to the weights of layers (LoRA), by peft: added, switched off, merged, written.

Hu et al., 2022, https://arxiv.org/abs/2106.09685. The addition to a weight W is B A, of low rank and with
scale one. It starts at B = 0, where the model is unchanged and the first step changes only B.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unweave.record.files import follow_umask
from unweave.tasks import evaluating

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

NAME = "default"
"""peft's name of the one addition of a layer."""

HALVES = ("lora_A", "lora_B")
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of layers in that file."""


@dataclass(frozen=True)
class Additions:
    """Low-rank additions apart from their model.

    Args:
        rank: Their rank.
        layers: The names of the layers that have one.
        state: The matrices A and B on the CPU, by peft's names.
    """

    rank: int
    layers: tuple[str, ...]
    state: Mapping[str, Tensor]

    def save(self, folder: str | Path) -> None:
        """Writes the folder that `peft.PeftModel.from_pretrained(model, folder)` loads onto the original."""
        place = Path(folder)
        lora_config(self.layers, self.rank).save_pretrained(str(place))
        save_file(dict(self.state), place / WEIGHTS, metadata={"format": "pt"})
        follow_umask(place / WEIGHTS)


class WithoutAdditions(nn.Module):
    """Answers as a model does without its low-rank additions, in evaluation mode; needs no copy.

    Args:
        model: The model with additions.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._edited = (model,)  # in a tuple: it is no module of this one, which has nothing to train

    def forward(self, *args: object, **kwargs: object) -> object:
        """The answer, without a gradient."""
        (model,) = self._edited
        with torch.no_grad(), evaluating(model), switch_off(model):
            return model(*args, **kwargs)


def require_peft() -> None:
    """Raises if peft is not installed."""
    try:
        import peft  # noqa: F401  # takes seconds, and only LoRA needs it
    except ImportError as error:
        raise ImportError("low-rank additions (LoRA) need the extra: pip install 'unweave[lora]'") from error


def add_low_rank(model: nn.Module, layers: Sequence[str], rank: int, seed: int) -> None:
    """Freezes a model and adds trainable matrices to some of its layers, in place.

    Args:
        model: The model, whole or sharded; additions are whole on every process.
        layers: The names of the layers.
        rank: The rank of the additions.
        seed: The seed of the matrices A.
    """
    from peft import inject_adapter_in_model

    original_ids = set(map(id, model.modules()))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        # peft finds out by itself which layers, such as GPT-2's, hold their weight transposed
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        inject_adapter_in_model(lora_config(layers, rank), model)
    for module in model.modules():
        if id(module) not in original_ids:
            module.training = model.training
    for p in addition_weights(model).values():
        if p.dtype.itemsize < torch.float32.itemsize:  # a step would be rounded away
            p.data = p.data.float()


def lora_config(layers: Sequence[str], rank: int) -> "LoraConfig":
    """peft's configuration of additions to exactly these layers."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(map(re.escape, layers)))


def find_additions(model: nn.Module) -> "list[tuple[str, LoraLayer]]":
    """The layers with an addition, by name; none if peft was never used."""
    if "peft" not in sys.modules:
        return []
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]


def addition_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices A and B of a model, by the names that peft gives them in files."""
    return {
        f"{name}.{half}.weight": model.get_parameter(f"{name}.{half}.{NAME}.weight")
        for name, _ in find_additions(model)
        for half in HALVES
    }


def detach_additions(model: nn.Module, rank: int) -> Additions:
    """The additions of a model, apart from it."""
    weights = {PREFIX + name: p.detach().cpu().clone() for name, p in addition_weights(model).items()}
    return Additions(rank, tuple(name for name, _ in find_additions(model)), weights)


@contextmanager
def switch_off(model: nn.Module) -> Iterator[None]:
    """Runs a model without its additions for the body."""
    additions = find_additions(model)
    for _, addition in additions:
        addition.enable_adapters(False)
    try:
        yield
    finally:
        for _, addition in additions:
            addition.enable_adapters(True)


def add_apart(weight: Tensor, addition: Tensor) -> None:
    """Adds a tensor to a weight in memory of its own: a copy of the model may share the present one."""
    weight.data = (weight.data + addition).to(weight.dtype)


@torch.no_grad()
def merge(model: nn.Module, add: Callable[[Tensor, Tensor], object] = add_apart) -> None:
    """Adds every addition to the weight of its layer and removes it, in place.

    Args:
        model: The model.
        add: Adds a whole tensor to a weight.
    """
    for _, addition in find_additions(model):
        product = addition.get_delta_weight(NAME)  # pyright: ignore[reportAttributeAccessIssue]  # of each kind
        add(addition.get_base_layer().get_parameter("weight"), product)
    remove(model)


def remove(model: nn.Module) -> None:
    """Removes the additions of a model, in place; its weights stay frozen."""
    for name, addition in find_additions(model):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, addition.get_base_layer())
    vars(model).pop("peft_config", None)
