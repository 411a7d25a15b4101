"""Projects and recipes of users that no recipe knows, written into a folder."""

from pathlib import Path

PROJECT = '''
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES = 3


class Net(nn.Module):
    """Two inputs by name, logits out."""

    def __init__(self, dtype=torch.float32, classes=CLASSES, dropout=0.0, frozen=False, broken=False):
        super().__init__()
        self.first, self.last = nn.Linear(8, 32, dtype=dtype), nn.Linear(32, classes, dtype=dtype)
        self.dropout = nn.Dropout(dropout)
        self.requires_grad_(not frozen)
        if broken:
            nn.init.constant_(self.first.weight, float("nan"))

    def forward(self, x, scale):
        return self.last(self.dropout(torch.relu(self.first((x * scale).to(self.first.weight.dtype)))))


class Records(Dataset):
    """Dicts with ids; a third of the labels is wrong, so that they can only be memorised."""

    def __init__(self, n, seed, offset=0, classes=CLASSES):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(classes, (n,), generator=generator)
        self.x = 1.5 * nn.functional.one_hot(self.labels, 8) + torch.randn(n, 8, generator=generator)
        wrong = torch.rand(n, generator=generator) < 0.33
        self.labels[wrong] = torch.randint(classes, (int(wrong.sum()),), generator=generator)
        self.seed, self.offset = seed, offset

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        label = int(self.labels[i]) + self.offset
        return {"id": f"r{self.seed}/{i}", "x": self.x[i], "scale": torch.ones(1), "label": label}


def train(dataset, seed):
    torch.manual_seed(seed)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(25):
        for batch in DataLoader(dataset, 32, shuffle=True):
            loss = nn.functional.cross_entropy(model(batch["x"], batch["scale"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def given(**changes):
    return {"model": Net(), "train": Records(90, 0), "test": Records(120, 1), **changes}


def load():
    torch.manual_seed(0)
    return given()
'''

RECIPE = """
seeds = [0, 1]
calibration_seeds = []

[data]
name = "digits"
limit = 200
fraction = 0.1

[model]
name = "mlp"
settings = {{ hidden = {hidden} }}

[train]
lr = 0.1
steps = 60
batch = 64
"""


def loads(expression: str) -> str:
    """A `load()` that returns an expression."""
    return f"def load():\n    return {expression}\n"


TRAINED = loads("given(model=train(Records(90, 0), 0))")


def project(folder: Path, change: str = "") -> str:
    """Writes project.py into a folder, with other code at its end; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "project.py"
    path.write_text(f"{PROJECT}\n\n{change}\n")
    return str(path)


def recipe(folder: Path, *, name: str = "tiny", hidden: int = 16) -> str:
    """Writes a recipe into a folder that takes a moment to train; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(hidden=hidden))
    return str(path)
