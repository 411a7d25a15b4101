"""Replayed steps end where eager ones do; a step that can't be replayed is refused.

A processor has no CUDA graphs. `Tape` stands for one: it keeps the kernels of a step with the memory that
they read and write, and a replay runs those kernels alone, as a graph does.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import every_family
from for_each import for_each
from unweave.descent import cuda_graph
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.lookahead import EveryNthStep, ReusedGradient, exact, lagged, nested
from unweave.descent.objective import Objective, bounded, distill, l1, mislabel, nll
from unweave.methods.lur import LUR
from unweave.methods.salun import SalUn
from unweave.methods.simple import NegGradPlus
from unweave.problem import Problem, frozen_copy
from unweave.split import Part, Split
from unweave.targets import Level, Mislabel, Unseen
from unweave.weights.step import Term

HOW = Descent(lr=0.05, steps=12, batch=12, forget_batch=8, ema=0.5, max_norm=1.0)
WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique")
"""Kernels after which the host waits for the device: no graph holds them."""


class Tape(TorchDispatchMode):
    """The kernels of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(kernel) for name in WAITS), f"{kernel} waits for the device"
        output = kernel(*args, **(kwargs or {}))
        self.kernels.append((kernel, args, kwargs or {}, tree_leaves(output)))
        return output

    def replay(self) -> None:
        """Runs the kernels again, into the same memory."""
        with torch.no_grad():
            for kernel, args, kwargs, outs in self.kernels:
                for tensor, replayed_tensor in zip(outs, tree_leaves(kernel(*args, **kwargs)), strict=True):
                    if isinstance(tensor, Tensor) and tensor.data_ptr() != replayed_tensor.data_ptr():
                        tensor.copy_(replayed_tensor)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """The graphs that a descent records."""
    recordings: list[Tape] = []

    def capture(run: Callable[[], None]) -> Callable[[], None]:
        recordings.append(Tape())
        with recordings[-1]:
            run()
        return recordings[-1].replay

    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr(cuda_graph.RecordedStep, "on_gpu", property(lambda self: True))
    return recordings


def wrong(problem: Problem, part: Part = "forget") -> Objective:
    """A loss that draws on the host and runs a teacher."""
    return mislabel(part, teacher=frozen_copy(problem.model))


TERMS: dict[str, Callable[[Problem], list[Term]]] = {
    "joint": lambda problem: [nll("retain") + 0.3 * wrong(problem)],
    "two terms": lambda problem: [distill(frozen_copy(problem.model), "retain"), 0.3 * bounded()],
    "mixed": lambda problem: [wrong(problem, "mixed")],
    "nested": lambda problem: nested(nll("retain"), 0.3 * wrong(problem), 0.02),
    "lagged": lambda problem: lagged(nll("retain"), 0.3 * wrong(problem), 0.02),
    "exact": lambda problem: exact(nll("retain"), 0.3 * wrong(problem), 0.02),
    "unseen": lambda problem: [nll("retain") + 0.3 * Unseen()(problem, HOW)],
}
CASES = [("batchnorm", name) for name in TERMS]
CASES += [("denoiser", "lagged"), ("language", "nested"), ("layernorm", "exact")]
CASES += [("unet", "nested")] if "unet" in every_family.MODEL_KINDS else []


def state_of(problem: Problem) -> dict[str, Any]:
    """What a descent leaves behind."""
    facts = {"curves": problem.curves, "traces": problem.traces, "cost": vars(problem.cost)}
    return {"weights": dict(problem.model.state_dict()), **facts}


@for_each(("kind", "name"), CASES)
def test_replays_end_where_eager_steps_do(kind: str, name: str, tapes: list[Tape]) -> None:
    tapes.clear()
    problems, passes = [every_family.problem(kind) for _ in range(2)], ([], [])
    for each, compile, calls in zip(problems, (False, "step"), passes, strict=True):
        each.model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        descend(each, replace(HOW, compile=compile), Phase(TERMS[name](each)))
    torch.testing.assert_close(*map(state_of, problems), rtol=0, atol=0, equal_nan=True)
    assert tapes
    assert len(passes[1]) < len(passes[0]), "a replay runs no Python"


