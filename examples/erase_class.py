"""Erase a class from a small diffusion model of digits.

A denoiser `f(x_t, t, condition)` of 8 x 8 images is trained on all ten digits. The script unlearns the digit
3 by SalUn. A classifier counts how many of the images drawn under each digit's condition show that digit,
before and after. Needs `unweave[diffusion]`.

    python3 examples/erase_class.py
"""

import math

import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import unweave
from unweave.descent.descend import Descent
from unweave.methods.salun import SalUn
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sample import Sampler, sample
from unweave.tasks.diffusion.schedule import Schedule

ERASED, NULL = 3, 10
"""The digit to erase, and the condition that stands for no digit."""

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 8 - 1, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(digits)
train_set, test_set = TensorDataset(images[:1500], labels[:1500]), TensorDataset(images[1500:], labels[1500:])
task = Diffusion(
    n_classes=10, schedule=Schedule(kind="squaredcos_cap_v2", prediction="v_prediction"), null=NULL
)


class Denoiser(nn.Module):
    """Three layers over the noisy image, its time and its condition."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = nn.Embedding(11, 64)
        self.layers = nn.Sequential(
            nn.Linear(192, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 64)
        )

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The velocity, in the shape of `x`."""
        waves = t[:, None] / 1000 * torch.logspace(0, 3, 32) * math.pi
        inputs = [x.flatten(1), waves.sin(), waves.cos(), self.condition(condition)]
        return self.layers(torch.cat(inputs, 1)).view_as(x)


def train() -> nn.Module:
    """A denoiser of all ten digits; one condition in ten is dropped."""
    torch.manual_seed(0)
    model = Denoiser()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(1000):
        rows, t = torch.randint(1500, (128,)), torch.randint(1000, (128,))
        clean, noise = images[rows], torch.randn(128, 1, 8, 8)
        condition = torch.where(torch.rand(128) < 0.1, NULL, labels[rows])
        prediction = model(task.schedule.add_noise(clean, noise, t), t, condition)
        optimizer.zero_grad()
        (prediction - task.schedule.target(clean, noise, t)).square().mean().backward()
        optimizer.step()
    return model


def recognised(model: nn.Module, classifier: LogisticRegression) -> list[float]:
    """Per digit, the share of 25 images drawn under its condition that the classifier takes for it."""
    conditions = torch.arange(10).repeat_interleave(25)
    samples = sample(model, task, conditions, shape=(1, 8, 8), how=Sampler("dpm", steps=10, guidance=1.5))
    answers = torch.tensor(classifier.predict(samples.flatten(1).numpy()))
    return (answers == conditions).double().view(10, 25).mean(1).tolist()


def main() -> None:
    """Prints the shares before and after."""
    classifier = LogisticRegression(max_iter=1000).fit(images.flatten(1).numpy(), labels.numpy())
    original = train()
    split = unweave.Split(train_set, forget=(labels[:1500] == ERASED).nonzero()[:, 0], test=test_set)
    erasing = Diffusion(10, task.schedule, null=NULL, drop=0.1, forgotten=(ERASED,))
    method = SalUn(feed="paired", retain_weight=3.0, how=Descent(lr=1e-3, steps=100, optimizer="adam"))
    result = unweave.unlearn(original, split, method, task=erasing)
    print("digit  before  after")
    shares = zip(recognised(original, classifier), recognised(result.model, classifier), strict=True)
    for digit, (before, after) in enumerate(shares):
        print(f"{digit:5}  {before:6.0%} {after:6.0%}")


if __name__ == "__main__":
    main()
