"""Second derivatives: products with the Hessian of an objective, by double backward."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unweave.descent.objective import Objective
from unweave.errors import UnfitProcesses
from unweave.weights.params import Params
from unweave.weights.sharded import is_sharded
from unweave.weights.step import Step

OF_DESCENT = "by mode 'exact' and by the curvature that mode 'lagged' and alpha='curvature' measure"
LESS = "use mode 'nested' or 'first-order'"


@contextmanager
def allow_second_derivatives(need: str = OF_DESCENT, advice: str = LESS) -> Iterator[None]:
    """Uses attention with a second derivative for the body; raises clearly if another operation has none.

    Args:
        need: What needs second derivatives, as "by ...".
        advice: What to do without them.

    Raises:
        ValueError: If an operation of the model has no second derivative.
    """
    messages = (
        "derivative for",
        "double backward",
        "higher-order",
        "differentiate twice",
        "not compatible with .grad()",
    )
    try:
        with sdpa_kernel(SDPBackend.MATH):  # flash and memory-efficient attention have no second derivative
            yield
    except RuntimeError as error:
        if not any(text in str(error) for text in messages):
            raise
        raise ValueError(
            f"second derivatives are needed {need}, and this model lacks them ({error}): {advice}"
        ) from error


def differentiate_twice(
    step: Step, objective: Objective, *, keep: bool = False
) -> Callable[[Params], Params]:
    """Returns the product with the Hessian of an objective; caches its gradient in the step on the way.

    Args:
        step: The step at which the gradient is taken.
        objective: The loss.
        keep: Whether to keep the graph for more than one product.

    Raises:
        ValueError: If the model is no function of its weights and inputs (active dropout), its passes are
            compiled, or its weights are sharded.
    """
    refuse_no_second(step, objective)
    weights = list(step.params.values())
    losses = list(objective.losses(step))
    step.drop_outputs()
    # no loss if this process has no example of an uneven batch
    graph = (
        torch.autograd.grad(losses, weights, create_graph=True, allow_unused=True)
        if losses
        else [None] * len(weights)
    )
    refuse_error_nodes(graph)
    local = dict(zip(step.params, graph, strict=True))
    step.deposit(
        objective,
        step.finish_gradient({name: None if g is None else g.detach() for name, g in local.items()}),
    )
    differentiable = {name: g for name, g in local.items() if g is not None and g.requires_grad}

    def times(vector: Params) -> Params:
        outer = [vector[name] for name in differentiable]
        product = torch.autograd.grad(
            list(differentiable.values()), weights, outer, retain_graph=keep, allow_unused=True
        )
        return step.finish_gradient(dict(zip(step.params, product, strict=True)), check=False)

    return times


def refuse_error_nodes(gradients: Iterable[Tensor | None]) -> None:
    """Raises if an operation of the model is marked to be differentiated once.

    `torch.autograd.grad` visits only nodes that lead to its inputs. It skips the error node of such an
    operation, and returns a wrong second derivative.

    Args:
        gradients: First derivatives with their graph; None where a weight takes no part.

    Raises:
        RuntimeError: As torch raises where it does visit the node.
    """
    nodes, visited_nodes = [g.grad_fn for g in gradients if g is not None], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in visited_nodes:
            continue
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("trying to differentiate twice a function marked with @once_differentiable")
        visited_nodes.add(node)
        nodes += [parent for parent, _ in node.next_functions]


def refuse_no_second(step: Step, objective: Objective) -> None:
    """Raises if a step can't be differentiated twice, as far as that is known in advance."""
    if any(map(is_sharded, step.params.values())):
        raise UnfitProcesses(
            "second derivatives (mode 'exact', measured curvature) need whole weights, found sharded ones: "
            "use mode 'nested' or 'first-order'"
        )
    if step.runtime.compile:
        raise ValueError(
            "second derivatives (mode 'exact') need passes that are not compiled: "
            "set compile = false, or use mode 'nested' or 'first-order'"
        )
    if step.index == 0:
        refuse_noise(step, objective)


def refuse_noise(step: Step, objective: Objective) -> None:
    """Raises if two passes over the same batches differ."""
    counts = step.runtime.cost.gradients, step.runtime.cost.examples, len(step.runtime.losses)
    with torch.no_grad():
        first, second = (
            [loss.clone() for loss in step.recompute_losses(objective.losses(step))] for _ in range(2)
        )
    step.runtime.cost.gradients, step.runtime.cost.examples = counts[:2]
    del step.runtime.losses[counts[2] :]
    if not all(
        torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(first, second, strict=True)
    ):
        raise ValueError(
            "second derivatives (mode 'exact', measured curvature) need a model that answers the same twice; "
            "found dropout or other noise: switch it off, or use mode 'nested' or 'first-order'"
        )
