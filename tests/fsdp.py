"""Methods on models that `fully_shard` cuts over processes, for spawned processes to import."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

import every_family
from fork_server import run_group
from smooth import source
from trained_once import train_once
from unweave import audit, unlearn
from unweave.descent.descend import Descent
from unweave.descent.importance import top
from unweave.descent.units import Curvature
from unweave.errors import Failed
from unweave.methods import Method
from unweave.methods.bad_teacher import BadTeacher
from unweave.methods.conflict import MUNBa
from unweave.methods.ct import ConvolutionTranspose
from unweave.methods.erasediff import EraseDiff
from unweave.methods.esd import ESD
from unweave.methods.fisher_forgetting import FisherForgetting
from unweave.methods.kde import KDE
from unweave.methods.last_layers import EUk
from unweave.methods.lora import LoRA
from unweave.methods.lur import LUR
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover, Restored
from unweave.methods.rni import RNI
from unweave.methods.sa import SelectiveAmnesia
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.scrub import SCRUB
from unweave.methods.simple import FineTune, FromScratch, L1Sparse, NegGradPlus
from unweave.methods.starts import ShrinkPerturb
from unweave.methods.unsir import UNSIR
from unweave.split import Split
from unweave.targets import Match, Mislabel
from unweave.tasks import Task, call
from unweave.tasks.classifier import Classifier
from unweave.weights.params import add, clip, combine, dot, gramian, multiply, norm
from unweave.weights.sharded import cut, names_where
from unweave.weights.sharded_files import load_sharded
from unweave.weights.sharded_model import gather, whole_state

Found = dict[str, Tensor] | str
"""The weights and buffers after unlearning, or the error."""

CLASSES = 4


class Block(nn.Module):
    """Attention and two layers, with LayerNorm before each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        # a bias of keys has no gradient, and Adam would follow its rounding errors
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.mT, -1) @ v)
        return x + self.down(torch.tanh(self.up(self.between(x))))


class Transformer(nn.Module):
    """A classifier of points, each of whose six numbers is a token; its root holds weights of its own."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(1, width), nn.Parameter(torch.randn(6, width))
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x[..., None]) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def mlp() -> nn.Module:
    """Layers whose rows two processes can't share evenly."""
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, CLASSES))


BUILD: Mapping[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "class": mlp,
    "transformer": Transformer,
    "batchnorm": every_family.ConvNet,
    "unet": lambda: every_family.unet(),  # without diffusers there is none
}


@cache
def setting(kind: str, dtype: torch.dtype) -> tuple[Task, Split]:
    if kind in ("unet", "batchnorm"):
        return every_family.task(kind), every_family.split(kind, dtype)
    if kind == "class":
        train = source(45, 1, dtype)
        forget_ids = (train.labels == 3).nonzero()[:, 0].tolist()
        return Classifier(CLASSES), Split(train, forget_ids, source(24, 2, dtype))
    return Classifier(CLASSES), Split(source(45, 1, dtype), range(0, 45, 4), source(24, 2, dtype))


def build(kind: str, dtype: torch.dtype) -> nn.Module:
    """A whole model with fresh weights."""
    return BUILD[kind]().to(dtype)


def model(kind: str, dtype: torch.dtype) -> nn.Module:
    """A model that has learnt something, the same on every process."""
    return copy.deepcopy(learnt(kind, dtype))


@cache
def learnt(kind: str, dtype: torch.dtype) -> nn.Module:
    """A model that was trained for a moment."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        fresh_model = build(kind, dtype)
    return train_once(f"sharded, {kind}, {dtype}", fresh_model, lambda each: train(each, kind, dtype)).eval()


def train(net: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Trains a model in place for a moment."""
    task, split = setting(kind, dtype)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        (raw,) = split.train.stream([torch.arange(len(split.train))])
        batch = task.draw(raw, torch.Generator().manual_seed(4))
        optimizer.zero_grad()
        task.loss(call(net, batch.inputs), batch.target).mean().backward()
        optimizer.step()
    optimizer.zero_grad()


BLOCKS = ("0", "2", "conv2", "downsample", "down_blocks.0", "mid_block", "up_blocks.0")


