"""Toy problems of the families of models, trained for a moment so that there is something to forget.

Each is a few thousand weights and takes milliseconds a step. The task of the language model lives here only:
it shows what a family has to bring.
"""

import copy
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trained_once import train_once
from unweave.data import Raw, Source
from unweave.data.keyed_draws import draw_uniform
from unweave.methods import Method
from unweave.methods.unsir import UNSIR
from unweave.problem import Problem
from unweave.split import Part, Split
from unweave.tasks import Batch, Predict, Task, call
from unweave.tasks.classifier import Classifier
from unweave.tasks.diffusion import Diffusion

CLASSES = 4


@dataclass(eq=False)
class Toy:
    """A source in memory; floating inputs are jittered where augmentation is asked for."""

    inputs: tuple[Tensor, ...]
    labels: Tensor
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def stream(self, order: Iterable[Tensor], *, generator: torch.Generator | None = None) -> Iterator[Raw]:
        for ids in order:
            inputs = tuple(x[ids] for x in self.inputs)
            if generator is not None and inputs[0].is_floating_point():
                shift = 0.1 * draw_uniform(ids, generator)[:, 0].view(-1, *[1] * (inputs[0].ndim - 1))
                inputs = (inputs[0] + shift.to(inputs[0].dtype), *inputs[1:])
            yield Raw(ids, inputs, self.labels[ids])

    def digest(self) -> str:
        return hashlib.sha256(b"".join(x.numpy().tobytes() for x in (*self.inputs, self.labels))).hexdigest()

    def to(self, device: torch.device | str) -> "Toy":
        return Toy(tuple(x.to(device) for x in self.inputs), self.labels, self.names)


class ConvNet(nn.Module):
    """Convolutions and BatchNorm, one of which has no "bn" in its name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.downsample = nn.Sequential(nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = (self.bn2(self.conv2(x)) + self.downsample(x)).relu()
        return self.fc(x.mean((2, 3)))


def layer_norm_net() -> nn.Module:
    """A smooth classifier without batch statistics and without convolutions."""
    hidden = [nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 16), nn.LayerNorm(16), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(16, CLASSES))


class Denoiser(nn.Module):
    """A user's own denoiser: says which noise was added to an image, given the time and a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.condition, self.time = nn.Embedding(CLASSES + 1, 16), nn.Linear(1, 8)
        self.first, self.norm, self.last = (
            nn.Conv2d(2, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.Conv2d(8, 1, 3, padding=1),
        )

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        features = torch.cat([x, self.condition(condition).view_as(x)], dim=1)
        at = self.time(time[:, None].to(x.dtype) / 1000)
        return self.last(F.silu(self.norm(self.first(features) + at[:, :, None, None])))


def unet() -> nn.Module:
    """diffusers' U-Net with one level."""
    from unweave.tasks.diffusion.class_denoisers import UNet2DModel

    return UNet2DModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        norm_num_groups=4,
        attention_head_dim=4,
        num_class_embeds=CLASSES + 1,
    )


def dit() -> nn.Module:
    """diffusers' transformer with one block; it also says something of the variance."""
    from unweave.tasks.diffusion.class_denoisers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=1,
        out_channels=2,
        num_layers=1,
        sample_size=4,
        num_embeds_ada_norm=CLASSES,
    )


TOKENS, LENGTH = 12, 7


