"""LoRA around a method: what it trains, what the original answers, and what it leaves behind."""

import copy
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import every_family
from every_family import answers, split, task
from for_each import for_each
from plain import STILL, recorded, whole
from presets import soon
from unweave import unlearn
from unweave.descent.descend import Descent
from unweave.errors import Failed
from unweave.methods import METHODS, STAGES, Method
from unweave.methods.lora import LoRA
from unweave.methods.lur import LUR
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.methods.simple import FineTune
from unweave.problem import Problem
from unweave.result import Result
from unweave.targets import Match, Mislabel
from unweave.tasks.classifier import Classifier
from unweave.tasks.low_rank import add_low_rank, addition_weights, find_additions, merge
from unweave.tasks.low_rank_layers import find_layers

pytest.importorskip("peft")

HOW = Descent(lr=0.1, steps=4, batch=16, forget_batch=8)
CLASSIFIER = "layernorm"
LAYERS = ["0", "3", "6"]
NOT_FOR_CLASSIFIERS = ("sa", "esd", "erasediff", "uce", "reset-tokens")


def unlearn_toy(method: Method, family: str = CLASSIFIER, **settings) -> Result:
    """The result of unlearning a toy with LoRA."""
    model = copy.deepcopy(every_family.original(family))
    return unlearn(model, split(family), LoRA(method, **settings), task=task(family))


def differing(before: nn.Module, after: nn.Module) -> set[str]:
    """The names of the tensors that differ; both models must have the same, of the same kinds."""
    old, new = before.state_dict(), after.state_dict()
    assert list(old) == list(new)
    assert [type(m) for m in before.modules()] == [type(m) for m in after.modules()]
    return {name for name in old if not torch.equal(old[name], new[name])}


def test_the_first_step_is_that_of_low_rank_matrices():
    of, recorder = recorded()
    plain, method = copy.deepcopy(of.model), whole(FineTune(), weight_decay=0.0, momentum=0.0)
    LoRA(method, rank=2)(of)
    (batch,) = recorder.drawn
    gradients = torch.autograd.grad(
        nn.functional.cross_entropy(plain(*batch.inputs), batch.target), list(plain.parameters())
    )
    params = dict(of.model.named_parameters())
    for (name, p), gradient in zip(plain.named_parameters(), gradients, strict=True):
        layer = name.removesuffix(".weight")
        if layer in LAYERS:  # A stays, and B = -lr gradient A^T
            a = of.additions.state[f"base_model.model.{layer}.lora_A.weight"]
            assert a.shape == (2, p.shape[1])
            p = p - method.how.lr * gradient @ a.T @ a
        torch.testing.assert_close(params[name], p)


@pytest.mark.parametrize(("layers", "names"), [(None, LAYERS), ("^3$", ["3"]), ("[06]", ["0", "6"])], ids=str)
@pytest.mark.parametrize("method", [LUR(how=HOW), LUR(mode="lagged", alpha=0.01, how=HOW)], ids=["3", "2"])
def test_only_the_weights_of_the_layers_move(method: Method, layers: str | None, names: list[str]):
    result = unlearn_toy(method, layers=layers, rank=3)
    assert differing(result.original, result.model) == {f"{name}.weight" for name in names}
    assert list(result.additions.layers) == names and not find_additions(result.model)
    assert all(p.requires_grad for p in result.model.parameters()) and not hasattr(
        result.model, "peft_config"
    )
    difference = result.model.get_parameter(f"{names[0]}.weight") - result.original.get_parameter(
        f"{names[0]}.weight"
    )
    assert torch.linalg.matrix_rank(difference.double(), rtol=1e-5) == min(3, *difference.shape)


@for_each("family", every_family.MODEL_KINDS)
def test_models_of_every_family_take_additions(family: str):
    result = unlearn_toy(LUR(forget=Mislabel(), how=replace(HOW, norm="frozen")), family)
    names = differing(result.original, result.model)
    assert names and names <= {f"{name}.weight" for name in result.additions.layers}


def test_every_mode_and_retain_loss_of_lur_takes_additions():
    for mode, retain in (("exact", "both"), ("joint", "distill"), ("first-order", "nll")):
        result = unlearn_toy(LUR(mode=mode, retain=retain, weight=0.3, how=HOW))
        assert differing(result.original, result.model) == {f"{name}.weight" for name in LAYERS}