def shard(net: nn.Module) -> nn.Module:
    """The model cut over the processes, block by block, as users do."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, module in net.named_modules():
        if isinstance(module, Block) or name in BLOCKS:
            fully_shard(module, mesh=mesh)
    return fully_shard(net, mesh=mesh)


HOW = Descent(lr=0.05, steps=2, batch=11, forget_batch=5, max_norm=1.0, micro_batch=4)
LONGER = replace(HOW, lr=0.1, steps=6)
SHORT = replace(HOW, optimizer="adam", lr=0.01, ema=0.5)
METHODS: Mapping[str, Method] = {
    "nested": LUR(how=HOW),
    "lagged": LUR(mode="lagged", alpha=0.01, retain="both", rule="pcgrad", how=replace(HOW, steps=3)),
    "joint": LUR(mode="joint", weight=0.3, how=SHORT),
    "salun": SalUn(how=replace(HOW, weight_decay=0.01)),
    "scissorhands": Scissorhands(trim=0.3, forget=Mislabel(), how=HOW),
    "neggrad+": NegGradPlus(how=HOW),
    "munba": MUNBa(how=HOW),
    "scrub": SCRUB(how=replace(HOW, steps=4)),
    "finetune": FineTune(how=HOW),
    "l1": L1Sparse(penalty=0.01, how=HOW),
    "pipeline": Pipeline(
        LUR(how=HOW), Recover(until=Restored(near=0.5), how=Descent(lr=0.05, steps=4, batch=13, stop_every=2))
    ),
}
ON_MLP: Mapping[str, Method] = {
    "rni": RNI(noise=0.1, rounds=2, how=replace(HOW, steps=4)),
    "kde": KDE(temperature=1.0, taught=LONGER, how=LONGER),
    "bad-teacher": BadTeacher(how=replace(SHORT, batch=13)),
    "eu-k": EUk(k=2, how=HOW),
}
UNET_ALONE: Mapping[str, Method] = {
    "sa": SelectiveAmnesia(replay="real", fisher_images=5, how=SHORT),
    "esd": ESD(sampler=replace(ESD().sampler, steps=2), how=replace(SHORT, batch=5)),
    "esd, one image": ESD(
        images="original", sampler=replace(ESD().sampler, steps=2), how=replace(SHORT, batch=1)
    ),
    "esd, images of the data": ESD(images="data", how=replace(SHORT, forget_batch=3)),
    "erasediff": EraseDiff(passes=0, how=SHORT),
}
"""Methods for diffusion alone; two processes share some batches unevenly, or one of them has no row."""

WITH_LORA = LoRA(METHODS["nested"], rank=3)
ON_LAYERS = ("nested", "salun")
"""For quick cases: a method on all weights, and one on a mask."""
GENTLE = Pipeline(
    LUR(weight=0.1, how=replace(HOW, lr=0.01)),
    Recover(until=Restored(near=0.5), how=Descent(lr=0.01, steps=4, batch=13, stop_every=2)),
)
"""The transformer collapses under the pipeline of the others."""
SLOW_ON_LAYERS = tuple(
    (kind, name)
    for kind in ("transformer", "unet")
    for name in ("lagged", "joint", "scissorhands", "neggrad+", "munba", "scrub", "finetune", "pipeline")
    if (kind, name) != ("unet", "scrub")  # it is for classifiers
)
ONE_EXAMPLE = LUR(how=replace(HOW, forget_batch=1, micro_batch=None))

CASES: dict[str, tuple[str, torch.dtype, Method]] = {
    **{f"mlp, {name}": ("mlp", torch.float64, method) for name, method in METHODS.items()},
    **{f"transformer, {name}": ("transformer", torch.float64, METHODS[name]) for name in ON_LAYERS},
    **{f"{kind}, {name}": (kind, torch.float64, METHODS[name]) for kind, name in SLOW_ON_LAYERS},
    "transformer, pipeline": ("transformer", torch.float64, GENTLE),
    **{f"mlp, {name}": ("mlp", torch.float64, method) for name, method in ON_MLP.items()},
    "class, unsir": ("class", torch.float64, UNSIR(images=5, noise_steps=4, repeats=3, impair=HOW, how=HOW)),
    "batchnorm, ct": ("batchnorm", torch.float64, ConvolutionTranspose(how=replace(HOW, norm="frozen"))),
    **{f"unet, {name}": ("unet", torch.float64, METHODS[name]) for name in ON_LAYERS},
    **{f"unet, {name}": ("unet", torch.float64, method) for name, method in UNET_ALONE.items()},
    "transformer, from scratch": ("transformer", torch.float64, FromScratch(how=HOW)),
    "transformer, shrink-perturb": (
        "transformer",
        torch.float64,
        Pipeline(ShrinkPerturb(), FineTune(how=HOW)),
    ),
    **{
        f"{kind}, {name} with LoRA": (kind, torch.float64, LoRA(METHODS[name], rank=3))
        for kind, name in (("mlp", "lagged"), ("mlp", "pipeline"), ("transformer", "nested"))
    },
    "mlp, one forget example": ("mlp", torch.float64, ONE_EXAMPLE),
    **{
        f"transformer, {name}, bf16": ("transformer", torch.float32, method)
        for name, method in (
            ("nested", LUR(how=replace(HOW, precision="bf16"))),
            ("salun", SalUn(how=replace(HOW, precision="bf16"))),
        )
    },
    **{
        f"{kind}, {name}, float32": (kind, torch.float32, METHODS[name])
        for kind, name in (("mlp", "salun"), ("transformer", "nested"))
    },
}


SLOW = (
    *("mlp, neggrad+", "mlp, finetune", *(f"{kind}, {name}" for kind, name in SLOW_ON_LAYERS)),
    *("mlp, scrub", "mlp, rni", "mlp, kde", "mlp, eu-k", "mlp, pipeline with LoRA"),
    *("transformer, shrink-perturb", "transformer, salun, bf16"),
    *("unet, salun", "unet, esd, one image", "unet, esd, images of the data"),
)
"""Other methods over what quick cases shard too: masks, fresh weights, two phases, uneven batches."""
QUICK = tuple(name for name in CASES if name not in SLOW)


def unlearn_case(kind: str, dtype: torch.dtype, method: Method, *, sharded: bool) -> Found:
    """What unlearning finds; the weights on the first process alone if they are sharded."""
    task, split = setting(kind, dtype)
    original = model(kind, dtype)
    try:
        caller_model = shard(original) if sharded else original
        result = unlearn(caller_model, split, method, task=task, build=lambda: build(kind, dtype))
    except (ValueError, Failed) as error:
        return str(error)
    return dict(whole_state(result.model))


def root_whole(*, sharded: bool) -> dict[str, Tensor]:
    """Unlearning where the blocks alone are sharded, and their passes are checkpointed."""
    task, split = setting("transformer", torch.float64)
    of = model("transformer", torch.float64)
    of.blocks = nn.ModuleList(map(checkpoint_wrapper, of.blocks))
    if sharded:
        for block in of.blocks:
            fully_shard(block)
    result = unlearn(of, split, METHODS["nested"], task=task)
    return {name: gather(each) for name, each in result.model.state_dict().items()}


def vectors(*, sharded: bool) -> dict[str, Tensor]:
    """Every operation on vectors over weights, some of them equal; whole on every process."""
    of = shard(mlp().double()) if sharded else mlp().double()
    weights = {name: p.detach() for name, p in of.named_parameters()}
    draw = torch.Generator().manual_seed(8)
    a, b = (
        {name: cut(torch.randint(-4, 5, p.shape, generator=draw).double(), p) for name, p in weights.items()}
        for _ in range(2)
    )
    shorter = add(a, b, scale=0.5)
    clip(shorter, 2.0)
    nonzero = names_where({**a, "0.bias": 0 * a["0.bias"]}, Tensor.bool)
    return {
        "dot": dot(a, b),
        "norm": norm(a),
        "gramian": gramian([a, b]),
        "count of nonzero": torch.tensor(len(nonzero)),
        **{f"add {name}": gather(each) for name, each in add(a, b, scale=2.0).items()},
        **{f"product {name}": gather(each) for name, each in multiply(a, b).items()},
        **{
            f"combined {name}": gather(each)
            for name, each in combine([a, b], torch.tensor([2.0, 3.0])).items()
        },
        **{f"clipped {name}": gather(each) for name, each in shorter.items()},
        **{
            f"top {fraction} {name}": gather(each)
            for fraction in (0.0, 0.1, 0.37, 0.5, 0.93, 1.0)
            for name, each in top(a, fraction).items()
        },
    }


def saved(folder: Path, method: Method) -> None:
    """Saves a result."""
    task, split = setting("transformer", torch.float64)
    of = shard(model("transformer", torch.float64))
    unlearn(of, split, method, task=task).save(folder)


def saved_in_pieces(folder: Path, method: Method) -> dict[str, Tensor]:
    """Saves a result, each process its rows, and reads it into another sharded model."""
    task, split = setting("transformer", torch.float64)
    of = shard(model("transformer", torch.float64))
    unlearn(of, split, method, task=task).save(folder, sharded=True)
    other = shard(build("transformer", torch.float64))
    load_sharded(other, folder)
    return {name: gather(each) for name, each in other.state_dict().items()}


def before_and_after(method: Method) -> dict[str, Tensor]:
    """What the original answers before the edit, and what the original of the result answers after it."""
    task, split = setting("transformer", torch.float64)
    of = shard(model("transformer", torch.float64))
    (raw,) = split.train.stream([split.retain])
    with torch.no_grad():
        before = call(of, raw.inputs)
    result = unlearn(of, split, method, task=task)
    evidence = {
        "edited": audit(result).evidence,
        "original": audit(replace(result, model=result.original)).evidence,
    }
    with torch.no_grad():
        return {
            **{f"{name} in audit": torch.as_tensor(each.logits["retain"]) for name, each in evidence.items()},
            "before": before,
            "original": call(result.original, raw.inputs),
            "edited": call(of, raw.inputs),
            "same object": torch.tensor(result.model is of),
        }


def refusals() -> dict[str, str]:
    """The errors of what can't be done with a sharded model."""
    task, split = setting("mlp", torch.float64)

    def error(call: Callable[[], object]) -> str:
        try:
            call()
        except ValueError as raised:
            return str(raised)
        return ""

    def tried(method: Method) -> Callable[[], object]:
        return lambda: unlearn(shard(model("mlp", torch.float64)), split, method, task=task)

    def tried_on(kind: str, method: Method) -> Callable[[], object]:
        scorer, data = setting(kind, torch.float64)
        return lambda: unlearn(shard(model(kind, torch.float64)), data, method, task=scorer)

    by_columns = nn.Sequential(nn.Linear(6, CLASSES))
    fully_shard(by_columns, shard_placement_fn=lambda p: Shard(p.ndim - 1))
    parallel_model = nn.parallel.DistributedDataParallel(model("mlp", torch.float64))
    return {
        "exact": error(tried(LUR(mode="exact", alpha=0.05, how=HOW))),
        "curvature": error(tried(LUR(alpha=Curvature(), how=HOW))),
        "fisher": error(tried(FisherForgetting())),
        "proxy": error(tried(LUR(forget=Match(), how=HOW))),
        "fresh": error(tried(FromScratch(how=HOW))),
        "msg": error(tried(MaskedSmallGradients(how=HOW))),
        "statistics": error(tried_on("batchnorm", ConvolutionTranspose(how=HOW))),
        "search": error(tried_on("unet", EraseDiff(how=SHORT))),
        "replay": error(tried_on("unet", SelectiveAmnesia(how=SHORT))),
        "compiled": error(tried(FineTune(how=replace(HOW, compile=True)))),
        "adafactor": error(tried(FineTune(how=replace(HOW, optimizer="adafactor")))),
        "columns": error(lambda: unlearn(by_columns, split, FineTune(how=HOW), task=task)),
        "wrapped": error(lambda: unlearn(parallel_model, split, FineTune(how=HOW), task=task)),
    }


