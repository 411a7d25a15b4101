"""Cases that run in two processes and in one: importable, as spawned processes need it.

Each case returns named tensors, or the text of the error that it ended with.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fork_server import run_group
from smooth import MODES, WEIGHT, flat, net, problem
from unweave.data.in_memory import Resident
from unweave.descent.batches import step_batches
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.importance import fisher, saliency, snip, top
from unweave.descent.lookahead import lagged, nested
from unweave.descent.objective import bounded, l1, mislabel, nll
from unweave.descent.units import top_eigenvalue
from unweave.errors import Failed
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.weights import processes
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

Found = dict[str, Tensor] | str


def outcome(of: Problem, how: Descent, *phases: Phase) -> Found:
    """The weights, buffers and curves after a descent."""
    try:
        descend(of, how, *phases)
    except (ValueError, Failed) as error:
        return str(error)
    curves = {name: torch.tensor(curve, dtype=torch.float64) for name, curve in of.curves.items()}
    return {"weights": flat(of.params)} | {k: v.double() for k, v in of.model.named_buffers()} | curves


UNEVEN = {
    "uneven": Descent(lr=0.05, steps=5, batch=9, forget_batch=5, weight_decay=0.01, max_norm=1.0),
    "one forget example": Descent(lr=0.05, steps=5, batch=7, forget_batch=1),
    "micro-batches": Descent(lr=0.05, steps=5, batch=11, forget_batch=5, micro_batch=2, optimizer="adam"),
}


def followed(mode: str, how: Descent) -> Found:
    terms = MODES[mode](nll("retain"), WEIGHT * mislabel(), 0.1)
    return outcome(problem(), how, Phase(terms, rule="pcgrad"))


def penalised() -> Found:
    objective = nll("retain") + WEIGHT * bounded() + l1(lambda progress: 0.01 * (1 - progress))
    return outcome(problem(), UNEVEN["uneven"], Phase([objective], feed="longest"))


def masked() -> Found:
    of = problem()
    mask = top(saliency(of, nll("forget"), batch=5), 0.5)
    return outcome(of, UNEVEN["uneven"], Phase(nested(nll("retain"), WEIGHT * bounded(), 0.1), where=mask))


def importances() -> Found:
    """Over batches of which some leave the second process nothing."""
    of, one = problem(), nll("forget")
    scores_by_name = {
        "snip": snip(of, one, batch=11, batches=None),
        "fisher": fisher(of, one, batch=1),
        "saliency": saliency(of, one, batch=5),
    }
    return {name: flat(scores) for name, scores in scores_by_name.items()} | {
        "cost": torch.tensor(of.cost.gradients)
    }


def curvature() -> Found:
    of, retain = problem(), nll("retain")
    batches, sizes = next(step_batches(of, Phase([retain]), Descent(steps=1, batch=9)))
    at = Step(of.params, Runtime(of.model, of.task, processes=of.processes), batches, sizes)
    return {"top": top_eigenvalue(of, retain, at)}


def images(n: int, seed: int) -> Resident:
    pixels = torch.randint(
        0, 256, (n, 1, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return Resident(pixels, torch.arange(n) % 4, mean=(0.5,), std=(0.25,), crop=1, flip=True)


class Double(nn.Module):
    """Takes the float32 that augmentation makes of images to float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def augmented() -> Found:
    torch.manual_seed(0)
    model = nn.Sequential(Double(), nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4)).double()
    split = Split(images(40, 1), range(0, 40, 4), images(12, 2))
    of = Problem(Classifier(4), model, split, torch.Generator().manual_seed(0))
    return outcome(of, UNEVEN["uneven"], Phase([nll("retain"), WEIGHT * mislabel()]))


def with_norm(norm: str) -> Found:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)).double()
    model[1].running_mean.uniform_(-1, 1)
    return outcome(
        problem(model), Descent(lr=0.05, steps=3, batch=9, norm=norm), Phase([nll("retain"), bounded()])
    )


def without_statistics() -> Found:
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4)
    ).double()
    return outcome(problem(model), Descent(lr=0.05, steps=3, norm="frozen"), Phase([nll("retain")]))


def one_bad_example() -> Found:
    """NaN in the share of one process; the other must not wait for ever."""
    of = problem()
    of.split.train.inputs[of.split.retain[3]] = float("nan")
    return outcome(of, Descent(lr=0.05, steps=60, batch=36), Phase([nll("retain")]))


def messages() -> Found:
    """How many times processes speak for three steps of nested and of lagged, in one bucket and in four."""
    counts: list[int] = []
    for terms, size in ((nested, 25 * 2**20), (lagged, 25 * 2**20), (nested, 1)):
        calls = 0

        def counting(tensor: Tensor, *rest: object, speak: Callable[..., object] = dist.all_reduce) -> object:
            nonlocal calls
            calls += 1
            return speak(tensor, *rest)

        bucket_size, processes.BUCKET = processes.BUCKET, size
        dist.all_reduce, speak = counting, dist.all_reduce
        try:
            descend(
                problem(),
                Descent(lr=0.05, steps=3, batch=9, forget_batch=5),
                Phase(terms(nll("retain"), bounded(), 0.1)),
            )
        finally:
            dist.all_reduce, processes.BUCKET = speak, bucket_size
        counts.append(calls)
    return {"calls": torch.tensor(counts)}


def small_buckets() -> Found:
    bucket_size, processes.BUCKET = processes.BUCKET, 100
    try:
        return followed("nested", UNEVEN["uneven"])
    finally:
        processes.BUCKET = bucket_size


def sharded(rule: str = "total", mode: str = "nested") -> Found:
    """The same descent over FSDP2's sharded weights, gathered at the end."""
    model = net()
    if dist.is_initialized():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (model[0], model[2], model):
            fully_shard(layer, mesh=mesh)
    of = problem(model)
    terms = MODES[mode](nll("retain"), WEIGHT * bounded(), 0.1)
    try:
        descend(of, Descent(lr=0.05, steps=4, batch=9, forget_batch=5, max_norm=1.0), Phase(terms, rule=rule))
    except ValueError as error:
        return str(error)
    weights = [p.full_tensor() if dist.is_initialized() else p for p in of.params.values()]
    return {"weights": torch.cat([p.detach().flatten() for p in weights])}


CASES: dict[str, Callable[[], Found]] = {
    **{
        f"{mode}, {name}": lambda mode=mode, how=how: followed(mode, how)
        for mode in MODES
        for name, how in UNEVEN.items()
    },
    "penalised": penalised,
    "masked": masked,
    "importances": importances,
    "curvature": curvature,
    "augmented": augmented,
    "frozen statistics": lambda: with_norm("frozen"),
    "small buckets": small_buckets,
    "sharded": sharded,
    "sharded, projected": lambda: sharded("project"),
    "sharded, lagged": lambda: sharded(mode="lagged"),
}
"""Two processes must find what one finds."""

APART: dict[str, Callable[[], Found]] = {
    "batch statistics": lambda: with_norm("train"),
    "no statistics": without_statistics,
    "one bad example": one_bad_example,
    "messages": messages,
    "sharded, exact": lambda: sharded(mode="exact"),
}
"""What is true of several processes only."""


def work(rank: int, count: int, folder: str) -> None:
    """All cases in one of several processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save({name: case() for name, case in (CASES | APART).items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def together(count: int, folder: Path) -> list[dict[str, Found]]:
    """What each of several processes found."""
    run_group(work, count, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
