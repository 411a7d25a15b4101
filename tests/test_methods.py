"""The contract: what every method owes to every family of models."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, product
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import every_family
import shards
from every_family import MODEL_KINDS, answers, loss_on, original, problem, request
from for_each import for_each
from shorten import each_within
from unweave import methods
from unweave.descent.descend import Descent
from unweave.descent.importance import Salient
from unweave.descent.units import Along, Curvature, Ratio
from unweave.errors import Failed
from unweave.methods import METHODS, STAGES, Method, method_named
from unweave.methods.about import About
from unweave.methods.cfw import CFW
from unweave.methods.erasediff import EraseDiff
from unweave.methods.esd import ESD
from unweave.methods.fcs import FCS
from unweave.methods.last_layers import EUk
from unweave.methods.lur import LUR
from unweave.methods.meta_unlearning import MetaUnlearning
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Restored
from unweave.methods.rni import RNI
from unweave.methods.sa import SelectiveAmnesia
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.simple import FineTune, FromScratch, NegGradPlus, Original
from unweave.methods.ssd import SelectiveSynapticDampening
from unweave.methods.unsir import UNSIR
from unweave.problem import Problem
from unweave.targets import TARGETS, Match
from unweave.targets.estimators.proxy import Proxy
from unweave.tasks import family_of
from unweave.tasks.diffusion.sampler import Sampler

M = TypeVar("M", bound=Method)
T = TypeVar("T")

STEPS = 2

VARIANTS: dict[str, Method] = {
    "first-order": LUR(mode="first-order"),
    "curvature": LUR(alpha=Curvature(0.1)),
    "absolute": LUR(alpha=0.1, weight=0.3),
    "distilled": LUR(retain="distill", mode="joint", weight=0.3),
    "held-by-both": LUR(retain="both", mode="exact"),
    "lur-nash": LUR(rule="nash"),
    "project": LUR(rule="project", feed="longest"),
    "masked": LUR(where=Salient(0.3)),
    "meta-exact": MetaUnlearning(mode="exact", relearn=2, ahead=1.0),
    "shrink-perturb:lur:recover": method_named("shrink-perturb:lur:recover"),
    "redraw:salun:recover": method_named("redraw:salun:recover"),
    "salun-sequential": SalUn(feed="sequential"),
    "salun-paired": SalUn(feed="paired"),
    "ssd-label-free": SelectiveSynapticDampening(alpha=1.0, importance="label-free"),
    "sa-real": SelectiveAmnesia(replay="real", estimator="batches"),
    "sa-released": SelectiveAmnesia(estimator="released", fisher_times=2),
    "esd-2025": ESD(images="original", erase_from="class", eta=2.0),
    "esd-class": ESD(images="original", erase_from=0),
    "esd-data": ESD(images="data"),
    "erasediff-conflict": EraseDiff(weight=None),
}
CASES = dict(METHODS) | VARIANTS
ONE_SHOT = ("influence", "fisher-forgetting", "ssd", "ssd-label-free")
"""Methods that edit the weights and descend nowhere."""

REFUSED = {
    ("ct", "layernorm"): "convolution kernels, and this model has none",
    ("ct", "language"): "convolution kernels, and this model has none",
}
PROMPTED = [name for name, method in CASES.items() if method.about.families == ("text-to-image",)]
for other in MODEL_KINDS:
    REFUSED |= {(name, other): "is for models of the family text-to-image, found" for name in PROMPTED}
GENERATIVE = [name for name, method in CASES.items() if method.about.families[:1] == ("diffusion",)]
for other in [family for family in MODEL_KINDS if family not in every_family.DENOISERS]:
    found = type(every_family.task(other)).__name__
    REFUSED |= {(name, other): f"is for denoisers .* found {found}" for name in GENERATIVE}
CLASSIFYING = [name for name, method in CASES.items() if method.about.families[:1] == ("classifier",)]
for other in ("language", *every_family.DENOISERS):
    REFUSED |= {
        (name, other): "is for models of the family classifier.*, found"
        for name in CLASSIFYING
        if not CASES[name].about.serves(family_of(every_family.task(other)))
    }
WORKING = [
    (name, family)
    for name, method in CASES.items()
    for family in MODEL_KINDS
    if (name, family) not in REFUSED and method.about.serves(family_of(every_family.task(family)))
]
TWINS = {"batchnorm": "layernorm", "unet": "denoiser", "dit": "denoiser"}
"""Families of one task, by the cheapest: the same numbers are drawn for them, and the same losses taken."""


def has_twin(name: str, family: str, cases: Collection[tuple[str, str]]) -> bool:
    """Whether a case differs from another one only in the layers of its model."""
    return (name, TWINS.get(family)) in cases


def once_a_task(cases: Collection[tuple[str, str]], on_all: Collection[str]) -> list[tuple[str, str]]:
    """The cases without a twin, and those of some names on all families but the slow U-Net."""
    return [
        (name, family)
        for name, family in cases
        if family != "unet" and (name in on_all or not has_twin(name, family, cases))
    ]


FORGETTING = (
    "lur",
    "lur-exact",
    "lur-match",
    "joint",
    "joint-match",
    "meta-unlearning",
    "ascent",
    "random-label",
    "neggrad+",
    "salun",
    "scissorhands",
    "bad-teacher",
    "influence",
    "fcs",
    "ssd",
    "amnesiac",
    "unsir",
    "lur-lagged",
    "first-order",
    "absolute",
    "munba",
    "pcgrad",
    "cagrad",
    "upgrad",
    "sfron",
    "salun-sequential",
    "salun-paired",
    "sa",
    "sa-real",
    "esd",
    "esd-2025",
    "esd-class",
    "esd-data",
    "erasediff",
    "erasediff-conflict",
)
CONTINUING = [n for n, m in METHODS.items() if not isinstance(m, FromScratch | Original)] + [
    "curvature",
    "shrink-perturb:lur:recover",
]


def short(how: Descent, **changes) -> Descent:
    """The same descent over a few steps."""
    return replace(
        how, **{"steps": STEPS, "epochs": None, "batch": 16, "forget_batch": 8, "warmup": 0.0} | changes
    )


def for_two_phases(how: Descent) -> Descent:
    """The same descent, long enough for a second phase that is the shorter one."""
    assert how.steps is not None
    return replace(how, steps=max(how.steps, 3))


def shorten_method(method: M, **changes) -> M:
    """The same method with short descents, those of its proxy and of its stages included."""

    def change(each: object) -> object:
        match each:
            case Descent():
                return short(each, **changes)
            case Sampler():
                return replace(each, steps=3)
            case SelectiveAmnesia():
                return replace(each, per_class=5, fisher_images=6)
            case UNSIR():
                return replace(each, images=6, noise_steps=3, repeats=4)
            case RNI():
                return replace(each, rounds=1)
            case CFW():
                return replace(each, how=for_two_phases(each.how))
            case FCS():
                return replace(each, rounds=1, how=for_two_phases(each.how))
        return each

    return each_within(method, change)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def hooks(model: nn.Module) -> list[dict]:
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
    )
    return [dict(vars(module)[kind]) for module in model.modules() for kind in kinds]


@dataclass
class Outcome:
    """A problem after a method, and what it was before."""

    problem: Problem
    before: dict[str, Tensor]
    kept: tuple[bool, ...]
    after: dict[str, Tensor]
    fired: int


@cache
def outcome(method: Method, family: str) -> Outcome:
    """One short run; a part of the model is in evaluation mode, and a hook of the user's is on it."""
    of = request(method, family)
    model, passes = of.model, [0]
    next(model.children()).eval()
    hook = next(m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)).register_forward_pre_hook(
        lambda module, inputs: passes.__setitem__(0, passes[0] + 1)
    )
    before = snapshot(model)

    def look() -> tuple:
        return (
            [module.training for module in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [value.dtype for value in model.state_dict().values()],
            [p.grad is None for p in model.parameters()],
            hooks(model),
            torch.get_rng_state().tolist(),
            of.split.train.digest(),
        )

    state = look()
    shorten_method(method)(of)
    is_kept = tuple(a == b for a, b in zip(state, look(), strict=True))
    hook.remove()
    return Outcome(of, before, is_kept, snapshot(model), passes[0])


def check_weights_move(name: str, family: str):
    run = outcome(CASES[name], family)
    names = [n for n in run.problem.params if not torch.equal(run.before[n], run.after[n])]
    assert all(bool(value.isfinite().all()) for value in run.after.values() if value.is_floating_point())
    if name == "original":
        assert not names and run.problem.cost.gradients == 0
    elif name in (
        "salun",
        "masked",
        "salun-sequential",
        "salun-paired",
        "cf-k",
        "eu-k",
        "ssd",
        "ssd-label-free",
    ):
        assert names
    else:
        # a bias of all keys alike cancels in the softmax, so that its gradient is zero but for rounding
        idle = {n for n in run.problem.params if n.endswith("to_k.bias")}
        assert [n for n in names if n not in idle] == [n for n in run.problem.params if n not in idle]
        assert run.problem.cost.gradients >= STEPS and run.fired >= STEPS


def check_rest_stays(name: str, family: str):
    run = outcome(CASES[name], family)
    assert run.kept == (True,) * 7, "modes, requires_grad, dtypes, gradients, hooks, global generator, data"
    frozen_names = [n for n, p in run.problem.model.named_parameters() if not p.requires_grad]
    assert all(torch.equal(run.before[n], run.after[n]) for n in frozen_names)
    assert len(frozen_names) == (family == "language")


def check_seed_decides_bits(name: str, family: str):
    run, second = outcome(CASES[name], family), request(CASES[name], family)
    next(second.model.children()).eval()
    shorten_method(CASES[name])(second)
    assert all(torch.equal(value, run.after[n]) for n, value in second.model.state_dict().items())
    assert second.curves == run.problem.curves
    assert (second.cost.gradients, second.cost.examples) == (
        run.problem.cost.gradients,
        run.problem.cost.examples,
    )


ON_UNET = ("lur", "lur-exact", "meta-unlearning", "shrink", "finetune", "salun", "scissorhands", "msg", "ct")
ON_UNET += ("munba", "sfron", "sa", "esd", "erasediff", "retrain")
"""Methods that run on the slow U-Net: with each kind of gradient, mask, redrawing and image. Others differ
from one of these in an objective, a target or a rule, and run on the two other denoisers."""

CONTRACT = (check_weights_move, check_rest_stays, check_seed_decides_bits)
"""What every method keeps on every family that it is for; one run serves all."""


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str, subtests: pytest.Subtests):
    families = [family for case, family in WORKING if case == name]
    assert families or name in PROMPTED, "these have tests of their own"
    for family, check in product(families, CONTRACT):
        # a variant has its method's way with layers
        if (name in VARIANTS or (family == "unet" and name not in ON_UNET)) and has_twin(
            name, family, WORKING
        ):
            continue
        if check is check_seed_decides_bits and name != "finetune" and has_twin(name, family, WORKING):
            continue
        with subtests.test(check.__name__, family=family):
            check(name, family)


