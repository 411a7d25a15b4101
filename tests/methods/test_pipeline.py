"""Pipelines: stages in order, over one original and under one budget."""

import copy
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from every_family import loss_on, problem
from for_each import for_each
from plain import Scaled, moved_apart
from test_methods import rebuilt, shorten_method
from unweave.descent.descend import Descent
from unweave.methods import METHODS, STAGES, Method, method_named
from unweave.methods.about import About, refuse_no_method
from unweave.methods.erasediff import EraseDiff
from unweave.methods.esd import ESD
from unweave.methods.lur import LUR
from unweave.methods.pipeline import FORGETTING, Pipeline, Stage
from unweave.methods.recover import Recover, Restored
from unweave.methods.salun import SalUn
from unweave.methods.simple import FineTune, FromScratch, NegGradPlus, Original
from unweave.methods.starts import Fresh, Redraw, ShrinkPerturb
from unweave.methods.unfit_targets import refuse_unfit_targets
from unweave.methods.unsir import UNSIR
from unweave.problem import Problem
from unweave.space import Rest, prefix_paths
from unweave.targets import Match, Surrogate
from unweave.targets.estimators.proxy import Proxy

HOW = Descent(lr=0.05, steps=3, batch=16, forget_batch=8)
LATER = Recover(until=None, how=HOW)


def state(of: Problem) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.model.state_dict().items()}


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


@dataclass
class Watcher:
    """A stage of a user's own: adds to all weights, and remembers what it was given."""

    by: float
    seen: list[tuple[float, dict[str, Tensor], nn.Module]] = field(default_factory=list)

    def __call__(self, problem: Problem) -> None:
        self.seen.append((self.by, state(problem), problem.original))
        with torch.no_grad():
            for p in problem.params.values():
                p.add_(self.by)


def test_stages_run_in_order_and_each_sees_what_the_one_before_left():
    of = problem("layernorm", dtype=torch.float64)
    before, watchers = state(of), [Watcher(1.0), Watcher(2.0)]
    Pipeline(*watchers, names=("one", "two"))(of)
    ((_, first, original),), ((_, second, second_original),) = (each.seen for each in watchers)
    assert same_weights(first, before) and original is second_original is of.original
    for name in of.params:
        assert torch.equal(second[name], before[name] + 1.0)
        assert torch.equal(of.params[name].detach(), before[name] + 1.0 + 2.0)
        assert torch.equal(original.get_parameter(name), before[name])


STAGE_OF_ITS_OWN = [LUR(how=HOW), SalUn(how=HOW), ShrinkPerturb(), Redraw(0.2), Fresh(), LATER, FineTune(HOW)]


@pytest.mark.parametrize("stage", STAGE_OF_ITS_OWN, ids=lambda each: type(each).__name__)
def test_a_pipeline_of_one_stage_is_that_stage_bit_for_bit(stage: Method):
    single, staged = problem("batchnorm"), problem("batchnorm")
    stage(single)
    Pipeline(stage)(staged)
    assert same_weights(state(single), state(staged)) and single.curves == staged.curves
    assert (single.cost.gradients, single.cost.examples) == (staged.cost.gradients, staged.cost.examples)


def test_a_pipeline_is_its_stages_by_hand():
    of, by_hand = problem("batchnorm"), problem("batchnorm")
    stages = ShrinkPerturb(0.7), NegGradPlus(how=HOW), LATER
    Pipeline(*stages)(of)
    for stage in stages:
        stage(by_hand)
    assert same_weights(state(of), state(by_hand))


# --- the original


def test_a_proxy_after_a_start_is_made_of_the_originals_weights(monkeypatch: pytest.MonkeyPatch):
    proxy_recipe = Proxy("shrunk", 0.5, Descent(lr=1e-300, steps=1, momentum=0.0))
    proxies: list[nn.Module] = []

    def watched(self: Proxy, problem: Problem) -> nn.Module:
        proxies.append(problem.remember(repr(self), self.train))
        return proxies[-1]

    monkeypatch.setattr(Proxy, "__call__", watched)
    of = problem("layernorm", dtype=torch.float64)
    before = state(of)
    Pipeline(ShrinkPerturb(0.3), LUR(mode="joint", forget=Match(proxy_recipe), how=HOW))(of)
    (proxy,) = proxies
    heavy = {name for name, p in of.params.items() if name.split(".")[0] in ("0", "3", "6")}
    for name, p in proxy.named_parameters():
        assert torch.equal(p, before[name] * (0.5 if name in heavy else 1.0)), name