def fail_late() -> dict[str, dict[str, Tensor]]:
    """The weights before and after a run whose second stage is refused."""
    task, split = setting("mlp", torch.float64)
    of = shard(model("mlp", torch.float64))
    states = {"before": {name: gather(each).clone() for name, each in of.state_dict().items()}}
    try:
        unlearn(of, split, Pipeline(FineTune(how=HOW), FisherForgetting()), task=task)
    except ValueError:
        states["after"] = {name: gather(each).clone() for name, each in of.state_dict().items()}
    return states


def run_cases(names: Sequence[str]) -> dict[str, Any]:
    """What the cases of these names find."""
    return {name: unlearn_case(*CASES[name], sharded=True) for name in names}


def run_quick(folder: Path) -> dict[str, Any]:
    """What the quick cases find, and all else that a sharded model does."""
    results = run_cases(QUICK) | {
        "root whole": root_whole(sharded=True),
        "vectors": vectors(sharded=True),
        "answers": before_and_after(METHODS["nested"]),
        "answers with LoRA": before_and_after(WITH_LORA),
        "refusals": refusals(),
        "failed late": fail_late(),
    }
    saved(folder / "saved", METHODS["nested"])
    results["read in pieces"] = saved_in_pieces(folder / "pieces", METHODS["nested"])
    saved(folder / "saved with LoRA", WITH_LORA)
    return results


def work(rank: int, count: int, folder: str, slow: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save(run_cases(SLOW) if slow else run_quick(Path(folder)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def together(count: int, folder: Path, *, slow: bool = False) -> list[dict[str, Any]]:
    """What each of several processes finds."""
    run_group(work, count, str(folder), slow)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