@for_each("name", ["finetune", "lur", "salun", "short-retrain", "msg"])
def test_another_seed_gives_other_bits(name: str):
    other = problem("layernorm", seed=1)
    shorten_method(CASES[name])(other)
    assert not torch.equal(
        other.model.state_dict()["0.weight"], outcome(CASES[name], "layernorm").after["0.weight"]
    )


# a generator denoises all classes alike, and gets better at that on the retain rows of a mixed batch
SHARING = [("salun", family) for family in every_family.DENOISERS]
SHARING += [("cagrad", "dit"), ("upgrad", "dit")]  # and where neither is opposed, in shorter steps


RISING = [case for case in WORKING if case[0] in FORGETTING and case not in SHARING]


ON_ALL_LAYERS = ("lur", "ascent", "random-label", "sa", "esd")
"""One of each way to raise a loss: by lookahead, its sign, other targets, importances, the model itself."""


# the U-Net of many layers has a class erased in families/test_diffusion_settings.py
@for_each(("name", "family"), once_a_task(RISING, ON_ALL_LAYERS))
def test_the_forget_loss_rises(name: str, family: str):
    steps = 2 if name == "salun-sequential" else 8  # that many are forget batches
    method = shorten_method(
        CASES[name], lr=0.05, steps=steps, max_norm=1.0, norm="frozen", weight_decay=0.0, momentum=0.0
    )
    match method:
        case LUR():
            method = replace(method, weight=3.0, alpha=0.002)
        case Scissorhands():  # without a redrawing, which raises any loss
            method = replace(method, trim=0.0, forget_weight=3.0)
        case NegGradPlus():
            method = replace(method, retain_weight=0.3)
    # a few examples of every class leave a generator no other condition to turn to
    of = problem(family, whole_class=family in every_family.DENOISERS or name == "unsir")
    before = loss_on(of, of.model, "forget")
    method(of)
    assert loss_on(of, of.model, "forget") > 1.005 * before


