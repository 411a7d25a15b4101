"""A user's `train()` and data for tests: a small network of six inputs and three classes."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from unweave import Split


def build(hidden: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def make_data() -> tuple[TensorDataset, TensorDataset]:
    """Sixty examples to train on, and thirty held-out ones; the label is the largest of three inputs."""
    inputs = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    labels = inputs[:, :3].argmax(1)
    return TensorDataset(inputs[:60], labels[:60]), TensorDataset(inputs[60:], labels[60:])


def make_split() -> Split:
    """Forty examples of two classes, of which every fifth is to be forgotten, and twenty held-out ones."""
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    labels = (inputs[:, 0] > 0).long()
    dataset = TensorDataset(inputs[:40], labels[:40])
    return Split(dataset, range(0, 40, 5), TensorDataset(inputs[40:], labels[40:]))


class Trainer:
    """A user's `train`, which notes its calls."""

    def __init__(self, hidden: int = 8) -> None:
        self.hidden = hidden
        self.calls: list[tuple[int, int]] = []

    def __call__(self, dataset, seed: int) -> nn.Module:
        self.calls.append((len(dataset), seed))
        torch.manual_seed(seed)
        model = build(self.hidden)
        inputs, labels = (torch.stack([torch.as_tensor(item[i]) for item in dataset]) for i in (0, 1))
        update = torch.optim.SGD(model.parameters(), lr=0.5)
        for _ in range(15):
            update.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            update.step()
        return model

    @property
    def seeds(self) -> list[int]:
        return [seed for _, seed in self.calls]