def test_peft_loads_the_additions_onto_the_original_bit_for_bit(tmp_path: Path):
    from peft import PeftModel

    result = unlearn_toy(Pipeline(LUR(how=HOW), Recover(how=HOW)), rank=4)
    result.save(tmp_path)
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    peft_model = PeftModel.from_pretrained(copy.deepcopy(result.original), str(tmp_path / "lora"))
    ours = copy.deepcopy(result.original)
    add_low_rank(ours, result.additions.layers, 4, seed=0)
    with torch.no_grad():
        for name, p in addition_weights(ours).items():
            p.copy_(result.additions.state[f"base_model.model.{name}"])
    (raw,) = result.split.train.stream([result.split.retain])
    assert torch.equal(peft_model(*raw.inputs), ours(*raw.inputs))
    assert not torch.equal(peft_model(*raw.inputs), result.original(*raw.inputs))
    assert not differing(peft_model.merge_and_unload(), result.model)


def test_the_original_answers_with_the_additions_off_and_without_a_copy():
    pairs: list[tuple[Tensor, Tensor]] = []
    before = every_family.original(CLASSIFIER)

    def look(problem: Problem) -> None:
        with torch.no_grad():
            for p in problem.params.values():
                p.normal_(generator=problem.generator)
        assert not list(problem.original.parameters()) and problem.with_split(problem.split).original
        now = answers(problem, problem.model, "forget")[0]
        (raw,) = problem.split.train.stream([problem.split.forget])
        assert torch.equal(problem.original(*raw.inputs), before.eval()(*raw.inputs))
        assert torch.equal(answers(problem, problem.model, "forget")[0], now)
        assert all(p.requires_grad for p in problem.params.values())
        pairs.append((now, problem.original(*raw.inputs)))

    result = unlearn_toy(look)
    ((edited, original),) = pairs
    assert not torch.allclose(edited, original)
    torch.testing.assert_close(
        answers(Problem(result.task, result.model, result.split, torch.Generator()), result.model, "forget")[
            0
        ],
        edited,
    )


def test_a_proxy_is_a_whole_model():
    names: list[list[str]] = []

    def look(problem: Problem) -> None:
        model = problem.problem_copy("proxy").model
        names.append([name for name, p in model.named_parameters() if p.requires_grad])
        assert not differing(every_family.original(CLASSIFIER), model)
        FineTune(how=HOW)(problem)

    unlearn_toy(look)
    LoRA(look)(every_family.problem(CLASSIFIER))  # without a caller's model
    expected = [name for name, _ in every_family.original(CLASSIFIER).named_parameters()]
    assert names == [expected, expected]
    result = unlearn_toy(LUR(forget=soon(Match()), how=HOW))
    assert differing(result.original, result.model)


FOR_CLASSIFIERS = {name: each for name, each in (METHODS | STAGES).items() if name not in NOT_FOR_CLASSIFIERS}


@for_each("name", FOR_CLASSIFIERS)
def test_a_method_that_does_more_than_descend_is_refused_and_no_other(name: str):
    method = FOR_CLASSIFIERS[name]
    if method.about.edits or name == "original":
        with pytest.raises(ValueError, match="LoRA .*(leave out LoRA)"):
            LoRA(method)
        with pytest.raises(ValueError, match="LoRA leaves the weights alone|must not be a reference"):
            LoRA(Pipeline(FineTune(), method, names=("finetune", "then")))
        return
    of = every_family.request(method, CLASSIFIER, dtype=torch.float64)
    before = copy.deepcopy(of.model)
    LoRA(soon(method, steps=17, lr=STILL, weight_decay=0.0))(of)  # fcs has 17 phases
    assert not differing(before, of.model), "the method moves weights other than by descent"


def test_only_what_was_trainable_gets_an_addition():
    model = copy.deepcopy(every_family.original(CLASSIFIER))
    model[0].requires_grad_(False)
    result = unlearn(model, split(CLASSIFIER), LoRA(FineTune(how=HOW)), task=task(CLASSIFIER))
    assert list(result.additions.layers) == ["3", "6"]
    frozen_names = {name for name, p in result.model.named_parameters() if not p.requires_grad}
    assert frozen_names == {"0.weight", "0.bias"}