def test_the_teacher_of_salun_after_a_start_is_the_original():
    answers: list[nn.Module] = []

    class Listening(type(problem("denoiser").task)):
        """Remembers what the asked model answers."""

        def mislabel(self, batch, predict):
            answers.append(predict(batch.inputs))
            inputs.append(batch.inputs)
            return super().mislabel(batch, predict)

    inputs: list = []
    of = problem("denoiser")
    original, task = copy.deepcopy(of.model).eval(), of.task
    of.task = Listening(**vars(task))
    Pipeline(Fresh(), SalUn(how=HOW))(of)
    assert answers
    with torch.no_grad():
        for answer, batch in zip(answers, inputs, strict=True):
            assert torch.equal(answer, original(**batch))


def test_what_holds_retain_data_after_a_start_is_the_original():
    of = problem("layernorm")
    original_loss, fresh_loss = loss_on(of, of.model, "retain"), loss_on(of, of.fresh_model(), "retain")
    method = LUR(retain="distill", weight=0.3, alpha=0.1, how=replace(HOW, steps=200))
    Pipeline(Fresh(), method)(of)
    assert abs(loss_on(of, of.model, "retain") - original_loss) < 0.5 * abs(fresh_loss - original_loss)


# --- the budget


PROXIED = LUR(forget=Match(Proxy(how=HOW)), how=HOW)


@pytest.mark.parametrize("until", [None, Restored(1e-6)])
@pytest.mark.parametrize(
    "before",
    [
        (PROXIED,),
        (ShrinkPerturb(), NegGradPlus(how=HOW)),
        (Redraw(), SalUn(how=HOW)),
        (LUR("exact", how=HOW),),
    ],
    ids=lambda stages: ":".join(type(each).__name__ for each in stages),
)
def test_a_recovery_ends_the_run_at_its_budget(before: tuple[Stage, ...], until: Restored | None):
    of = problem("layernorm")
    Pipeline(*before, Recover(until, budget=40, how=HOW))(of)
    earlier_run = problem("layernorm")
    Pipeline(*before)(earlier_run)
    assert 0 < earlier_run.cost.gradients < 40 == of.cost.gradients


def test_a_shared_proxy_counts_as_if_it_had_been_made():
    first, second = problem("layernorm"), problem("layernorm")
    second.memory = first.memory
    run = Pipeline(PROXIED, Recover(None, budget=40, how=HOW))
    for of in (first, second):
        run(of)
    assert first.cost.gradients == second.cost.gradients == 40
    assert moved_apart(first.model, second.model) == 0


# --- what is refused, before anything is computed


@for_each(
    ("stages", "message"),
    [
        ((), "a pipeline needs at least one stage, found none"),
        (
            (Original(), LATER),
            "a stage of a pipeline must not be a reference, found 'original': leave it out",
        ),
        ((LUR(), FromScratch()), "a stage of a pipeline must not be a reference, found 'fromscratch'"),
        ((LATER, LUR(), LATER), "need different names, found recover, lur, recover"),
        ((LUR(), LUR("joint")), "need different names, found lur, lur"),
    ],
)
def test_what_makes_no_pipeline_is_refused(stages: tuple[Stage, ...], message: str):
    with pytest.raises(ValueError, match=message):
        Pipeline(*stages)


@for_each("name", ["original:lur", "lur:retrain", "short-retrain:recover", "lur:recover:recover"])
def test_so_it_is_by_name(name: str):
    with pytest.raises(ValueError, match="must not be a reference|need different names"):
        method_named(name)