@for_each(("name", "family"), REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(name: str, family: str):
    of = problem(family)
    before = snapshot(of.model)
    with pytest.raises(ValueError, match=REFUSED[name, family]):
        shorten_method(CASES[name])(of)
    if name == "ct":
        assert all(torch.equal(value, before[n]) for n, value in of.model.state_dict().items())


@pytest.mark.parametrize("family", ["batchnorm", "layernorm"])
@for_each("name", ["lur", "lur-match", "joint-match", "salun", "scissorhands", "msg", "retrain"])
def test_a_whole_class_can_be_forgotten(name: str, family: str):
    of = problem(family, whole_class=True)
    assert of.split.forgotten_classes == (3,)
    original_accuracy = accuracy(of)
    shorten_method(CASES[name], steps=30)(of)
    assert original_accuracy > 0.9 and accuracy(of) < 0.7


def accuracy(of: Problem) -> float:
    """The fraction of the forget data whose class is still said."""
    output, target = answers(of, of.model, "forget")
    return float((output.argmax(1) == target).double().mean())


# --- masks


def shorten_with_optimizer(how: Descent, optimizer: str) -> Descent:
    return short(how, optimizer=optimizer, momentum=0.9, weight_decay=0.1, lr=0.01)


OPTIMIZERS = ("sgd", "adam", "adamw")
CHEAP = ("layernorm", "language")
"""Families with every combination of settings; in the others each setting is used once."""


def each_once(settings: Sequence[T], family: str) -> list[tuple[T, str]]:
    """Settings with optimizers: all pairs where they are cheap, elsewhere the optimizers in turn."""
    turns = zip(settings, cycle(OPTIMIZERS), strict=False)
    return list(product(settings, OPTIMIZERS) if family in CHEAP else turns)


MODES = ("nested", "lagged", "exact", "joint")


@for_each(("family", "mode", "optimizer"), [(f, *c) for f in MODEL_KINDS for c in each_once(MODES, f)])
def test_only_the_named_weights_move(family: str, mode: str, optimizer: str):
    pattern = {
        "batchnorm": r"downsample|fc\.weight",
        "layernorm": r"^3\.|^4\.",
        "denoiser": r"last",
        "language": r"embed|up\.weight",
        "unet": r"^up_blocks\.0\.attentions|^conv_out",
        "dit": r"attn1|class_embedder",
    }[family]
    method = LUR(mode=mode, alpha=0.001, where=pattern)
    of = problem(family)
    before = snapshot(of.model)
    replace(method, how=shorten_with_optimizer(method.how, optimizer))(of)
    for name, p in of.params.items():
        assert torch.equal(p, before[name]) != bool(re.search(pattern, name)), name


SALIENT = (SalUn(0.3), SalUn(0.3, feed="sequential"), LUR(where=Salient(0.3)))


@for_each(("family", "method", "optimizer"), [(f, *c) for f in MODEL_KINDS for c in each_once(SALIENT, f)])
def test_only_the_salient_fraction_moves(family: str, method: SalUn | LUR, optimizer: str):
    of = problem(family)
    before = snapshot(of.model)
    replace(method, how=shorten_with_optimizer(method.how, optimizer))(of)
    count = sum(int((p != before[name]).sum()) for name, p in of.params.items())
    limit = round(0.3 * sum(p.numel() for p in of.params.values()))
    assert 0.9 * limit < count <= limit


@for_each(
    ("family", "optimizer"), [(f, o) for f in MODEL_KINDS for o in (OPTIMIZERS if f in CHEAP else ("adamw",))]
)
def test_kept_weights_of_msg_stay_where_nothing_is_kept_moving(family: str, optimizer: str):
    of = problem(family)
    before = snapshot(of.model)
    MaskedSmallGradients(
        rate=0.25, kept=0.0, how=shorten_with_optimizer(MaskedSmallGradients().how, optimizer)
    )(of)
    heavy = {id(p) for _, m in of.blocks for p in m.parameters(recurse=False) if p.ndim > 1}
    for name, p in of.params.items():
        count = int((p != before[name]).sum())
        assert count == (round(0.25 * p.numel()) if id(p) in heavy else p.numel()), name


# --- BatchNorm


@for_each(
    "name",
    [
        name
        for name, method in CASES.items()
        if not isinstance(method, FromScratch | EUk) and (name, "batchnorm") not in REFUSED
    ],
)
def test_frozen_norms_keep_their_buffers(name: str):
    of = request(CASES[name], "batchnorm")
    before = {n: b.clone() for n, b in of.model.named_buffers()}
    shorten_method(CASES[name], norm="frozen")(of)
    assert all(torch.equal(b, before[n]) for n, b in of.model.named_buffers())


PASSES = {
    "finetune": 1,
    "shrink": 1,
    "l1-sparse": 1,
    "msg": 1,
    "prmq": 1,
    "rni": 1,
    "scrub": 1,
    "bad-teacher": 1,
    "amnesiac": 1,
    "ct": 1,
    "salun": 1,
    "salun-sequential": 1,
    "lur": 2,
    "lur-exact": 2,
    "joint": 2,
    "lur-match": 2,
    "lur-lagged": 2,
    "curvature": 2,
    "masked": 2,
    "shrink-perturb:lur:recover": 3,
    "redraw:salun:recover": 2,
    "random-label": 2,
    "pcgrad": 2,
    "mgda": 2,
    "cagrad": 2,
    "upgrad": 2,
    "gdr-gma": 2,
    "neggrad+": 2,
    "kde": 2,
    "salun-paired": 2,
    "scissorhands": 2,
    "unsir": 2,
}


@for_each("name", PASSES)
def test_statistics_see_each_batch_once_and_nothing_else(name: str):
    # masks, SNIP, targets, curvatures and a lookahead's second pass look without being seen
    method = shorten_method(CASES[name], steps=2, norm="train")
    of = request(method, "batchnorm")
    method(of)
    norms = [m for m in of.model.modules() if isinstance(m, _BatchNorm)]
    batches = every_family.STEPS["batchnorm"] + 2 * PASSES[name]
    assert [int(m.num_batches_tracked) for m in norms] == [batches] * 3


def test_fresh_weights_come_with_fresh_buffers():
    of = problem("batchnorm")
    shorten_method(FromScratch(), norm="frozen")(of)
    norm = of.model.bn1
    assert int(norm.num_batches_tracked) == 0 and bool((norm.running_mean == 0).all())


# --- what a method says of itself


SETTINGS = (Descent, Proxy, Sampler, Along, Curvature, Ratio, Salient, Restored, *map(type, TARGETS.values()))


def rebuilt(method: Method) -> Method:
    """What the representation of a method says."""
    kinds = (Pipeline, *map(type, (METHODS | STAGES).values()), *SETTINGS)
    return eval(repr(method), {"__builtins__": {}}, {kind.__name__: kind for kind in kinds})


@for_each("name", CASES)
def test_repr_round_trips(name: str):
    method, short_one = CASES[name], shorten_method(CASES[name])
    for each in (method, short_one):
        twin = rebuilt(each)
        assert twin == each and type(twin) is type(each) and hash(twin) == hash(each)
    assert short_one != method or name in (
        "original",
        "influence",
        "fisher-forgetting",
        "ssd",
        "ssd-label-free",
        "uce",
    )


@for_each("name", [*METHODS, *STAGES, "lur:recover"])
def test_a_method_is_a_value_that_says_what_it_is(name: str):
    method = method_named(name)
    assert isinstance(method, Method) and isinstance(method.about, About)
    assert method.about.paper and method.about.data and method.about.step
    with pytest.raises(AttributeError):
        method.about = None


@for_each(
    ("wrong", "near"),
    [
        ("salum", "salun"),
        ("lur-recover", "lur:recover"),
        ("lur-lagged-recover", "lur-lagged:recover"),
        ("shrink-perturb-lur", "shrink-perturb:lur"),
    ],
)
def test_the_registry_names_the_nearest_and_who_lists_the_others(wrong: str, near: str):
    assert method_named("salun") == SalUn()
    expected = rf"^unknown method '{wrong}' \(did you mean '{near}'\?\): `unweave methods` lists them$"
    with pytest.raises(ValueError, match=expected):
        method_named(wrong)


FIRST = dict(reversed(WORKING))
"""A family for each method."""


@for_each(("name", "family"), [(n, FIRST[n]) for n in CONTINUING if n in FIRST])
def test_nan_weights_fail(name: str, family: str):
    of = request(CASES[name], family)
    with torch.no_grad():
        next(iter(of.params.values())).fill_(float("nan"))
    with pytest.raises(Failed, match="loss .* became nan|no longer finite|drawn image is not finite"):
        shorten_method(CASES[name])(of)


@pytest.mark.parametrize("family", MODEL_KINDS)
@for_each("name", ["retrain", "shrink", "lur", "scissorhands"])
def test_tied_and_frozen_weights_stay_so(name: str, family: str):
    of = problem(family)
    shorten_method(CASES[name])(of)
    if family == "language":
        assert of.model.head.weight is of.model.embed.weight
        assert torch.equal(of.model.position.weight, original(family).position.weight)
    assert set(of.params) == {n for n, p in original(family).named_parameters() if p.requires_grad}


def test_a_model_without_trainable_weights_is_refused():
    for name, method in methods.methods_for("classifier").items():
        of = request(method, "layernorm")
        of.model.requires_grad_(False)
        if name != "original":
            with pytest.raises(ValueError, match="no trainable|trainable square convolution"):
                shorten_method(method)(of)


# --- micro-batches and several processes


def in_micro_batches(each: object) -> object:
    return replace(each, micro_batch=5) if isinstance(each, Descent) else each


@for_each(
    ("name", "family"),
    [
        (name, family)
        for name in (
            *(
                "lur",
                "lur-exact",
                "lur-lagged",
                "lur-match",
                "redraw:salun:recover",
                "salun",
                "scissorhands",
                "l1-sparse",
            ),
            *("scrub", "bad-teacher", "cfw", "prmq", "rni", "kde", "fcs", "munba", "cagrad", "amnesiac"),
            *("unsir", "gdr-gma", "sfron", "sa", "esd", "erasediff-conflict"),
        )
        for family in ("layernorm", "language", "denoiser")
        if (name, family) not in REFUSED
    ],
)
def test_micro_batches_equal_whole_ones(name: str, family: str):
    method = shorten_method(CASES[name])
    full, parts = (request(method, family, dtype=torch.float64) for _ in range(2))
    method(full)
    each_within(method, in_micro_batches)(parts)
    for n, value in full.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[n], value, rtol=0, atol=1e-10)
    assert (full.cost.gradients, full.cost.examples) == (parts.cost.gradients, parts.cost.examples)


