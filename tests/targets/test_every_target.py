"""What every target owes to every family of models, and to every method that takes one."""

from dataclasses import fields, replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

import every_family
from every_family import MODEL_KINDS, loss_on, problem
from for_each import for_each
from test_methods import (
    STEPS,
    accuracy,
    has_twin,
    once_a_task,
    outcome,
    rebuilt,
    shorten_method,
    snapshot,
)
from unweave.descent.descend import Descent
from unweave.descent.objective import Objective
from unweave.methods import METHODS
from unweave.methods.lur import LUR
from unweave.methods.salun import SalUn
from unweave.problem import Problem
from unweave.targets import TARGETS, Estimate, Level, Match, Quantile, Target
from unweave.targets.estimators.proxy import Proxy
from unweave.tasks import evaluating
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

CASES: dict[str, Target] = {
    **TARGETS,
    "sharpened": Match(sharpen=0.7),
    "shrunk-proxy": Match(Proxy("shrunk")),
    "redrawn-proxy": Match(Proxy("reinitialized")),
    "own-ranks": Quantile("original"),
    "chosen-ranks": Estimate("chosen-ranks"),
    "pool": Estimate("pool"),
    "shards": Estimate("shards"),
    "influence": Estimate("influence"),
}
RAISING = ("bounded", "clamped", "ascent", "mislabel", "surrogate", "away", "ideal", "unseen", "level")
"""Those that say where to go, and not where to end."""

REFUSED = {("surrogate", f): "the task .* draws none" for f in ("batchnorm", "layernorm", "language")}
REFUSED |= {
    (name, f): "needs the task Diffusion"
    for name in ("away", "ideal")
    for f in ("batchnorm", "layernorm", "language")
}
for family in ("language", *every_family.DENOISERS):
    found = type(every_family.task(family)).__name__
    REFUSED |= {("uniform", family): "needs logits of shape"}
    for name, target in CASES.items():
        if isinstance(target, Quantile):
            REFUSED[name, family] = f"margins of a classifier, found the task {found}"
        if isinstance(target, Estimate):
            REFUSED[name, family] = f"a classifier's logits, found the task {found}"
WORKING = [(name, family) for name in CASES for family in MODEL_KINDS if (name, family) not in REFUSED]


def joint(name: str) -> LUR:
    """The plain sum of the retain loss and this target."""
    return LUR(mode="joint", forget=CASES[name])


def check_weights_move(name: str, family: str):
    run = outcome(joint(name), family)
    assert all(bool(value.isfinite().all()) for value in run.after.values() if value.is_floating_point())
    assert any(not torch.equal(run.before[n], run.after[n]) for n in run.problem.params)
    assert run.problem.cost.gradients >= 2 * STEPS
    assert run.kept == (True,) * 7, "modes, requires_grad, dtypes, gradients, hooks, global generator, data"


def check_seed_decides_bits(name: str, family: str):
    run, second = outcome(joint(name), family), problem(family)
    next(second.model.children()).eval()
    shorten_method(joint(name))(second)
    assert all(torch.equal(value, run.after[n]) for n, value in second.model.state_dict().items())
    assert second.curves == run.problem.curves


@pytest.mark.parametrize("name", CASES)
def test_contract(name: str, subtests: pytest.Subtests):
    families = [family for case, family in WORKING if case == name]
    assert families
    for family, check in product(families, (check_weights_move, check_seed_decides_bits)):
        if check is check_seed_decides_bits and name != "mislabel" and has_twin(name, family, WORKING):
            continue
        with subtests.test(check.__name__, family=family):
            check(name, family)


