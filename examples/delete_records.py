"""Delete records from a model of your own, and audit the result.

32 of 800 training records have wrong labels, which the network has memorised. The script unlearns these
records by LUR and a recovery, retrains 22 models without them, prints the verdict, and writes model and
report into `deleted`.

    python3 examples/delete_records.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset, TensorDataset, default_collate

import unweave

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
WRONG = range(0, 800, 25)
labels[WRONG] = (labels[WRONG] + 1) % 10
train_set, test_set = (
    TensorDataset(images[:800], labels[:800]),
    TensorDataset(images[800:1400], labels[800:1400]),
)


def train(dataset: Dataset, seed: int) -> nn.Module:
    """Trains a network from fresh weights, as the original was trained."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = default_collate(list(dataset))
    for _ in range(30):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def main() -> None:
    """Unlearns, audits and saves."""
    split = unweave.Split(train_set, forget=WRONG, test=test_set)
    method = unweave.Pipeline(unweave.LUR(), unweave.Recover())
    result = unweave.unlearn(train(train_set, seed=0), split, method)
    audit = unweave.audit(result, reference=unweave.Retrain(train, seeds=range(10)))
    print(audit)
    result.save("deleted")
    audit.save("deleted")


if __name__ == "__main__":
    main()
