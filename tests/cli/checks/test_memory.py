"""The peak memory that a check predicts is that of a run of three steps, in a process of its own."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fork_server import fork_server
from smooth import source
from unweave.bench.peak_memory import RESET, STATUS, peak_memory
from unweave.cli.checks.timing import estimate
from unweave.descent.descend import Descent
from unweave.methods.lur import LUR
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.classifier import Classifier

CLASSES, WIDTH, TOKENS = 4, 256, 6
HOW = Descent(lr=0.001, steps=3, batch=64)  # from the second step on there is a momentum
SETTINGS = {"joint": LUR(mode="joint", how=HOW), "lagged": LUR(mode="lagged", alpha=0.001, how=HOW)}


class Transformer(nn.Module):
    """A classifier of points, each of whose six numbers is a token: three million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embed(x[..., None])).mean(1))


class Runnable:
    """What a check runs a method on."""

    build = None

    def task(self, split: Split) -> Task:
        return Classifier(CLASSES)


def run(method: LUR, model: nn.Module, split: Split) -> None:
    """Runs a method on a copy of a model."""
    draws = torch.Generator().manual_seed(0)
    method(Problem(Classifier(CLASSES), copy.deepcopy(model), split, draws, caller_model=model))


def resident() -> float:
    """The memory of this process, in MiB."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measure(what: str, name: str, place: str) -> None:
    """Writes the peak, in MiB above that before, of a run, or what a check says of it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = source(300, 1, torch.float32)
    split = Split(data, range(100), source(100, 2, torch.float32))
    model, method = Transformer().eval(), SETTINGS[name]
    run(LUR(mode="joint", how=Descent(steps=1, batch=2)), model, split)  # the first step imports packages
    before = resident()
    if what == "check":
        peak = estimate(method, model, split, Runnable()).peak_mib
    else:
        with peak_memory("cpu") as measured:
            run(method, model, split)
        peak = measured.mib
    assert peak is not None
    Path(place).write_text(json.dumps(peak - before))


@pytest.mark.slow  # beside other tests on a full machine the peak of a run moves by a fifth
@pytest.mark.skipif(not RESET.exists(), reason="only Linux tells the peak of a process")
@pytest.mark.parametrize("name", SETTINGS)
def test_a_check_predicts_the_memory_of_a_run_within_a_fifth(tmp_path, name):
    found = {}
    for what in ("check", "run"):
        place = tmp_path / f"{what}.json"
        process = fork_server().Process(target=measure, args=(what, name, str(place)))
        process.start()
        process.join()
        found[what] = json.loads(place.read_text())
    assert found["run"] > 20, found
    assert found["check"] == pytest.approx(found["run"], rel=0.2), found
