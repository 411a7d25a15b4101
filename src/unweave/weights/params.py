"""Weights and gradients as one vector: a dict from the name of a weight to a tensor.

Every operation handles all tensors at once (`torch._foreach_*`), so a model of a hundred small tensors needs
a few kernel launches instead of hundreds.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

Params = Mapping[str, Tensor]
"""One tensor per trainable weight, in the order of `model.named_parameters()`."""


def add(a: Params, b: Params, *, scale: float = 1.0) -> dict[str, Tensor]:
    """`a + scale * b`, as a new vector."""
    return dict(zip(a, torch._foreach_add(list(a.values()), list(b.values()), alpha=scale), strict=True))


def multiply(a: Params, b: Params) -> dict[str, Tensor]:
    """The elementwise product, name by name, as a new vector."""
    return dict(zip(a, torch._foreach_mul(list(a.values()), [b[name] for name in a]), strict=True))


def scale(a: Params, by: float) -> dict[str, Tensor]:
    """`by * a`, as a new vector."""
    return dict(zip(a, torch._foreach_mul(list(a.values()), by), strict=True))


def dot(a: Params, b: Params) -> Float[Tensor, ""]:
    """The inner product over all weights; stays on the device."""
    products = [torch.dot(u.flatten(), v.flatten()) for u, v in zip(a.values(), b.values(), strict=True)]
    return sum_pieces(torch.stack(products).sum())


def norm(a: Params) -> Float[Tensor, ""]:
    """The Euclidean norm over all weights; stays on the device."""
    return sum_pieces(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(a.values())))))


def gramian(vectors: list[Params]) -> Float[Tensor, "m m"]:
    r"""All inner products of the vectors, :math:`G_{ij} = \langle g_i, g_j \rangle`."""
    m = len(vectors)
    upper = {(i, j): dot(vectors[i], vectors[j]) for i in range(m) for j in range(i, m)}
    return torch.stack([torch.stack([upper[min(i, j), max(i, j)] for j in range(m)]) for i in range(m)])


def combine(vectors: list[Params], weights: Float[Tensor, " m"]) -> dict[str, Tensor]:
    r""":math:`\sum_i w_i g_i`; the weights stay on the device."""
    names = list(vectors[0])
    total = torch._foreach_mul(list(vectors[0].values()), weights[0])
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        torch._foreach_add_(total, torch._foreach_mul(list(vector.values()), weight))
    return dict(zip(names, total, strict=True))


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a piece of the tensor (FSDP2)."""
    if type(tensor) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor  # takes half a second, and only sharded models need it

    return isinstance(tensor, DTensor)


def sum_pieces(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Sums a scalar over the pieces of sharded weights; a plain tensor on every process."""
    return value.full_tensor() if is_sharded(value) else value  # pyright: ignore[reportAttributeAccessIssue]
