"""The methods on a tiny Stable Diffusion: what moves, what teacher and student see, and LUR's identities."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from for_each import for_each

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import every_family
import smooth
from presets import soon
from smooth import MODES, WEIGHT, direction, flat, step
from text_to_image import pipeline, request
from unweave.descent.descend import Descent
from unweave.descent.objective import mislabel, nll
from unweave.errors import Failed
from unweave.methods import Method, methods_for
from unweave.methods.bad_teacher import BadTeacher
from unweave.methods.conflict import MUNBa
from unweave.methods.erasediff import EraseDiff
from unweave.methods.esd import ESD
from unweave.methods.lur import LUR
from unweave.methods.meta_unlearning import MetaUnlearning
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.methods.sa import SelectiveAmnesia
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.sfron import SFRon
from unweave.methods.simple import FineTune, FromScratch, GradientAscent, NegGradPlus
from unweave.methods.uce import UCE
from unweave.problem import Problem
from unweave.targets import Away, Clamped, Match, Mislabel, Surrogate
from unweave.targets.estimators.proxy import Proxy
from unweave.tasks import Batch
from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.sampler import Sampler

HOW = Descent(lr=1e-3, steps=2, batch=4, optimizer="adam", max_norm=1.0)
REDIRECT = LUR(alpha=1e-3, weight=0.3, forget=Mislabel(), how=HOW)
DRAW = Sampler(steps=3, guidance=3.0, spacing="leading")
CASES: dict[str, Method] = {
    "lur": REDIRECT,
    "lur-lagged": replace(REDIRECT, mode="lagged", alpha=1e-4),
    "lur-exact": replace(REDIRECT, mode="exact"),
    "lur-first-order": replace(REDIRECT, mode="first-order"),
    "joint": replace(REDIRECT, mode="joint"),
    "meta-unlearning": MetaUnlearning(alpha=1e-3, relearn=2, weight=0.3, forget=Mislabel(), how=HOW),
    "lur-clamped": replace(REDIRECT, forget=Clamped()),
    "lur-noise": replace(REDIRECT, forget=Surrogate()),
    "lur-away": replace(REDIRECT, forget=Away()),
    "lur-proxy": replace(REDIRECT, forget=Match(Proxy(how=HOW))),
    "salun": SalUn(feed="paired", how=HOW),
    "esd": ESD(sampler=DRAW, how=HOW),
    "esd-2025": ESD(eta=2.0, erase_from="class", images="original", sampler=DRAW, how=HOW),
    "sa": SelectiveAmnesia(sampler=DRAW, fisher_images=6, how=HOW),
    "scissorhands": Scissorhands(eligible=r"attn2\.to_k", how=HOW),
    "erasediff": EraseDiff(passes=0, how=HOW),
    "sfron": SFRon(threshold=0.1, how=HOW),
    "munba": MUNBa(how=HOW),
    "finetune": FineTune(HOW),
    "ascent": GradientAscent(how=HOW),
    "neggrad+": NegGradPlus(how=HOW),
    "bad-teacher": BadTeacher(HOW),
    "uce": UCE(),
    "lur:recover": Pipeline(REDIRECT, Recover(until=None, how=HOW), names=("lur", "recover")),
}


def names_moved(of: Problem, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])}


@for_each("name", CASES)
def test_a_method_moves_the_scope_and_no_other_bit(name: str):
    of = request()
    before = {key: value.clone() for key, value in of.model.state_dict().items()}
    table = of.model.words.embeddings.clone()
    soon(CASES[name], steps=1, batch=4, forget_batch=4)(of)
    names = names_moved(of, before)
    assert names and names <= set(of.params) and all(".attn2." in each for each in names)
    assert torch.equal(of.model.words.embeddings, table)
    assert all(bool(value.isfinite().all()) for value in of.model.state_dict().values())


def test_a_short_retraining_draws_all_weights_anew():
    of = request("all")
    fresh = Prompted(type(of.model.unet)(**of.model.unet.config), of.model.words)
    of.build = lambda: fresh
    before = {key: value.clone() for key, value in of.model.state_dict().items()}
    soon(FromScratch(HOW))(of)
    weights = {name for name, p in of.model.named_parameters() if p.ndim > 1}
    assert weights <= names_moved(of, before)


@for_each("name", ["lur", "lur-exact", "salun", "sa", "esd", "erasediff", "munba"])
def test_a_method_moves_additions_of_low_rank_and_no_other_bit(name: str):
    of = request("lora")
    before = {key: value.clone() for key, value in of.model.state_dict().items()}
    soon(CASES[name], steps=2, batch=4, forget_batch=4)(of)
    names = names_moved(of, before)
    assert names and all("lora_" in each for each in names)


@for_each("name", ["lur", "salun", "ascent"])
def test_the_text_encoder_is_trained_in_its_own_scope(name: str):
    of = request("text encoder")
    before = {key: value.clone() for key, value in of.model.state_dict().items()}
    soon(CASES[name], steps=1, batch=4, forget_batch=4)(of)
    names = names_moved(of, before)
    assert names and all(each.startswith("words.text_encoder.") for each in names)


def test_every_method_for_text_to_image_is_known():
    names = methods_for("text-to-image").keys()
    assert {"lur", "salun", "sa", "esd", "erasediff", "sfron", "uce"} <= names and "scrub" not in names
    assert "uce" not in methods_for("diffusion") and "uce" not in methods_for("classifier")


@for_each("mode", ["nested", "lagged", "exact", "joint"])
def test_teacher_and_student_see_the_same_latents(mode):
    of = request()
    latents: dict[str, list[Tensor]] = {"teacher": [], "student": []}

    def remember(model: nn.Module, role: str) -> None:
        model.register_forward_pre_hook(
            lambda module, inputs: latents[role].append(inputs[0].detach().clone())
        )

    remember(of.original, "teacher")
    remember(of.model, "student")
    replace(REDIRECT, mode=mode, alpha=1e-4, how=replace(HOW, steps=3))(of)
    extra_steps = 1 if mode == "lagged" else 0  # it checks its convergence on a step of its own
    assert len(latents["teacher"]) == 3 + extra_steps
    for x in latents["teacher"]:
        assert any(torch.equal(x, y) for y in latents["student"])
    distinct = {x.numpy().tobytes() for x in latents["student"]}
    assert len(distinct) == 2 * (3 + extra_steps), "one sample for each part and step"


# --- LUR in double precision


def objectives(of: Problem):
    return nll("retain"), WEIGHT * mislabel(teacher=of.original)


def follow(of: Problem, mode: str, alpha: float) -> Tensor:
    return direction(step(of), MODES[mode](*objectives(of), alpha))


def wide(scope) -> Problem:
    """In float64; additions of low rank have moved, or half of them would have no gradient."""
    of = request(scope, dtype=torch.float64)
    with torch.no_grad():
        for n, (name, p) in enumerate(of.params.items()):
            if "lora_B" in name:
                p.normal_(std=0.3, generator=torch.Generator().manual_seed(n))
            elif scope != "lora":
                p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n), dtype=p.dtype))
    return of


@pytest.mark.parametrize("scope", ["cross-attention", "lora"])
def test_no_lookahead_is_the_joint_gradient(scope):
    of = wide(scope)
    joint = follow(of, "joint", 0.0)
    for mode in ("exact", "nested"):
        torch.testing.assert_close(follow(of, mode, 0.0), joint, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scope", ["cross-attention", "lora"])
def test_nested_is_exact_but_for_the_second_order(scope):
    of = wide(scope)
    alphas = (0.04, 0.02, 0.01)
    errors = [float((follow(of, "nested", a) - follow(of, "exact", a)).norm()) for a in alphas]
    start = follow(of, "joint", 0.0)
    assert errors[-1] < 0.1 * float((follow(of, "exact", alphas[-1]) - start).norm())
    for large, small in pairwise(errors):
        assert large / small > 3


# --- ESD


@torch.no_grad()
def answers(of: Problem, x: Tensor, t: Tensor, text: str) -> Tensor:
    """The original's output under a prompt, without anything of ours."""
    sd = pipeline()
    ids = sd.tokenizer([text], padding="max_length", max_length=77, return_tensors="pt").input_ids
    words = sd.text_encoder(ids)[0].expand(len(x), -1, -1)
    return sd.unet(x, t, encoder_hidden_states=words).sample


