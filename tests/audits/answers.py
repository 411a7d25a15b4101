"""Evidence for tests: logits that are drawn, or the answers of many small networks trained at once."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from unweave.audits.classifier.evidence import Evidence
from unweave.data import Raw

SIZES = {"forget": 100, "retain": 300, "calibration": 120, "test": 120}
CLASSES = 4


def draw_evidence(
    seed: int, sizes: Mapping[str, int] = SIZES, *, boost: float = 2.0, classes: int = CLASSES
) -> Evidence:
    """Evidence whose true class has a logit of mean `boost`; the seed draws the logits, not the labels."""
    label_rng, rng = np.random.default_rng(0), np.random.default_rng(seed)
    labels = {part: label_rng.integers(classes, size=n) for part, n in sizes.items()}
    logits = {part: rng.normal(size=(n, classes)) for part, n in sizes.items()}
    for part, n in sizes.items():
        logits[part][np.arange(n), labels[part]] += boost
    return Evidence(
        logits={part: array.astype(np.float32) for part, array in logits.items()},
        labels=labels,
        ids={part: np.arange(n) for part, n in sizes.items()},
    )


def replace_logits(evidence: Evidence, **logits: np.ndarray) -> Evidence:
    """The same evidence with other logits in the parts that are named."""
    return replace(evidence, logits={**evidence.logits, **logits})


def take(evidence: Evidence, **rows) -> Evidence:
    """The same evidence with these rows alone, in this order, of the parts that are named."""
    logits, labels, ids = (
        {**field, **{part: field[part][row] for part, row in rows.items()}}
        for field in (evidence.logits, evidence.labels, evidence.ids)
    )
    return replace(evidence, logits=logits, labels=labels, ids=ids)


@dataclass(frozen=True)
class Examples:
    """All examples of a source, and where each part of the split is.

    Args:
        inputs: All examples, with shape [n, feature].
        labels: With shape [n].
        parts: Positions of each part.
        forgotten_classes: Classes forgotten whole.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    parts: Mapping[str, torch.Tensor]
    forgotten_classes: tuple[int, ...] = ()
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def stream(self, order, *, generator=None):
        for ids in order:
            yield Raw(ids, (self.inputs[ids],), self.labels[ids])

    def digest(self) -> str:
        return "examples"

    def to(self, device) -> "Examples":
        return self

    @property
    def cuts(self):
        return {part: (self, order) for part, order in self.parts.items()}


def records() -> Examples:
    """Four overlapping blobs; a fifth of the training labels is wrong, a quarter of the set is F."""
    generator = torch.Generator().manual_seed(0)
    n, n_train = sum(SIZES.values()), SIZES["forget"] + SIZES["retain"]
    labels = torch.randint(CLASSES, (n,), generator=generator)
    centres = 2 * torch.randn(CLASSES, 6, generator=generator)
    inputs = centres[labels] + torch.randn(n, 6, generator=generator)
    relabelled_rows = torch.randperm(n_train, generator=generator)[: n_train // 5]
    labels[relabelled_rows] = (
        labels[relabelled_rows] + torch.randint(1, CLASSES, relabelled_rows.shape, generator=generator)
    ) % CLASSES
    return Examples(
        inputs, labels, dict(zip(SIZES, torch.arange(n).split(list(SIZES.values())), strict=True))
    )


def one_digit() -> Examples:
    """Seven hundred handwritten digits, of which the threes are to be forgotten."""
    images, classes = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(images[:1100] / 8 - 1, dtype=torch.float32), torch.tensor(classes[:1100])
    train, calibration, test = torch.arange(1100).split([700, 200, 200])
    in_class = labels[train] == 3
    parts = {"forget": train[in_class], "retain": train[~in_class], "calibration": calibration, "test": test}
    return Examples(inputs, labels, parts, forgotten_classes=(3,))


@dataclass(frozen=True)
class Networks:
    """Networks of one shape, with one hidden layer, as one batch.

    Args:
        weights: In the order of the layers, with shape [network, ...].
    """

    weights: list[torch.Tensor]

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        first, bias, second, offset = self.weights
        hidden = torch.relu(torch.einsum("ni,mih->mnh", inputs, first) + bias[:, None])
        return torch.einsum("mnh,mhk->mnk", hidden, second) + offset[:, None]

    def evidence(self, data: Examples) -> list[Evidence]:
        with torch.no_grad():
            answers = {part: self(data.inputs[ids]).numpy() for part, ids in data.parts.items()}
        labels = {part: data.labels[ids].numpy() for part, ids in data.parts.items()}
        ids = {part: order.numpy() for part, order in data.parts.items()}
        return [
            Evidence({part: each[i] for part, each in answers.items()}, labels, ids, data.forgotten_classes)
            for i in range(len(self.weights[0]))
        ]

    def modules(self) -> list[nn.Module]:
        return [_module(*weights) for weights in zip(*self.weights, strict=True)]


def _module(first: torch.Tensor, bias: torch.Tensor, second: torch.Tensor, offset: torch.Tensor) -> nn.Module:
    module = nn.Sequential(nn.Linear(*first.shape), nn.ReLU(), nn.Linear(*second.shape))
    values = {"0.weight": first.T, "0.bias": bias, "2.weight": second.T, "2.bias": offset}
    module.load_state_dict({name: value.detach().clone() for name, value in values.items()})
    return module


def networks(n: int, data: Examples, seed: int, *, hidden: int = 96) -> Networks:
    """Untrained networks for these examples."""
    generator = torch.Generator().manual_seed(seed)
    features, classes = data.inputs.shape[1], int(data.labels.max()) + 1
    shapes = [(features, hidden), (hidden,), (hidden, classes), (classes,)]
    fans = [features, features, hidden, hidden]
    weights = [torch.randn(n, *shape, generator=generator) for shape in shapes]
    return Networks([weight / fan**0.5 for weight, fan in zip(weights, fans, strict=True)])


def train(
    start: Networks, data: Examples, use: torch.Tensor, labels: torch.Tensor, *, steps: int = 160
) -> Networks:
    """Every network trained on the examples it may `use` (0 or 1) under its own labels; both [network, n]."""
    weights = [weight.clone().requires_grad_() for weight in start.weights]
    optimizer = torch.optim.Adam(weights, lr=0.02)
    is_used = use.any(0)
    inputs, labels, use = data.inputs[is_used], labels[:, is_used], use[:, is_used]
    for _ in range(steps):
        outputs = Networks(weights)(inputs)
        loss = functional.cross_entropy(outputs.transpose(1, 2), labels, reduction="none")
        optimizer.zero_grad()
        ((loss * use).sum(1) / use.sum(1)).sum().backward()
        optimizer.step()
    return Networks([weight.detach() for weight in weights])


def uses(data: Examples, n: int, *parts: str) -> torch.Tensor:
    """Which examples each of n networks is trained on: all of the parts that are named."""
    use = torch.zeros(n, len(data))
    for part in parts:
        use[:, data.parts[part]] = 1
    return use


def models_of_digit(data: Examples, digit: int, *, bias: float) -> dict[str, nn.Module]:
    """Two networks that never saw a digit, one that did, and that with its row at zero and this bias."""
    use = torch.cat([uses(data, 2, "retain"), uses(data, 1, "retain", "forget")])
    models = train(networks(3, data, seed=0), data, use, data.labels.repeat(3, 1)).modules()
    hidden = copy.deepcopy(models[2])
    with torch.no_grad():
        hidden[2].weight[digit], hidden[2].bias[digit] = 0, bias
    return dict(zip(("retrained", "second", "original", "hidden"), [*models, hidden], strict=True))
