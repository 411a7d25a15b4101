"""Each method's first steps against arithmetic written out in plain torch, in float64."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from every_family import Toy, answers, problem
from for_each import for_each
from plain import Recorder, Sgd, batches, ce, clip, dot, grad, moved_apart, recorded, start_of, weights, whole
from unweave.descent.batches import step_batches
from unweave.descent.descend import Descent, Phase
from unweave.descent.edit import restart
from unweave.descent.objective import nll
from unweave.methods.ct import ConvolutionTranspose
from unweave.methods.msg import MaskedSmallGradients, kaiming
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.scrub import SCRUB, softened_divergence
from unweave.methods.simple import (
    FineTune,
    FromScratch,
    GradientAscent,
    L1Sparse,
    NegGradPlus,
    RandomLabel,
    Shrink,
)
from unweave.methods.ssd import SelectiveSynapticDampening
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.tasks import Batch
from unweave.tasks.classifier import Classifier
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

TIGHT = 1e-12


def fresh(family: str = "layernorm") -> Problem:
    return recorded(family)[0]


def retain_steps(of: Problem, recorder: Recorder, plain: nn.Module, how: Descent) -> None:
    """The last steps that the recorder saw, of plain training on retain data."""
    sgd = Sgd(plain, how)
    for batch in recorder.drawn[-(how.steps or 0) :]:
        assert sorted(batch.ids.tolist()) == of.split.retain.tolist()
        sgd.step(grad(plain, ce(plain, batch)))


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_finetune(family: str):
    of, recorder = recorded(family)
    plain, method = copy.deepcopy(of.model).train(), whole(FineTune(), steps=3)
    method(of)
    retain_steps(of, recorder, plain, method.how)
    assert moved_apart(of.model, plain) < TIGHT  # running statistics too


def test_ascent_leaves_the_statistics_alone():
    of, recorder = recorded("batchnorm")
    plain, method = (
        copy.deepcopy(of.model).eval(),
        whole(GradientAscent(), steps=2, max_norm=1.0, momentum=0.9),
    )
    method(of)
    sgd = Sgd(plain, method.how)
    for batch in recorder.drawn:
        assert sorted(batch.ids.tolist()) == of.split.forget.tolist()
        sgd.step(clip(grad(plain, -ce(plain, batch)), 1.0))
    assert moved_apart(of.model, plain) < TIGHT


def test_random_label():
    of, recorder = recorded()
    plain, method = copy.deepcopy(of.model), whole(RandomLabel(retain_weight=0.7), steps=2)
    method(of)
    sgd = Sgd(plain, method.how)
    for f, r in zip(*batches(of, recorder, method.how), strict=True):
        sgd.step(grad(plain, ce(plain, f, f.other) + 0.7 * ce(plain, r)))
    assert moved_apart(of.model, plain) < TIGHT


def test_neggrad_plus():
    of, recorder = recorded()
    plain, method = copy.deepcopy(of.model), whole(NegGradPlus(retain_weight=0.6), steps=2, max_norm=1.0)
    method(of)
    sgd = Sgd(plain, method.how)
    for f, r in zip(*batches(of, recorder, method.how), strict=True):
        sgd.step(clip(grad(plain, 0.6 * ce(plain, r) - 0.4 * ce(plain, f)), 1.0))
    assert moved_apart(of.model, plain) < TIGHT


def test_l1_sparse_fades():
    of, recorder = recorded()
    plain, method = copy.deepcopy(of.model), whole(L1Sparse(penalty=0.02), steps=4)
    method(of)
    sgd = Sgd(plain, method.how)
    for progress, batch in zip((0.0, 0.25, 0.5, 0.75), recorder.drawn, strict=True):
        signs = [0.02 * (1 - progress) * p.detach().sign() for p in weights(plain)]
        sgd.step([g + s for g, s in zip(grad(plain, ce(plain, batch)), signs, strict=True)])
    assert moved_apart(of.model, plain) < TIGHT


def test_shrink_leaves_normalisations():
    of, recorder = recorded("batchnorm")
    plain, method = copy.deepcopy(of.model).train(), whole(Shrink(factor=0.4), steps=2)
    method(of)
    with torch.no_grad():
        for p in (
            plain.conv1.weight,
            plain.conv2.weight,
            plain.downsample[0].weight,
            plain.fc.weight,
            plain.fc.bias,
        ):
            p.mul_(0.4)
    retain_steps(of, recorder, plain, method.how)
    assert moved_apart(of.model, plain) < TIGHT


def test_shrink_shrinks_tied_weights_once():
    of = problem("language")
    before = of.model.embed.weight.clone()
    start = start_of(lambda: of, Shrink(factor=0.5))
    assert torch.equal(start.head.weight, 0.5 * before)


def test_from_scratch_forgets_the_original():
    of, recorder = recorded("batchnorm")
    plain, method = fresh("batchnorm"), whole(FromScratch(), steps=2)
    with torch.no_grad():
        for value in of.model.state_dict().values():
            value.mul_(3)  # another original
    method(of)
    restart(plain)
    retain_steps(of, recorder, plain.model.train(), method.how)
    assert moved_apart(of.model, plain.model) < TIGHT
    old = fresh("batchnorm").model  # some code calls a new head on old features a retrained model
    pairs = [(p, q) for p, q in zip(weights(plain.model), weights(old), strict=True) if p.ndim > 1]
    assert len(pairs) == 4 and not any(bool((p == q).any()) for p, q in pairs)


def test_transpose():
    of, recorder = recorded("batchnorm")
    plain, method = copy.deepcopy(of.model).train(), whole(ConvolutionTranspose(), steps=2)
    method(of)
    with torch.no_grad():
        for kernel in (plain.conv1.weight, plain.conv2.weight):
            for o in range(kernel.shape[0]):
                for i in range(kernel.shape[1]):
                    kernel[o, i] = kernel[o, i].t().clone()
    retain_steps(of, recorder, plain, method.how)
    assert moved_apart(of.model, plain) < TIGHT


# --- SalUn


def saliency(plain: nn.Module, of: Problem) -> list[Tensor]:
    """The size of the gradient over all forget data, as it is."""
    source, ids = of.split.part("forget")
    raw = next(iter(source.stream([ids])))
    return [g.abs() for g in grad(plain, F.cross_entropy(plain(raw.inputs[0]), raw.label))]


def highest(scores: list[Tensor], count: int) -> list[Tensor]:
    """Marks the highest scores over all tensors."""
    threshold = torch.cat([s.flatten() for s in scores]).sort(descending=True).values[count - 1]
    return [s >= threshold for s in scores]


@pytest.mark.parametrize("feed", ["concatenated", "paired"])
def test_salun(feed: str):
    of, recorder = recorded()
    plain = copy.deepcopy(of.model)
    method = whole(SalUn(fraction=0.3, feed=feed), steps=3)
    count = round(0.3 * sum(p.numel() for p in weights(plain)))
    mask, start = highest(saliency(plain, of), count), [p.detach().clone() for p in weights(plain)]
    assert sum(int(m.sum()) for m in mask) == count
    method(of)
    sgd = Sgd(plain, method.how)
    for step in range(3):
        if feed == "paired":
            f, r = (part[step] for part in batches(of, recorder, method.how))
            loss = ce(plain, f, f.other) + ce(plain, r)
        else:
            batch = recorder.drawn[-3 + step]
            assert len(batch) == 60
            loss = ce(plain, batch, torch.where(of.split.is_forget[batch.ids], batch.other, batch.target))
        sgd.step([g * m for g, m in zip(grad(plain, loss), mask, strict=True)])
        with torch.no_grad():
            for p, m, first in zip(weights(plain), mask, start, strict=True):
                p.copy_(torch.where(m, p, first))
            sgd.velocity = [v * m for v, m in zip(sgd.velocity, mask, strict=True)]
    assert moved_apart(of.model, plain) < TIGHT
    for p, m, first in zip(weights(of.model), mask, start, strict=True):
        assert torch.equal(p[~m], first[~m]) and bool((p[m] != first[m]).all())


def test_salun_one_after_the_other():
    of, recorder = recorded()
    plain, method = (
        copy.deepcopy(of.model),
        whole(SalUn(fraction=1.0, feed="sequential", retain_weight=0.5), steps=2),
    )
    method(of)
    (f,), (r,) = batches(of, recorder, whole(method, steps=1).how)
    sgd = Sgd(plain, method.how)
    sgd.step(grad(plain, ce(plain, f, f.other)))
    sgd.step(grad(plain, 0.5 * ce(plain, r)))
    assert moved_apart(of.model, plain) < TIGHT


# --- Scissorhands


def test_scissorhands_redraws_by_snip():
    of = fresh()
    last = [of.model[6].weight, of.model[6].bias]
    before = [p.detach().clone() for p in last]
    scores = [s * p.detach().abs() for s, p in zip(saliency(of.model, of)[-2:], last, strict=True)]
    count = round(0.25 * sum(p.numel() for p in last))
    expected = highest(scores, count)
    start = start_of(fresh, Scissorhands(trim=0.25))
    after = [start[6].weight, start[6].bias]
    assert [(a != b).tolist() for a, b in zip(after, before, strict=True)] == [e.tolist() for e in expected]
    assert sum(int(e.sum()) for e in expected) == count
    # U(-1/sqrt(fan_in), 1/sqrt(fan_in))
    assert float(after[0].detach()[expected[0]].abs().max()) < 1 / math.sqrt(16)
    assert bool((after[1][expected[1]] == 0).all())
    other_params = [(n, p) for n, p in start.named_parameters() if not n.startswith("6.")]
    assert all(torch.equal(p, of.params[n]) for n, p in other_params)


def test_scissorhands_repairs_within_the_cone():
    of, recorder = recorded()
    method = whole(Scissorhands(trim=0.5, forget_weight=0.05), steps=None, epochs=2, batch=24)
    plain = start_of(fresh, method)
    method(of)
    steps = [[]]
    for batch in recorder.drawn[-6:]:  # two epochs of both, then retain alone
        steps[-1].append(batch)
        if len(steps[-1]) == (2 if len(steps) % 2 else 1):
            steps.append([])
    sgd, memory, projections = Sgd(plain, method.how), [], 0
    forget = set(of.split.forget.tolist())
    for step in steps[:-1]:
        by_part = {set(b.ids.tolist()) <= forget: b for b in step}
        g = grad(plain, ce(plain, by_part[False]))
        if True in by_part:
            g_f = grad(plain, ce(plain, by_part[True]))
            memory = [-x for x in g_f]  # anew in each epoch
            g = [x - 0.05 * y for x, y in zip(g, g_f, strict=True)]
            if dot(g, memory) < 0:
                v = max(0.5, -dot(g, memory) / (dot(memory, memory) + 1e-3))
                g, projections = [x + v * m for x, m in zip(g, memory, strict=True)], projections + 1
        sgd.step(g)
    assert [len(s) for s in steps] == [2, 1, 2, 1, 0] and projections
    assert moved_apart(of.model, plain) < TIGHT


# --- SCRUB


def softened_apart(output: Tensor, teacher_output: Tensor, t: float) -> Tensor:
    """The divergence of distillation, by torch's own loss."""
    heard, target = (output / t).log_softmax(-1), (teacher_output / t).softmax(-1)
    return t * t * F.kl_div(heard, target, reduction="batchmean")


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_scrub(family: str):
    of, recorder = recorded(family)
    plain = copy.deepcopy(of.model).train()
    method = whole(SCRUB(retain_weight=0.8, distill_weight=0.3, temperature=2.0), steps=None, epochs=3)
    method(of)
    sgd, teacher = Sgd(plain, method.how), copy.deepcopy(plain).eval()
    forgets = [bool(of.split.is_forget[batch.ids].all()) for batch in recorder.drawn]
    assert forgets == [True, False, True, False, False]
    for batch, forget in zip(recorder.drawn, forgets, strict=True):
        (x,) = batch.inputs
        output = plain(x)
        divergence = softened_apart(output, teacher(x).detach(), 2.0)
        loss = -divergence if forget else 0.8 * F.cross_entropy(output, batch.target) + 0.3 * divergence
        sgd.step(grad(plain, loss))
    assert moved_apart(of.model, plain) < TIGHT  # running statistics too


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_scrub_forgets_a_class_and_keeps_the_rest(family: str):
    of = problem(family, whole_class=True)
    method = SCRUB(temperature=2.0, distill_weight=0.5, alternate=0.34)
    replace(method, how=replace(method.how, lr=0.01, steps=60, epochs=None, batch=16, forget_batch=8))(of)
    accuracies = {}
    for part in ("forget", "retain"):
        logits, target = answers(of, of.model, part)
        accuracies[part] = float((logits.argmax(1) == target).double().mean())
    assert accuracies["forget"] < 0.1 and accuracies["retain"] > 0.8