def guide(of: Problem, method: ESD) -> Batch:
    return method.guided_batch(of.task, of.original, step(of), smooth.batch(of, of.split.forget))


def test_the_target_of_esd_in_both_releases():
    of = request()
    texts = [of.task.prompts.texts[i] for i in of.split.train.labels[of.split.forget].tolist()]
    first = guide(of, ESD(eta=1.0, images="data"))
    x, t, condition = first.inputs
    plain = answers(of, x, t, "")
    conditional = torch.cat([answers(of, x[i : i + 1], t[i : i + 1], text) for i, text in enumerate(texts)])
    torch.testing.assert_close(first.target, plain - (conditional - plain), rtol=1e-4, atol=1e-5)
    second = guide(of, ESD(eta=3.0, erase_from="class", images="data"))
    torch.testing.assert_close(second.target, conditional - 3.0 * (conditional - plain), rtol=1e-4, atol=1e-5)
    assert torch.equal(second.inputs[0], x) and torch.equal(condition, of.split.train.labels[of.split.forget])
    first_by_class = guide(of, ESD(eta=2.0, erase_from="class", images="data"))
    torch.testing.assert_close(first_by_class.target, first.target, rtol=1e-4, atol=1e-5)
    other = of.task.prompts.number("a four")
    third = guide(of, ESD(eta=2.0, erase_from=other, images="data"))
    expected = answers(of, x, t, "a four") - 2.0 * (conditional - plain)
    torch.testing.assert_close(third.target, expected, rtol=1e-4, atol=1e-5)
    assert third.inputs[2].tolist() == [other] * len(x)


