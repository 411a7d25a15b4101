"""AdamW of torchao, with states of a byte per weight (Dettmers et al., 2022), arXiv 2110.02861."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec

import torch

EIGHT_BIT = "adamw8bit"


def eight_bit_adamw() -> Callable[..., torch.optim.Optimizer]:
    """The optimizer; tensors of fewer than 4,096 weights keep states of 32 bits.

    torch compiles its update, so the first step takes longer, and on the CPU needs a C++ compiler.

    Raises:
        ValueError: If torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise ValueError(
            f"optimizer {EIGHT_BIT!r} needs torchao, which is not installed: pip install 'unweave[eight-bit]'"
        )
    return importlib.import_module("torchao.optim").AdamW8bit  # the extra may be missing