def test_names_make_two_stages_of_one_kind_apart():
    two = Pipeline(LUR(), LUR("joint"), names=("first", "then"))
    assert two.names == ("first", "then")


@pytest.mark.parametrize(
    ("family", "stage", "families"),
    [
        ("layernorm", ESD(), "diffusion or text-to-image, found classifier"),
        ("denoiser", UNSIR(), "classifier, found diffusion"),
    ],
)
def test_a_stage_for_another_family_is_refused_before_the_first_one_runs(
    family: str, stage: Stage, families: str
):
    of, watcher = problem(family), Watcher(1.0)
    with pytest.raises(ValueError, match=f"is for models of the family {families}"):
        Pipeline(watcher, stage)(of)
    assert not watcher.seen and of.cost.gradients == 0


def test_a_pipeline_is_for_the_families_that_all_its_stages_are_for():
    assert Pipeline(LUR(), LATER).about.families == ()
    assert Pipeline(Redraw(), EraseDiff()).about.families == ("diffusion", "text-to-image")
    assert not Pipeline(EraseDiff(), LATER).about.serves("classifier")
    with pytest.raises(ValueError, match="'erasediff' is for models of the family diffusion"):
        method_named("erasediff:recover", "classifier")


def test_stages_that_share_no_family_are_refused():
    with pytest.raises(
        ValueError, match="one family of models, found diffusion or text-to-image, and classifier"
    ):
        Pipeline(ESD(), UNSIR())


# --- names, representations and settings


def test_a_name_holds_the_names_of_its_stages():
    assert method_named("lur:recover") == Pipeline(LUR(), Recover())
    assert method_named("shrink-perturb:lur:recover").names == ("shrink-perturb", "lur", "recover")
    assert not any(":" in name for name in (METHODS | STAGES))
    mine = LUR(weight=0.7)
    assert method_named("lur:recover", among={"lur": mine}) == Pipeline(mine, Recover())
    assert method_named("recover") == Recover() and method_named("fresh") == Fresh()


@for_each(
    ("name", "wrong", "near"),
    [
        ("lurr:recover", "lurr", "lur"),
        ("lur:recoverr", "recoverr", "recover"),
        ("shrink-pertrub:lur", "shrink-pertrub", "shrink-perturb"),
    ],
)
def test_an_unknown_stage_names_the_nearest(name: str, wrong: str, near: str):
    with pytest.raises(ValueError, match=rf"unknown method {wrong!r} \(did you mean {near!r}\?\)"):
        method_named(name)


@for_each("name", ["lur:", ":lur", "lur::recover", ":"])
def test_a_stage_without_a_name_is_refused(name: str):
    with pytest.raises(ValueError, match=f"a pipeline is names joined by ':', .* found {name!r}"):
        method_named(name)


@for_each("name", ["lur:recover", "shrink-perturb:lur-match:recover", "redraw:salun", "fresh:recover"])
def test_repr_round_trips_and_says_every_stage(name: str):
    for method in (method_named(name), shorten_method(method_named(name))):
        assert isinstance(method, Pipeline)
        assert rebuilt(method) == method and hash(rebuilt(method)) == hash(method)
        assert repr(method) == f"Pipeline({', '.join(map(repr, method.stages))})"


def test_it_says_what_its_stages_say_in_order():
    about = method_named("redraw:lur:recover").about
    stages = [STAGES["redraw"], METHODS["lur"], STAGES["recover"]]
    assert about.step == "; then ".join(each.about.step for each in stages)
    assert about.paper == "; then ".join(each.about.paper for each in stages)


def test_a_search_of_it_searches_its_stages_under_their_names_and_one_budget():
    pipeline = method_named("shrink-perturb:lur:recover")
    assert isinstance(pipeline, Pipeline)
    space, before = pipeline.space(100), round(FORGETTING * 100)
    start, lur, recover = pipeline.stages
    assert isinstance(start, ShrinkPerturb) and isinstance(lur, LUR) and isinstance(recover, Recover)
    assert space == {
        **prefix_paths("shrink-perturb", start.space(before)),
        **prefix_paths("lur", lur.space(before)),
        **prefix_paths("recover", recover.space(100)),
    }
    assert space["recover.budget"].values == (100,)
    assert method_named("redraw:lur").space(100) == {
        **prefix_paths("redraw", Redraw().space(100)),
        **prefix_paths("lur", LUR().space(100)),
    }
    assert Pipeline(Fresh()).space(100) == {}