@for_each("target", ["a four", None])
def test_the_target_away_is_the_loss_of_esd_on_noised_images(target: str | None):
    of = request(dtype=torch.float64, target=target)
    at = step(of)
    gradient = flat(at.gradient(Away(eta=1.5)(of, HOW)))
    objective = ESD(eta=1.5, images="data").erase_objective(of.task, of.original)
    torch.testing.assert_close(gradient, flat(at.gradient(objective)), rtol=1e-9, atol=1e-12)
    other = flat(at.gradient(Away(eta=1.0)(of, HOW)))
    assert float((gradient - other).norm()) > 0.01 * float(gradient.norm())


# --- UCE


def rows(texts: list[str]) -> Tensor:
    """The embedding of the last token of each prompt, without anything of ours."""
    sd = pipeline()
    tokens = sd.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        words = sd.text_encoder(tokens.input_ids)[0]
    return torch.stack([each[n - 2] for each, n in zip(words, tokens.attention_mask.sum(1), strict=True)])


@pytest.mark.parametrize("keep", ["named", "all"])
@for_each("target", ["a four", None])
def test_uce_is_the_least_squares_solution(keep, target: str | None):
    of = request(target=target, kept=("a red two", "a five"))
    before = {name: p.detach().clone() for name, p in of.params.items()}
    UCE(erase=2.0, preserve=0.7, pull=0.3, keep=keep)(of)
    named_texts = ["a red two", "a five"]
    other_texts = [f"a {colour} {number}" for number in ("two", "four") for colour in ("red", "blue")]
    texts = named_texts if keep == "named" else sorted({*named_texts, *other_texts})
    old, new, kept_rows = (rows(each).double() for each in (["a three"], [target or ""], texts))
    scales = (2.0**0.5, 0.7**0.5, 0.3**0.5)
    identity = torch.eye(old.shape[1], dtype=torch.float64)
    inputs = torch.cat([s * each for s, each in zip(scales, (old, kept_rows, identity), strict=True)])
    outputs = torch.cat([s * each for s, each in zip(scales, (new, kept_rows, identity), strict=True)])
    for name, p in of.params.items():
        if ".to_k." not in name and ".to_v." not in name:
            assert torch.equal(p, before[name])
            continue
        solution = torch.linalg.lstsq(inputs, outputs @ before[name].double().T).solution.T
        torch.testing.assert_close(p.detach(), solution.float(), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(p, before[name], atol=1e-4)
    assert of.cost.gradients == 0


def test_uce_of_the_first_release_maps_the_tokens_from_the_last_on():
    of = request()
    old, new, kept_rows = UCE(tokens="rest", keep="named").embeddings(of)
    length = len(pipeline().tokenizer("a three").input_ids)
    assert len(old) == len(new) == 77 - (length - 2) and not len(kept_rows)
    torch.testing.assert_close(old[:1], rows(["a three"]).double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new[:1], rows(["a four"]).double(), rtol=1e-4, atol=1e-5)


def test_uce_fails_on_weights_that_are_not_finite():
    of = request()
    with torch.no_grad():
        next(iter(of.params.values())).fill_(float("nan"))
    with pytest.raises(Failed, match="finite"):
        UCE()(of)


def test_uce_needs_its_matrices_and_prompts():
    for scope in ("self-attention", "lora"):
        with pytest.raises(ValueError, match="none of them is trainable as a whole: use a scope"):
            UCE()(request(scope))
    with pytest.raises(ValueError, match="for models of the family text-to-image, found diffusion"):
        UCE()(every_family.problem("unet", whole_class=True))