def test_without_a_gpu_the_same_steps_run_over_static_buffers() -> None:
    problems = [every_family.problem("batchnorm") for _ in range(2)]
    for each, compile in zip(problems, (False, "step"), strict=True):
        descend(each, replace(HOW, compile=compile), Phase(TERMS["lagged"](each)))
    torch.testing.assert_close(*map(state_of, problems), rtol=0, atol=0, equal_nan=True)


@pytest.mark.gpu
@for_each("name", TERMS)
def test_a_graph_ends_where_eager_steps_do(name: str) -> None:
    data = every_family.split("batchnorm")
    split = Split(data.train.to("cuda"), data.forget, data.held_out.to("cuda"))
    problems = [replace(every_family.problem("batchnorm"), split=split) for _ in range(2)]
    for each, compile in zip(problems, (False, "step"), strict=True):
        each.model.cuda()
        descend(each, replace(HOW, steps=120, compile=compile), Phase(TERMS[name](each)))
    torch.testing.assert_close(*map(state_of, problems), rtol=1e-3, atol=1e-4, equal_nan=True)


def test_each_shape_has_a_graph(tapes: list[Tape]) -> None:
    how = replace(HOW, batch=20, steps=None, epochs=6)
    problems = [every_family.problem("layernorm") for _ in range(2)]
    for each, compile in zip(problems, (False, "step"), strict=True):
        descend(each, replace(how, compile=compile), Phase([nll("retain")], feed="longest"))
    torch.testing.assert_close(*map(state_of, problems), rtol=0, atol=0, equal_nan=True)
    assert len(tapes) == 2, "47 retain examples are batches of 20, 20 and 7"


RETAIN = nll("retain")
REFUSED = {
    "the rule 'pcgrad'": lambda: Phase([RETAIN, bounded()], "pcgrad"),
    "a term of the type EveryNthStep": lambda: Phase([EveryNthStep(RETAIN, 2)]),
    "a term of the type ReusedGradient": lambda: Phase(nested(RETAIN, ReusedGradient(bounded(), 2), 0.1)),
    "the loss 'l1'": lambda: Phase([RETAIN + l1(lambda progress: 1 - progress)]),
    "the loss 'level\\(forget\\)'": lambda: Phase([RETAIN + Level()(every_family.problem("layernorm"), HOW)]),
    "what runs before every step": lambda: Phase([RETAIN], watch=lambda problem, index: None),
}


@for_each("method", [LUR(), NegGradPlus(), SalUn(forget=Mislabel())])
def test_a_method_replays_its_steps(method: Any, tapes: list[Tape]) -> None:
    tapes.clear()
    how = replace(HOW, optimizer="sgd")
    problems = [every_family.problem("layernorm") for _ in range(2)]
    for each, compile in zip(problems, (False, "step"), strict=True):
        replace(method, how=replace(how, compile=compile))(each)
    torch.testing.assert_close(*map(state_of, problems), rtol=0, atol=0, equal_nan=True)
    assert tapes


def test_further_shapes_run_eagerly(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph, "MOST_SHAPES", 1)
    problems = [every_family.problem("layernorm") for _ in range(2)]
    for each, compile in zip(problems, (False, "step"), strict=True):
        descend(each, replace(HOW, compile=compile), Phase([nll("retain")]))
    torch.testing.assert_close(*map(state_of, problems), rtol=0, atol=0, equal_nan=True)
    assert len(tapes) == 1


@for_each("reason", REFUSED)
def test_a_step_that_changes_is_refused_before_it_runs(reason: str) -> None:
    problem = every_family.problem("layernorm")
    with pytest.raises(ValueError, match=f"{reason}.* changes it: set compile = false"):
        descend(problem, replace(HOW, compile="step"), REFUSED[reason]())
    assert not problem.cost.gradients


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout changes it"):
        descend(
            every_family.problem("layernorm"), replace(HOW, compile="step", dropout="same"), Phase([RETAIN])
        )