def test_the_same_seed_gives_the_same_bits():
    model, method = every_family.original(CLASSIFIER), LoRA(FineTune(how=HOW))
    first, second, other = (
        unlearn(model, split(CLASSIFIER), method, task=task(CLASSIFIER), seed=seed) for seed in (1, 1, 2)
    )
    assert not differing(first.model, second.model) and differing(first.model, other.model)


def test_additions_to_weights_in_half_precision_are_in_float32():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).bfloat16()
    add_low_rank(model, find_layers(model), 2, seed=0)
    assert {p.dtype for p in addition_weights(model).values()} == {torch.float32}
    assert model(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16
    merge(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


class Shared(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(4, 4)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@for_each(
    ("model", "pattern", "message"),
    [
        (nn.Sequential(nn.Linear(6, 4)), "1", "layer whose name matches '1', found none .* there are 0$"),
        (nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm(4)), None, "with weights are Embedding, LayerNorm$"),
        (Tied(), None, "there are first, second$"),
        (Shared(), None, "there are first$"),
        (encoder(), None, "those of MultiheadAttention and TransformerEncoderLayer being fused$"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), None, "its modules with weights are Conv2d$"),
    ],
)
def test_a_model_without_such_layers_is_refused(model: nn.Module, pattern: str | None, message: str):
    with pytest.raises(ValueError, match=message):
        find_layers(model, pattern)


def test_the_other_layers_of_a_model_with_fused_ones_get_additions():
    assert find_layers(nn.Sequential(nn.Linear(4, 4), encoder(), nn.Linear(4, 2))) == ["0", "2"]


class Counting(nn.Module):
    """Counts its passes in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.layer(x)


def refusals() -> dict[str, tuple[Callable[[], object], str]]:
    norm = every_family.original("batchnorm")
    on_norm = lambda how: unlearn(norm, split("batchnorm"), LoRA(FineTune(how=how)), task=Classifier(4))  # noqa: E731
    return {
        "rank": (lambda: LoRA(LUR(), rank=0), r"rank must be in \[1, inf\), found 0"),
        "pattern": (lambda: LoRA(LUR(), layers="("), "layers"),
        "twice": (lambda: LoRA(LoRA(LUR())), "found LoRA within LoRA"),
        "no method": (lambda: LoRA(LUR), "the method of LoRA must be an object, found the class LUR"),
        "statistics": (lambda: on_norm(HOW), "norm='train' updates BatchNorm's statistics, and LoRA's"),
        "family": (lambda: unlearn_toy(METHODS["esd"]), "is for models of the family"),
        "in itself": (
            lambda: unlearn_toy(lambda of: LoRA(LUR(how=HOW))(of)),
            "needs a model without low-rank additions",
        ),
    }


@for_each("name", refusals())
def test_what_cannot_be_is_refused(name: str):
    call, message = refusals()[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_batchnorm_with_its_statistics_is_taken_and_they_stay():
    result = unlearn_toy(LUR(how=replace(HOW, norm="frozen")), "batchnorm")
    names = differing(result.original, result.model)
    assert names == {f"{name}.weight" for name in ("conv1", "conv2", "downsample.0", "fc")}


def test_a_buffer_that_moves_is_a_failure():
    with pytest.raises(Failed, match="the buffer 'passes' changed"):
        unlearn(Counting(), split(CLASSIFIER), LoRA(FineTune(how=HOW)), task=Classifier(4))


def test_after_an_error_the_model_has_no_additions():
    model, of = every_family.original(CLASSIFIER), every_family.problem(CLASSIFIER)

    def fail(problem: Problem) -> None:
        raise Failed("no more")

    with pytest.raises(Failed, match="no more"):
        LoRA(fail)(of)
    assert not differing(model, of.model) and all(p.requires_grad for p in of.model.parameters())


def test_a_missing_peft_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"need the extra: pip install 'unweave\[lora\]'"):
        unlearn_toy(LUR(how=HOW))


def test_a_lookahead_of_additions_costs_little_memory():
    """What a step copies, gradients, momentum and shifted weights, is as large as the additions."""
    sizes: list[int] = []

    def look(problem: Problem) -> None:
        sizes.append(sum(p.numel() for p in problem.params.values()))
        LUR(how=HOW)(problem)

    unlearn_toy(look, rank=1)
    assert sizes == [sum(math.prod(shape) for shape in ((1, 6 + 16), (1, 16 + 16), (1, 16 + 4)))]