def test_the_softened_divergence_of_two_coins():
    # T = 2: a teacher that says 3 to 1 and a student that says 1 to 1, so 4 (3/4 log 3 - log 2)
    of = fresh()
    of.model, teacher = Constant([0.0, 0.0]), frozen_copy(Constant([2 * math.log(3), 0.0]))
    batches, sizes = next(step_batches(of, Phase([nll("forget")]), Descent(steps=1)))
    runtime = Runtime(of.model, of.task, "fp32", of.processes, of.cost)
    (value,) = softened_divergence(teacher, "forget", 2.0).losses(Step(of.params, runtime, batches, sizes))
    assert float(value.detach()) == pytest.approx(4 * (0.75 * math.log(3) - math.log(2)), abs=1e-12)


class Constant(nn.Module):
    """Says the same of every example."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


# --- MSG


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_masked_small_gradients(family: str):
    of, recorder = recorded(family)
    method = whole(MaskedSmallGradients(rate=0.3, kept=0.1), norm="frozen")
    plain = start_of(lambda: fresh(family), method).eval()
    old = fresh(family).model.eval()
    method(of)
    # as many retain examples as forget ones would be one batch of 13
    by_size = {len(b): b for b in recorder.drawn[:2]}
    assert list(by_size) == [13]
    forget, retain = (
        next(b for b in recorder.drawn[:2] if bool(of.split.is_forget[b.ids].all()) == f)
        for f in (True, False)
    )
    contrast = [
        (r - f).abs() for r, f in zip(grad(old, ce(old, retain)), grad(old, ce(old, forget)), strict=True)
    ]
    scales = []
    for p, q, c in zip(weights(plain), weights(old), contrast, strict=True):
        redrawn = (p != q).detach()
        if p.ndim > 1:
            count = round(0.3 * p.numel())
            assert (
                redrawn.tolist() == (c <= c.flatten().sort().values[count - 1]).tolist()
                and int(redrawn.sum()) == count
            )
            scales.append(redrawn + 0.1 * (~redrawn).double())
        else:
            assert not bool(redrawn.any())
            scales.append(torch.ones_like(p))
    g = grad(plain, ce(plain, recorder.drawn[-1]))
    Sgd(plain, method.how).step([x * s for x, s in zip(g, scales, strict=True)])
    assert moved_apart(of.model, plain) < TIGHT


def test_masked_small_gradients_draw_from_kaimings_normal():
    generator = torch.Generator().manual_seed(0)
    for shape, variance in (
        ((32, 16, 3, 3), 2 / (32 * 9)),
        ((20, 300), 2 / 300),
    ):  # a kernel's fan-out, a matrix's fan-in
        values = kaiming(torch.empty(shape), generator)
        assert values.shape == shape and abs(float(values.mean())) < 4 * (variance / values.numel()) ** 0.5
        assert float(values.square().mean()) == pytest.approx(variance, rel=0.1)


# --- SSD


def mean_square(plain: nn.Module, part_batches: list[Batch]) -> list[Tensor]:
    """The mean over batches of the squared gradient of a batch's mean loss."""
    squares = [[g.square() for g in grad(plain, ce(plain, batch))] for batch in part_batches]
    return [torch.stack(each).mean(0) for each in zip(*squares, strict=True)]


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_ssd(family: str):
    of, recorder = recorded(family)
    plain = copy.deepcopy(of.model).eval()
    SelectiveSynapticDampening(alpha=1.5, dampening=1.2, batch=5)(of)
    forget, all_batches = recorder.drawn[:3], recorder.drawn[3:]
    assert sorted(i for b in forget for i in b.ids.tolist()) == of.split.forget.tolist()
    assert sorted(i for b in all_batches for i in b.ids.tolist()) == list(range(60))
    count = 0
    scores = zip(weights(plain), mean_square(plain, forget), mean_square(plain, all_batches), strict=True)
    with torch.no_grad():
        for p, f, d in list(scores):
            selection = f > 1.5 * d
            p[selection] *= (1.2 * d / f)[selection]
            count += int(selection.sum())
    assert 0 < count < sum(p.numel() for p in weights(plain))
    assert moved_apart(of.model, plain) < TIGHT  # running statistics too


