"""A method that was interrupted resumes from its saved states, and ends in the bits of one that was not."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import every_family
from for_each import for_each
from unweave.descent.descend import Descent
from unweave.descent.probe import Probe
from unweave.methods import Method
from unweave.methods.erasediff import EraseDiff
from unweave.methods.gdr_gma import GDRGMA
from unweave.methods.kde import KDE
from unweave.methods.lur import LUR
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover, Restored
from unweave.methods.rni import RNI
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.scrub import SCRUB
from unweave.methods.sfron import SFRon
from unweave.methods.simple import FineTune
from unweave.methods.unsir import UNSIR
from unweave.problem import Problem
from unweave.targets import Match, Mislabel
from unweave.weights.state_folder import States

HOW = Descent(lr=0.02, steps=5, batch=16, forget_batch=5, max_norm=1.0)
ADAM = replace(HOW, optimizer="adam", lr=0.01, ema=0.9, schedule="cosine", warmup=0.2, dropout="same")
METHODS: Mapping[str, tuple[str, Method]] = {
    "rule that draws": ("layernorm", LUR(rule="pcgrad", how=ADAM)),
    "lagged": ("layernorm", LUR(mode="lagged", alpha=0.01, how=HOW)),
    "replayed steps": ("layernorm", LUR(mode="lagged", alpha=0.01, how=replace(HOW, compile="step"))),
    "batch statistics": ("batchnorm", FineTune(how=ADAM)),
    "reused gradient": ("layernorm", Scissorhands(forget=Mislabel(), how=HOW)),
    "two phases": ("layernorm", SCRUB(how=HOW)),
    "masked phases": ("layernorm", RNI(rounds=2, how=HOW)),
    "two descents": ("layernorm", KDE(taught=HOW, how=HOW)),
    "noise": ("layernorm", UNSIR(images=2, repeats=4, impair=HOW, how=HOW)),
    "pipeline": (
        "layernorm",
        Pipeline(
            LUR(how=HOW),
            Recover(until=Restored(near=0.1), how=Descent(lr=0.05, steps=40, batch=13, stop_every=2)),
        ),
    ),
    "proxy": ("layernorm", LUR(forget=Match(), how=HOW)),
    "search": ("denoiser", EraseDiff(passes=1, how=replace(ADAM, dropout="off"))),
}
ANEW: Mapping[str, tuple[str, Method]] = {
    "states in a list": ("layernorm", SCRUB(rewind=True, how=HOW)),
    "optimizer of its own": ("layernorm", SFRon(threshold=0.5, every=3, how=HOW)),
    "gradients of earlier steps": ("layernorm", GDRGMA(how=HOW)),
}
"""What they remember can't be saved, so an interrupted descent starts again."""


class Interrupted(Exception):
    """Ctrl-C."""


def run(method: Method, family: str, folder: Path | None, until: int | None = None) -> tuple[Problem, int]:
    """Runs a method, with a state every two steps, until it ends or is interrupted in a pass."""
    of, passes = every_family.request(method, family), 0
    of.states = None if folder is None else States(folder, 2)
    of.watch = Probe(3)

    def note(module: nn.Module, inputs: object) -> None:
        nonlocal passes
        passes += 1
        if passes == until:
            raise Interrupted

    with of.model.register_forward_pre_hook(note):
        method(of)
    return of, passes


@for_each(("name", "case"), (METHODS | ANEW).items())
def test_it_ends_in_the_same_bits(name: str, case: tuple[str, Method], tmp_path: Path) -> None:
    family, method = case
    full, passes = run(method, family, None)
    least = passes
    for number, part in enumerate((0.4, 0.9)):
        folder = tmp_path / name / str(number)
        with pytest.raises(Interrupted):
            run(method, family, folder, round(part * passes))
        resumed, after = run(method, family, folder)
        assert all(
            torch.equal(each, resumed.model.state_dict()[name])
            for name, each in full.model.state_dict().items()
        )
        assert torch.equal(resumed.generator.get_state(), full.generator.get_state())
        assert replace(resumed.cost, seconds=0) == replace(full.cost, seconds=0)
        assert json.dumps([resumed.curves, resumed.traces]) == json.dumps([full.curves, full.traces])
        least = min(least, after)
    assert least == passes if name in ANEW else least < passes