class Transformer(nn.Module):
    """One block of causal attention; the head is tied to the embedding, and the positions are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(TOKENS, 16), nn.Embedding(LENGTH, 16).requires_grad_(False)
        self.norm1, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm2, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, TOKENS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        q, k, v = (
            part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.gelu(self.up(self.norm2(x)))))


class NextToken:
    """Next-token prediction: the counterfactual is other tokens."""

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        tokens = raw.inputs[0]
        draws = draw_uniform(raw.ids, generator, tokens.shape[1] - 1)
        target = tokens[:, 1:]
        other = (target + 1 + (draws * (TOKENS - 1)).long()) % TOKENS
        return Batch(raw.ids, (tokens[:, :-1],), target, other)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.transpose(1, 2), target, reduction="none").mean(1)

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        p, q = reference.log_softmax(-1), output.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1).mean(-1)

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        return batch.other


MODELS = {"batchnorm": ConvNet, "layernorm": layer_norm_net, "denoiser": Denoiser, "language": Transformer}
if find_spec("diffusers"):
    MODELS |= {"unet": unet, "dit": dit}
MODEL_KINDS = tuple(MODELS)
DENOISERS = tuple(family for family in MODEL_KINDS if family in ("denoiser", "unet", "dit"))
STEPS = {"batchnorm": 50, "layernorm": 40, "denoiser": 240, "language": 60, "unet": 150, "dit": 300}


def task(family: str, whole_class: bool = False) -> Task:
    """How the family is run and scored; class 3 is forgotten altogether or not."""
    if family in DENOISERS:
        names = ("x", "time", "condition") if family == "denoiser" else None
        forgotten = (3,) if whole_class else ()
        return Diffusion(CLASSES, null=CLASSES, drop=0.1, forgotten=forgotten, names=names)
    return NextToken() if family == "language" else Classifier(CLASSES)


def source(family: str, n: int, seed: int, dtype: torch.dtype) -> Toy:
    """Noisy examples around one pattern per class; a fifth of the labels is wrong, to be learnt by heart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    if family == "language":
        start, noise = (
            torch.randint(TOKENS, (n, 1), generator=generator),
            torch.rand(n, LENGTH, generator=generator),
        )
        tokens = (start + (labels[:, None] + 1) * torch.arange(LENGTH)) % TOKENS
        return Toy((torch.where(noise < 0.2, (tokens + 5) % TOKENS, tokens),), labels)
    shape = {"batchnorm": (1, 6, 6), "layernorm": (6,)}.get(family, (1, 4, 4))
    patterns = torch.randn(CLASSES, *shape, generator=torch.Generator().manual_seed(100))
    inputs = patterns[labels] + 0.7 * torch.randn(n, *shape, generator=generator)
    wrong = torch.rand(n, generator=generator) < (0 if family in DENOISERS else 0.2)
    return Toy((inputs.to(dtype),), torch.where(wrong, (labels + 1) % CLASSES, labels))


@cache
def split(family: str, dtype: torch.dtype = torch.float32, whole_class: bool = False) -> Split:
    """60 training examples of which 13 are to be forgotten, or those of class 3; 40 held out."""
    train = source(family, 60, 1, dtype)
    forget = (train.labels == 3).nonzero()[:, 0] if whole_class else torch.arange(2, 60, 4)[:13]
    return Split(train, forget.tolist(), source(family, 40, 2, dtype))


def original(family: str, dtype: torch.dtype = torch.float32, whole_class: bool = False) -> nn.Module:
    """The model before unlearning, trained on forget and retain data; one for all tests, not to be edited."""
    return trained_as(dtype, family, whole_class)


@cache
def trained_as(dtype: torch.dtype, family: str, whole_class: bool) -> nn.Module:
    """The trained model in another type of numbers."""
    model = trained(family, whole_class)
    return model if dtype == torch.float32 else copy.deepcopy(model).to(dtype)


@cache
def trained(family: str, whole_class: bool) -> nn.Module:
    """The trained model of a family in float32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = MODELS[family]()
    data, name = split(family, torch.float32, whole_class).train, f"{family}, {whole_class}"
    return train_once(name, model, lambda each: train(each, task(family), data, STEPS[family]))


def train(model: nn.Module, scorer: Task, data: Source, steps: int) -> None:
    """Trains a model in place, all examples in each batch."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.02)
    generator = torch.Generator().manual_seed(4)
    for _ in range(steps):
        batch = scorer.draw(next(iter(data.stream([torch.arange(len(data))]))), generator)
        optimizer.zero_grad()
        scorer.loss(call(model, batch.inputs), batch.target).mean().backward()
        optimizer.step()
    optimizer.zero_grad()


def problem(
    family: str,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    whole_class: bool = False,
    scorer: Task | None = None,
) -> Problem:
    """A fresh request to forget a fifth of the training data, or one class."""
    model = copy.deepcopy(original(family, dtype, whole_class))
    generator = torch.Generator().manual_seed(seed)
    build = (lambda: MODELS[family]().to(dtype)) if family == "denoiser" else None
    return Problem(
        scorer or task(family, whole_class), model, split(family, dtype, whole_class), generator, build
    )


def request(method: Method, family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Problem:
    """A fresh request that the method takes: to forget one class, where it forgets nothing less."""
    return problem(family, seed=seed, dtype=dtype, whole_class=isinstance(method, UNSIR))


@torch.no_grad()
def answers(of: Problem, model: nn.Module, part: Part) -> tuple[Tensor, Tensor]:
    """The outputs and targets of a part in evaluation mode, always at the same draws."""
    data, ids = of.split.part(part)
    batch = of.task.draw(next(iter(data.stream([ids]))), torch.Generator().manual_seed(5))
    return call(copy.deepcopy(model).eval(), batch.inputs), batch.target


def loss_on(of: Problem, model: nn.Module, part: Part) -> float:
    """The mean loss of a part."""
    return float(of.task.loss(*answers(of, model, part)).mean())