def linear(label: int = 0) -> Problem:
    """Two classes that are always equally likely: three examples (1, 0) stay, and (1, 2) is to go."""
    inputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0], [1.0, 0.0]])
    data = Toy((inputs,), torch.full((4,), label))
    model = nn.Linear(2, 2, bias=False)
    nn.init.ones_(model.weight)
    return Problem(Classifier(2), model, Split(data, [2], data), torch.Generator().manual_seed(0))


@for_each(
    ("alpha", "dampening", "factor"),
    [(2.0, 1.0, 0.25), (2.0, 2.0, 0.5), (3.9, 1.0, 0.25), (4.0, 1.0, 1.0), (2.0, 6.0, 1.0)],
)
def test_ssd_in_closed_form(alpha: float, dampening: float, factor: float):
    # gradients are +-x / 2, so F = (1, 4) / 4 and D = (1, 4 / 4) / 4: the ratios are 1 and 4
    of = linear()
    SelectiveSynapticDampening(alpha, dampening)(of)
    assert of.model.weight.tolist() == [[1.0, pytest.approx(factor)]] * 2
    assert of.cost.gradients == 5  # batches of one, as large as the forget data


def mean_size(plain: nn.Module, part_batches: list[Batch]) -> list[Tensor]:
    """The mean over batches of the size of the gradient of the mean squared norm of the logits."""
    norms = (torch.linalg.vector_norm(plain(batch.inputs[0]), dim=1).pow(2).mean() for batch in part_batches)
    sizes = [[g.abs() for g in grad(plain, norm)] for norm in norms]
    return [torch.stack(each).mean(0) for each in zip(*sizes, strict=True)]


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_ssd_without_labels(family: str):
    of, recorder = recorded(family)
    plain = copy.deepcopy(of.model).eval()
    SelectiveSynapticDampening(alpha=1.1, dampening=0.9, batch=5, importance="label-free")(of)
    forget, all_batches = recorder.drawn[:3], recorder.drawn[3:]
    scores = list(zip(weights(plain), mean_size(plain, forget), mean_size(plain, all_batches), strict=True))
    selections = [f > 1.1 * d for _, f, d in scores]
    with torch.no_grad():
        for (p, f, d), selection in zip(scores, selections, strict=True):
            p[selection] *= (0.9 * d / f)[selection]
    assert 0 < sum(int(c.sum()) for c in selections) < sum(p.numel() for p in weights(plain))
    assert moved_apart(of.model, plain) < TIGHT


@pytest.mark.parametrize("label", [0, 1])
def test_ssd_without_labels_in_closed_form(label: int):
    # a logit is 1, and 3 where x = (1, 2); gradients are 2 z x, so F = (6, 12) and D = (3, 3)
    of = linear(label)
    SelectiveSynapticDampening(alpha=1.9, dampening=0.8, importance="label-free")(of)
    assert of.model.weight.tolist() == [[pytest.approx(0.8 / 2), pytest.approx(0.8 / 4)]] * 2
