"""The methods on a tiny DiT of latents: the identities of LUR, and what teacher and student see."""

import copy
import tempfile
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from for_each import for_each

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from presets import soon
from smooth import MODES, WEIGHT, direction, step
from stable_diffusion import write_dit
from unweave.data.latents import Latents
from unweave.descent.descend import Descent
from unweave.descent.objective import mislabel, nll
from unweave.methods.esd import ESD
from unweave.methods.lur import LUR
from unweave.methods.salun import SalUn
from unweave.problem import Problem
from unweave.split import Split
from unweave.targets import Mislabel
from unweave.tasks.diffusion.autoencoder import encode
from unweave.tasks.diffusion.folder import Denoiser, load
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.scopes import restrict

HOW = Descent(lr=1e-3, steps=3, batch=4, optimizer="adam", max_norm=1.0)
REDIRECT = LUR(alpha=1e-3, weight=0.3, forget=Mislabel(), how=HOW)
CASES = {
    "lur": REDIRECT,
    "salun": SalUn(feed="paired", how=HOW),
    "esd": ESD(sampler=Sampler(steps=3, guidance=3.0, spacing="leading"), how=HOW),
}


@cache
def source() -> Denoiser:
    """The pipeline, as it was read from disk."""
    with tempfile.TemporaryDirectory() as place:
        return load(write_dit(Path(place) / "dit"))


def request(scope="all", dtype: torch.dtype = torch.float32) -> Problem:
    """A request to forget the last of four classes; additions of low rank have moved."""
    pipeline = source()
    assert pipeline.autoencoder is not None
    pixels = torch.randint(256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    mean, deviation = (each.to(dtype) for each in encode(pipeline.autoencoder, pixels))
    labels = torch.arange(24) % 4
    data = Latents(mean, deviation, labels)
    train, test = data.rows(torch.arange(16)), data.rows(torch.arange(16, 24))
    split = Split(train, (labels[:16] == 3).nonzero()[:, 0], test)
    model = copy.deepcopy(pipeline.model).to(dtype)
    restrict(model, scope, rank=2)
    with torch.no_grad():
        for n, (name, p) in enumerate(model.named_parameters()):
            if p.requires_grad and (scope == "all" or "lora_B" in name):
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n), dtype=p.dtype))
    task = replace(pipeline.task, forgotten=(3,))
    return Problem(task, model, split, torch.Generator().manual_seed(0))


def follow(of: Problem, mode: str, alpha: float) -> Tensor:
    terms = MODES[mode](nll("retain"), WEIGHT * mislabel(teacher=of.original), alpha)
    return direction(step(of), terms)


@for_each("scope", ["all", "lora"])
def test_lur_is_joint_without_a_lookahead_and_exact_to_second_order(scope: str):
    of = request(scope, torch.float64)
    joint = follow(of, "joint", 0.0)
    for mode in ("exact", "nested"):
        torch.testing.assert_close(follow(of, mode, 0.0), joint, rtol=1e-9, atol=1e-12)
    errors = [float((follow(of, "nested", a) - follow(of, "exact", a)).norm()) for a in (0.04, 0.02, 0.01)]
    assert 0 < errors[-1] < 0.1 * float((follow(of, "exact", 0.01) - joint).norm())
    assert all(large / small > 3 for large, small in pairwise(errors))


@for_each("name", CASES)
def test_teacher_and_student_see_the_same_latents_and_only_the_scope_moves(name: str):
    of = request("lora")
    latents: dict[str, list[Tensor]] = {"teacher": [], "student": []}

    def remember(model: nn.Module, role: str) -> None:
        model.register_forward_pre_hook(
            lambda module, inputs: latents[role].append(inputs[0].detach().clone())
        )

    remember(of.original, "teacher")
    remember(of.model, "student")
    before = {key: value.clone() for key, value in of.model.state_dict().items()}
    soon(CASES[name], steps=3, batch=4, forget_batch=4)(of)
    assert latents["teacher"] and all(
        any(torch.equal(x, y) for y in latents["student"]) for x in latents["teacher"]
    )
    after = of.model.state_dict()
    names = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert names and all("lora_" in key for key in names)
    assert all(bool(value.isfinite().all()) for value in after.values())