SHARED = (
    "finetune",
    "lur",
    "lur-exact",
    "lur-lagged",
    "lur-match",
    "shrink-perturb:lur:recover",
    "redraw:salun:recover",
    "neggrad+",
    "l1-sparse",
    "salun",
    "salun-sequential",
    "scissorhands",
    "scrub",
    "bad-teacher",
    "influence",
    "fisher-forgetting",
    "msg",
    "cfw",
    "prmq",
    "rni",
    "kde",
    "ssd",
    "ssd-label-free",
    "amnesiac",
    "unsir",
    "short-retrain",
    "random-label",
    "munba",
    "cagrad",
    "gdr-gma",
    "sfron",
    "sa",
    "sa-released",
    "esd",
    "esd-class",
    "erasediff-conflict",
)


def uneven(method: Method, family: str) -> Method:
    """Batches of odd sizes, so that the shards differ; BatchNorm frozen where there is any."""
    return shorten_method(
        method, batch=15, forget_batch=7, norm="frozen" if family == "batchnorm" else "train"
    )


EVERYWHERE = ("lur", "redraw:salun:recover")
"""What moves all weights, and what moves some fresh ones, is shared in every family; others in one."""

SHARED_RUNS = {
    f"{name}-{family}": (family, uneven(CASES[name], family))
    for name in SHARED
    for family in MODEL_KINDS
    if (name, family) in WORKING
    and (
        name in EVERYWHERE
        or family == "layernorm"
        or (family == "denoiser" and (name, "layernorm") not in WORKING)
    )
}
MATCH = LUR(forget=Match())
SHARED_RUNS |= {f"match-{family}": (family, uneven(MATCH, family)) for family in ("layernorm", "denoiser")}
SHARED_RUNS["lur-single"] = (
    "layernorm",
    replace(uneven(LUR(), "layernorm"), how=short(LUR().how, batch=15, forget_batch=1)),
)
SHARED_RUNS["statistics"] = ("batchnorm", shorten_method(FineTune()))
SHARED_RUNS["statistics of a proxy"] = (
    "batchnorm",
    replace(shorten_method(MATCH), how=short(LUR().how, norm="frozen")),
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return shards.run_shared(SHARED_RUNS, 2, tmp_path_factory.mktemp("shared"))


@for_each("name", SHARED_RUNS)
def test_two_processes_equal_one_and_refuse_batch_statistics_of_shards(name: str, shared):
    if "statistics" in name:
        refusal = "norm='train' normalises by the shard of a process"
        assert all(refusal in results[name] for results in shared)
        return
    (single,) = shards.run({name: SHARED_RUNS[name]}).values()
    assert isinstance(single, dict)
    for results in shared:
        assert isinstance(results[name], dict), results[name]
        for n, value in single.items():
            torch.testing.assert_close(
                results[name][n], value, rtol=0, atol=1e-10, msg=lambda m, n=n: f"{n}: {m}"
            )