@for_each(("name", "family"), REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(name: str, family: str):
    of = problem(family)
    before = snapshot(of.model)
    with pytest.raises(ValueError, match=REFUSED[name, family]):
        shorten_method(joint(name))(of)
    assert all(torch.equal(value, before[n]) for n, value in of.model.state_dict().items())


def hard(name: str, **changes) -> LUR:
    """Steps that follow little else than the target."""
    how = {"lr": 0.05, "norm": "frozen", "momentum": 0.0, "max_norm": 1.0} | changes
    return replace(shorten_method(joint(name), **how), weight=3.0)


@for_each(("name", "family"), once_a_task([case for case in WORKING if case[0] in RAISING], ("ascent",)))
def test_the_forget_loss_rises(name: str, family: str):
    # a few examples of every class leave a generator no other condition to turn to
    of = problem(family, whole_class=family in every_family.DENOISERS)
    before = loss_on(of, of.model, "forget")
    hard(name, steps=8, weight_decay=0.0)(of)
    assert loss_on(of, of.model, "forget") > 1.005 * before


@torch.no_grad()
def value(objective: Objective, of: Problem) -> float:
    """The objective on all forget data, in evaluation mode."""
    source, ids = of.split.part("forget")
    batch = of.task.draw(next(iter(source.stream([ids]))), torch.Generator().manual_seed(5))
    with evaluating(of.model):
        step = Step(of.params, Runtime(of.model, of.task), {"forget": [batch]}, {"forget": len(batch)})
        return sum(float(loss) for loss in objective.losses(step))


@for_each(("name", "family"), once_a_task([case for case in WORKING if case[0] not in RAISING], ("match",)))
def test_the_forget_outputs_come_nearer_to_it(name: str, family: str):
    method, of = hard(name, steps=10), problem(family)
    target = method.forget(problem(family), method.how)  # the seed alone decides the proxy
    before = value(target, of)
    method(of)
    assert value(target, of) < 0.85 * before


@for_each("name", [name for name, family in WORKING if family == "batchnorm"])
def test_statistics_see_each_batch_once_and_not_what_a_target_looks_at(name: str):
    of = problem("batchnorm")
    shorten_method(joint(name), norm="train")(of)
    assert int(of.model.bn1.num_batches_tracked) == every_family.STEPS["batchnorm"] + 2 * STEPS
    of = problem("batchnorm")
    before = {n: b.clone() for n, b in of.model.named_buffers()}
    shorten_method(joint(name), norm="frozen")(of)
    assert all(torch.equal(b, before[n]) for n, b in of.model.named_buffers())


@pytest.mark.parametrize("name", ["match", "quantile", "redrawn-proxy", "estimate"])
@for_each("family", ["batchnorm", "layernorm"])
def test_a_shared_memory_changes_neither_bits_nor_cost(name: str, family: str):
    single, method = outcome(joint(name), family), shorten_method(joint(name))
    first, second = problem(family), problem(family)
    assert isinstance(method.forget, Match | Quantile | Estimate)
    method.forget.proxy(first)  # another method has made the proxy, at another moment of its own run
    second.memory = first.memory
    next(second.model.children()).eval()
    next(first.model.children()).eval()
    method(second)
    assert all(torch.equal(value, single.after[n]) for n, value in second.model.state_dict().items())
    assert second.cost.gradients == single.problem.cost.gradients
    assert second.cost.examples == single.problem.cost.examples
    ((_, cost),) = first.memory.values()
    assert second.cost.seconds >= cost.seconds > 0 and len(second.memory) == 1


def test_a_seed_takes_no_proxy_of_another():
    first, second = problem("layernorm"), problem("layernorm", seed=1)
    second.memory = first.memory
    proxy = Proxy(how=Descent(lr=0.1, steps=STEPS, batch=16))
    assert proxy(first) is proxy(first) and proxy(second) is not proxy(first)
    assert replace(proxy, amount=0.2)(first) is not proxy(first)
    assert len(first.memory) == 3


@pytest.mark.parametrize("family", ["batchnorm", "layernorm"])
@for_each("name", ["match", "quantile", "estimate", "uniform", "clamped", "unseen"])
def test_a_whole_class_can_be_forgotten(name: str, family: str):
    of = problem(family, whole_class=True)
    original_accuracy = accuracy(of)
    shorten_method(joint(name), steps=30)(of)
    assert original_accuracy > 0.9 and accuracy(of) < 0.7


def test_own_ranks_of_a_whole_class_are_refused():
    with pytest.raises(ValueError, match=r"the original knows the forgotten classes \(3,\)"):
        shorten_method(joint("own-ranks"))(problem("layernorm", whole_class=True))


@for_each("name", CASES)
def test_repr_round_trips(name: str):
    twin = rebuilt(joint(name))
    assert twin == joint(name) and hash(twin) == hash(joint(name))


# --- every method with a forget loss takes every target

TAKING = [
    name
    for name, method in METHODS.items()
    if method.about.serves("classifier") and "forget" in {field.name for field in fields(method)}
]


def taking(name: str, target: Target):
    """The method with that forget loss; SalUn in a feed that keeps the two parts of the data apart."""
    method = METHODS[name]
    method = replace(method, feed="paired") if isinstance(method, SalUn) else method
    return shorten_method(replace(method, forget=target))


def test_methods_that_take_a_target_are_more_than_one():
    assert {"lur", "neggrad+", "ascent", "random-label", "salun", "scissorhands", "munba"} <= {*TAKING}


@cache
def run_method(name: str, target: str) -> tuple[Tensor, frozenset[str]]:
    """The first weights after the method with that target, and the names of its curves."""
    of = problem("layernorm")
    taking(name, TARGETS[target])(of)
    return of.model.state_dict()["0.weight"], frozenset(of.curves)


@for_each(("name", "target"), product(TAKING, sorted(TARGETS.keys() - {"surrogate", "away", "ideal"})))
def test_a_method_follows_the_target_that_it_is_given(name: str, target: str):
    weights, curves = run_method(name, target)
    curve = {"ascent": "nll", "estimate": "match"}.get(target, target)
    assert any(key.startswith(f"{curve}(forget)") for key in curves)
    usual, _ = run_method(name, "uniform" if target == "mislabel" else "mislabel")
    assert not torch.equal(weights, usual)


@for_each("name", TAKING)
def test_a_method_measures_the_level_anew_as_often_as_the_target_says(name: str):
    seldom, often = problem("layernorm"), problem("layernorm")
    for of, refresh in ((seldom, 100), (often, 1)):
        taking(name, Level(refresh))(of)
    assert seldom.cost.gradients == often.cost.gradients
    assert seldom.cost.examples < often.cost.examples


def test_salun_keeps_to_its_own_loss_where_the_data_is_concatenated():
    with pytest.raises(
        ValueError, match=r"forget must be Mislabel\(\) where the data is concatenated, found"
    ):
        SalUn(forget=Level())
