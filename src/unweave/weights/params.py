"""Weights and gradients as one vector: a dict from the name of a weight to a tensor.

Every operation handles all tensors at once (`torch._foreach_*`), so a model of a hundred small tensors needs
a few kernel launches instead of hundreds.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unweave.weights.sharded import WHOLE, add_up, as_sharded, is_sharded, pieces

Params = Mapping[str, Tensor]
"""One tensor per trainable weight, in the order of `model.named_parameters()`."""


def rebuild(like: Params, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """A vector of these tensors, or of these pieces of sharded ones, named as `like`."""
    vector = dict(zip(like, tensors, strict=True))
    if WHOLE.issuperset(map(type, like.values())):
        return vector
    return {name: as_sharded(each, like[name]) for name, each in vector.items()}


def add(a: Params, b: Params, *, scale: float = 1.0) -> dict[str, Tensor]:
    """`a + scale * b`, as a new vector."""
    return rebuild(a, torch._foreach_add(pieces(a.values()), pieces(b.values()), alpha=scale))


def multiply(a: Params, b: Params) -> dict[str, Tensor]:
    """The elementwise product, name by name, as a new vector."""
    return rebuild(a, torch._foreach_mul(pieces(a.values()), pieces(b[name] for name in a)))


def scale(a: Params, by: float | Tensor) -> dict[str, Tensor]:
    """`by * a`, as a new vector."""
    return rebuild(a, torch._foreach_mul(pieces(a.values()), by))


def dot(a: Params, b: Params) -> Float[Tensor, ""]:
    """The inner product over all weights; stays on the device."""
    pairs = zip(pieces(a.values()), pieces(b.values()), strict=True)
    return add_up(a.values(), [torch.dot(u.flatten(), v.flatten()) for u, v in pairs])


def norm(a: Params) -> Float[Tensor, ""]:
    """The Euclidean norm over all weights; stays on the device."""
    norms = torch._foreach_norm(pieces(a.values()))
    if not any(map(is_sharded, a.values())):
        return torch.linalg.vector_norm(torch.stack(norms))
    return add_up(a.values(), torch._foreach_mul(norms, norms)).sqrt()


def clip(a: Params, largest: float) -> None:
    """Scales a vector in place so that its norm is at most `largest`, as `nn.utils.clip_grad_norm_` does."""
    factor = (largest / (norm(a) + 1e-6)).clamp(max=1)
    torch._foreach_mul_(pieces(a.values()), factor)


def gramian(vectors: list[Params]) -> Float[Tensor, "m m"]:
    r"""All inner products of the vectors, :math:`G_{ij} = \langle g_i, g_j \rangle`."""
    m = len(vectors)
    upper = {(i, j): dot(vectors[i], vectors[j]) for i in range(m) for j in range(i, m)}
    return torch.stack([torch.stack([upper[min(i, j), max(i, j)] for j in range(m)]) for i in range(m)])


def combine(vectors: list[Params], weights: Float[Tensor, " m"]) -> dict[str, Tensor]:
    r""":math:`\sum_i w_i g_i`; the weights stay on the device."""
    total = torch._foreach_mul(pieces(vectors[0].values()), weights[0])
    for vector, weight in zip(vectors[1:], weights[1:], strict=True):
        torch._foreach_add_(total, torch._foreach_mul(pieces(vector.values()), weight))
    return rebuild(vectors[0], total)