def test_stages_that_take_steps_share_a_budget():
    two = method_named("neggrad+:finetune").space(100)
    assert two == {
        **prefix_paths("neggrad+", NegGradPlus().space(50)),
        **prefix_paths("finetune", FineTune().space(50)),
    }
    three = method_named("lur:salun:recover").space(100)
    share = round(FORGETTING * 100) // 2
    assert three["lur.how.steps"] == LUR().space(share)["how.steps"]
    assert three["salun.how.steps"] == SalUn().space(share)["how.steps"]
    assert three["recover.budget"].values == (100,)
    early = Pipeline(LUR(), Recover(), SalUn()).space(90)
    assert early["recover.budget"].values == (60,)  # with those of the stage before
    assert early["salun.how.steps"] == SalUn().space(30)["how.steps"]
    after = Pipeline(LUR(), Recover(), Fresh()).space(100)
    assert after == method_named("lur:recover").space(100)


def test_a_later_stage_that_can_not_draw_fresh_weights_is_refused_before_the_first_runs():
    of, watcher = problem("layernorm"), Watcher(1.0)
    of.model = nn.Sequential(nn.Linear(6, 6), Scaled(), nn.Linear(6, 4))
    for later in (Fresh(), ShrinkPerturb(), Pipeline(Fresh())):
        with pytest.raises(ValueError, match="module '1' has weights but no reset_parameters"):
            Pipeline(watcher, later)(of)
    assert not watcher.seen


def test_a_target_of_another_family_is_found_in_a_pipeline_in_a_pipeline():
    inner = Pipeline(LUR(forget=Surrogate()))
    with pytest.raises(ValueError, match="surrogate"):
        refuse_unfit_targets(Pipeline(Fresh(), inner), "classifier", "mine")


@pytest.mark.parametrize("names", [["a:b"], ["c.d"], [""], []])
def test_a_name_of_a_stage_that_can_not_be_written_is_refused(names: list[str]):
    with pytest.raises(ValueError, match="the name of a stage must not|expected 1 names of stages, found 0"):
        Pipeline(LUR(), names=names)


def test_what_is_left_of_a_total_is_told_by_paths_under_the_stage():
    @dataclass(frozen=True)
    class Rested:
        about: ClassVar[About] = About("ours", "none", "0")

        def space(self, budget: int) -> dict:
            return {"last": Rest(budget, {"how.steps": 2})}

        def __call__(self, problem: Problem) -> None:
            """Nothing."""

    space = Pipeline(Rested()).space(30)
    assert space == {"rested.last": Rest(30, {"rested.how.steps": 2})}


def test_a_function_of_a_user_is_a_stage():
    def forget_nothing(problem: Problem) -> None:
        """Leaves the model as it is."""

    of, twin = problem("layernorm"), problem("layernorm")
    Pipeline(forget_nothing, LATER, names=("mine", "recover"))(of)
    LATER(twin)
    assert same_weights(state(of), state(twin))


@for_each(
    ("stages", "names", "message"),
    [
        ([LUR], None, "a stage of a pipeline must be an object, found the class LUR: call it first"),
        ([LUR()], ["lur", "recover"], "expected 1 names of stages, found 2: lur, recover"),
        ([LUR(), LUR()], None, "need different names, found lur, lur: in Python, give names="),
    ],
)
def test_what_is_no_pipeline_is_refused_at_once(stages, names, message) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(*stages, names=names)


@pytest.mark.parametrize("stage", ["lur", [LUR(), Recover()]])
def test_what_can_not_be_called_is_no_stage(stage) -> None:
    with pytest.raises(ValueError, match="a stage of a pipeline must be a method such as LUR.., found "):
        refuse_no_method(stage, "a stage of a pipeline")
