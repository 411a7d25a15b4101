"""Winners of the NeurIPS 2023 competition, as Deep Unlearn has them: plain torch and closed forms."""

import copy
from dataclasses import replace
from itertools import pairwise
from math import cos, exp, log, pi

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.utils import parameters_to_vector

from every_family import Toy
from for_each import for_each
from plain import STILL, Recorder, Sgd, ce, grad, moved_apart, recorded, whole
from unweave.descent import edit
from unweave.descent.descend import Descent
from unweave.descent.importance import Importance
from unweave.descent.objective import Objective
from unweave.errors import Failed
from unweave.methods import Method
from unweave.methods.cfw import CFW, balanced_loss, first_kernel
from unweave.methods.fcs import FCS, Contrast
from unweave.methods.kde import KDE
from unweave.methods.prmq import PRMQ, entropy, entropy_gap, mask_smallest
from unweave.methods.rni import RNI
from unweave.problem import Problem, frozen_copy
from unweave.split import Part, Split
from unweave.tasks import Batch
from unweave.weights.processes import Processes
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step


def fresh(family: str = "batchnorm") -> Problem:
    return recorded(family)[0]


def weight_changes(after: nn.Module, before: nn.Module) -> dict[str, Tensor]:
    """The displacement of every weight that is not where it was, but for a step of no length."""
    pairs = zip(after.named_parameters(), before.named_parameters(), strict=True)
    differences = {name: (p - q).detach() for (name, p), (_, q) in pairs}
    return {name: by for name, by in differences.items() if float(by.abs().max()) > 1e-200}


def drawn_of(part: Part, recorder: Recorder, of: Problem) -> list[Batch]:
    """Every batch that was drawn, each of which is the whole part."""
    ids = of.split.part(part)[1].tolist()
    assert all(sorted(batch.ids.tolist()) == ids for batch in recorder.drawn)
    return recorder.drawn


def value_on(objective: Objective, of: Problem, part: Part, batch: Batch) -> float:
    """An objective on one batch of its part."""
    step = Step(of.params, Runtime(of.model, of.task), {part: [batch]}, {part: len(batch)})
    return sum(float(loss.detach()) for loss in objective.losses(step))


@pytest.fixture
def kicks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What noise at the start of a phase adds to the weights, as it comes."""
    changes, perturb = [], edit.perturb

    def watched(of: Problem, std: Importance) -> None:
        before = copy.deepcopy(of.model)
        perturb(of, std)
        changes.append(weight_changes(of.model, before))

    monkeypatch.setattr(edit, "perturb", watched)
    return changes


def still(of: Problem, method: Method) -> nn.Module:
    """The model after a method whose descents move nothing."""
    whole(method, steps=4, lr=STILL, momentum=0.0, weight_decay=0.0, norm="frozen")(of)
    return of.model


@torch.no_grad()
def kick(model: nn.Module, by: dict[str, Tensor]) -> None:
    for name, displacement in by.items():
        model.get_parameter(name).add_(displacement)


# --- CFW


def test_cfw(kicks: list[dict[str, Tensor]]):
    method = whole(CFW(), steps=4)
    plain = still(fresh(), replace(method, last_noise=0.0))
    kicks.clear()
    of, recorder = recorded("batchnorm")
    method(of)
    (last,) = kicks
    counts = of.split.train.labels[of.split.retain].bincount().double()
    sgd = Sgd(plain.train(), method.how)
    for step, batch in enumerate(drawn_of("retain", recorder, of)):
        if step == 3:  # the last quarter
            kick(plain, last)
        # of a batch that holds all of the part, torch's weighted mean is that of balanced weights
        sgd.step(grad(plain, F.cross_entropy(plain(batch.inputs[0]), batch.target, weight=1 / counts)))
    assert step == 3 and moved_apart(of.model, plain) < 1e-12


def make_imbalanced_problem() -> tuple[Problem, Batch]:
    """Retained are six examples of class 0, two of class 1 and none of class 2."""
    labels = torch.tensor([0] * 6 + [1] * 2 + [2] * 2)
    inputs = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = Toy((inputs,), labels)
    of, recorder = recorded("layernorm")
    of.split, of.task, of.model = Split(data, [8, 9], data), Recorder(3), nn.Linear(3, 3).double()
    batch = recorder.draw(next(iter(data.stream([of.split.retain]))), torch.Generator())
    return of, batch


def test_classes_weigh_the_same_however_many_their_examples():
    of, batch = make_imbalanced_problem()
    # n / (C n_c) = 8 / (2 * 6) and 8 / (2 * 2)
    loss = F.cross_entropy(of.model(batch.inputs[0]), batch.target, reduction="none")
    expected = float((loss[:6].sum() * 2 / 3 + loss[6:].sum() * 2).detach() / 8)
    assert value_on(balanced_loss(of, power=1.0), of, "retain", batch) == pytest.approx(expected, abs=1e-14)
    assert value_on(balanced_loss(of, power=0.0), of, "retain", batch) == pytest.approx(
        float(loss.detach().mean()), abs=1e-14
    )


def test_a_class_weighs_on_its_own_examples_and_not_on_the_mean_of_the_batch():
    """Released: the mean loss times the mean weight, so that which class has the loss does not matter."""
    of, _ = make_imbalanced_problem()
    nn.init.zeros_(of.model.weight), nn.init.zeros_(of.model.bias)
    of.model.bias.data[0] = 50.0  # class 0 is certain, class 1 is 50 nats away
    half = Recorder(3).draw(next(iter(of.split.train.stream([torch.tensor([0, 7])]))), torch.Generator())
    assert value_on(balanced_loss(of, power=1.0), of, "retain", half) == pytest.approx(50 * 2.0 / 2)
    # the released value: 25 nats times the mean of 2/3 and 2
    assert value_on(balanced_loss(of, power=1.0), of, "retain", half) != pytest.approx(25 * 4 / 3)


def test_noise_has_its_standard_deviation_and_stays_in_the_first_kernel(kicks: list[dict[str, Tensor]]):
    of = fresh("layernorm")
    of.model = nn.Sequential(nn.Linear(6, 500), nn.LayerNorm(500), nn.Linear(500, 4)).double()
    before = copy.deepcopy(of.model)
    still(of, CFW(noise=0.6, last_noise=0.05))
    (last,) = kicks
    first = weight_changes(of.model, before)
    assert first.keys() == last.keys() == {"0.weight"}
    # 3,000 draws: the deviation of a deviation is 1.3 in a hundred
    assert float(last["0.weight"].std()) == pytest.approx(0.05, rel=0.06)
    assert float((first["0.weight"] - last["0.weight"]).std()) == pytest.approx(0.6, rel=0.06)
    assert abs(float(first["0.weight"].mean())) < 0.05


def test_the_stem_is_told_by_its_place_and_not_by_its_name():
    """Released: outermost modules with "conv" in their name; a stem elsewhere had no noise."""
    of = fresh()
    assert {name for name, mask in first_kernel(of).items() if mask.any()} == {"conv1.weight"}
    of.model = nn.Sequential(nn.Sequential(nn.BatchNorm2d(1), of.model.conv1), nn.Conv2d(6, 4, 3))
    assert {name for name, mask in first_kernel(of).items() if mask.any()} == {"0.1.weight"}
    of.model[0][1].weight.requires_grad_(False)
    assert {name for name, mask in first_kernel(of).items() if mask.any()} == {"1.weight"}  # not its bias
    of.model[1].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="cfw puts noise on the first kernel or matrix, and none"):
        whole(CFW(), steps=4)(of)


@for_each("changes", [{"noise": -0.1}, {"last_noise": -0.1}, {"last": 0.0}, {"last": 1.0}])
def test_settings_of_cfw_out_of_range_are_refused(changes: dict):
    with pytest.raises(ValueError, match="found"):
        CFW(**changes)


# --- PRMQ


@pytest.mark.parametrize("steps", [1, 3])
def test_prmq(steps: int):
    method, original = whole(PRMQ(prune=0.6), steps=steps), fresh().model.eval()
    plain = redraw_smallest(fresh(), method.prune)
    of, recorder = recorded("batchnorm")
    method(of)
    counts = of.split.train.labels[of.split.retain].bincount().double()
    sgd = Sgd(plain.train(), method.how)
    for batch in drawn_of("retain", recorder, of):
        student, teacher = (Categorical(logits=model(batch.inputs[0])) for model in (plain, original))
        loss = F.cross_entropy(student.logits, batch.target, weight=counts**-0.1)
        loss = loss + F.mse_loss(student.entropy(), teacher.entropy().detach())
        sgd.step(grad(plain, loss))
    for p in plain.parameters():
        p.data = p.detach().half().double()
    assert moved_apart(of.model, plain) < 1e-12


def redraw_smallest(of: Problem, fraction: float) -> nn.Module:
    """The model with its smallest weights redrawn, cut by a sort of all sizes."""
    tensors = [m.weight for m in (of.model.conv1, of.model.conv2, of.model.downsample[0], of.model.fc)]
    tensors.append(of.model.fc.bias)
    sizes = torch.cat([p.detach().abs().flatten() for p in tensors]).sort().values
    limit = sizes[round(fraction * len(sizes))]
    with torch.no_grad():
        for p in tensors:
            small = p.abs() < limit
            if small.any() and p.ndim > 1:
                bound = p[0].numel() ** -0.5
                p[small] = (torch.rand(p.shape, generator=of.generator, dtype=p.dtype) * 2 - 1)[small] * bound
            elif small.any():
                p[small] = 0
    return of.model


def test_entropies_are_matched_in_nats():
    of = fresh("layernorm")
    of.model = nn.Linear(1, 2, bias=False).double()
    original = frozen_copy(of.model)
    with torch.no_grad():
        # says 3/4 and 1/4 of an input of one
        of.model.weight.copy_(torch.tensor([[3.0], [1.0]]).double().log())
        original.weight.zero_()  # says 1/2 and 1/2
    batch = Batch(torch.tensor([0]), (torch.ones(1, 1).double(),), torch.tensor([0]), torch.tensor([1]))
    gap = log(2) - (2 * log(2) - 0.75 * log(3))
    assert value_on(entropy_gap(original, "retain"), of, "retain", batch) == pytest.approx(gap**2, abs=1e-14)


def test_a_certain_answer_has_a_slope_of_zero_and_not_of_nan():
    logits = torch.tensor([[0.0, -2000.0]], requires_grad=True)
    entropy(logits).sum().backward()
    assert logits.grad is not None and not bool(logits.grad.any())


@for_each("fraction", [0.0, 0.1, 0.9, 1.0])
def test_exactly_the_smallest_weights_are_redrawn_and_no_normalisation(fraction: float):
    of = fresh()
    nn.init.constant_(of.model.bn1.weight, 1e-6)  # by size it would be the first to go
    masks = mask_smallest(of, fraction)
    heavy = {"conv1.weight", "conv2.weight", "downsample.0.weight", "fc.weight", "fc.bias"}
    assert {name for name, mask in masks.items() if mask.any()} <= heavy
    total = sum(of.params[name].numel() for name in heavy)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(fraction * total)


def test_weights_end_as_half_precision_has_them():
    of = fresh()
    running = of.model.bn1.running_mean.clone()
    still(of, PRMQ(prune=0.0))
    for p in of.model.parameters():
        assert p.dtype == torch.float64 and torch.equal(p, p.half().double())
    assert torch.equal(of.model.bn1.running_mean, running)
    nn.init.constant_(of.model.fc.bias, 65520.0)  # half of the way from the largest number to the next
    with pytest.raises(Failed, match=r"fc.bias are beyond the range of torch.float16"):
        edit.quantize(of, torch.float16)


def test_a_class_without_retain_examples_shifts_no_weights():
    """Released: weights by rank among the classes that are there, so that class 2 took those of class 1."""
    of, _ = make_imbalanced_problem()
    of.split = Split(of.split.train, [6, 7], of.split.held_out)  # class 1 is forgotten whole
    last = Recorder(3).draw(next(iter(of.split.train.stream([torch.tensor([8, 9])]))), torch.Generator())
    loss = float(F.cross_entropy(of.model(last.inputs[0]), last.target).detach())
    mean = (6 * 6**-0.1 + 2 * 2**-0.1) / 8
    value = value_on(balanced_loss(of, power=0.1), of, "retain", last)
    assert value == pytest.approx(loss * 2**-0.1 / mean, abs=1e-14)


def test_a_fraction_to_prune_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"prune must be in \[0, 1\], found 1.1"):
        PRMQ(prune=1.1)


# --- RNI

LAYERS = ("conv1.weight", "conv2.weight", "downsample.0.weight")


def test_rni(kicks: list[dict[str, Tensor]]):
    method = whole(RNI(noise=0.1, layers=0.67, noisy=0.5, rounds=2, last=0.5), steps=4)
    of, recorder = recorded("batchnorm")
    plain = copy.deepcopy(of.model).train()
    method(of)
    draws = fresh()
    plain.fc.load_state_dict(draws.fresh_model().fc.state_dict())
    resting = [LAYERS[torch.randperm(3, generator=draws.generator)[2]] for _ in range(2)]
    sgd = Sgd(plain, method.how)
    names = [name for name, _ in plain.named_parameters()]
    for batch, rests, noise in zip(
        drawn_of("retain", recorder, of), [*resting, None, None], [*kicks, {}, {}], strict=True
    ):
        kick(plain, noise)
        frozen_weights = {rests: plain.get_parameter(rests).detach().clone()} if rests else {}
        g = [
            x * (name not in frozen_weights)
            for name, x in zip(names, grad(plain, ce(plain, batch)), strict=True)
        ]
        sgd.step(g)
        for name, value in frozen_weights.items():
            plain.get_parameter(name).data.copy_(value)
            sgd.velocity[names.index(name)].zero_()
    assert kicks[0] == {} and len(kicks[1]) == 1 and resting[1] not in kicks[1]
    assert moved_apart(of.model, plain) < 1e-12


def test_noise_comes_in_every_round_but_the_first_and_has_its_standard_deviation(kicks):
    of = fresh("layernorm")
    widths = [nn.Linear(50, 50, bias=False) for _ in range(5)]
    of.model = nn.Sequential(nn.Linear(6, 50, bias=False), *widths, nn.Linear(50, 4)).double()
    still(of, RNI(noise=0.04, layers=0.9, noisy=0.6, rounds=3, last=0.25))
    first, *noise_rounds = kicks  # of 6 layers 5 are drawn, of which 3 get noise
    assert first == {} and [len(noise) for noise in noise_rounds] == [3, 3]
    assert noise_rounds[0].keys() != noise_rounds[1].keys()
    for by in [by for noise in noise_rounds for by in noise.values() if by.numel() == 2500]:
        assert float(by.std()) == pytest.approx(0.04, rel=0.06)  # four times its own deviation


def test_normalisations_train_in_all_rounds_and_get_no_noise(kicks: list[dict[str, Tensor]]):
    """Released: a normalisation without "bn" in its name, such as a shortcut's, was a layer with noise."""
    of = fresh()
    before = copy.deepcopy(of.model)
    whole(RNI(layers=0.0, rounds=4, last=0.2), steps=5, lr=1e-3)(of)  # one layer a round
    names = {name for noise in kicks for name in noise}
    assert names and names <= {*LAYERS}
    assert weight_changes(of.model, before).keys() >= {
        f"{norm}.{kind}" for norm in ("bn1", "bn2", "downsample.1") for kind in ("weight", "bias")
    }


def test_the_new_head_trains_from_the_first_round_and_owes_nothing_to_the_old_one():
    """Released: where the first round did not draw it, layers trained below a head of noise."""
    one, other = fresh(), fresh()
    for p in other.model.fc.parameters():
        p.data.mul_(3)
    head_weights: list[Tensor] = []
    for of in (one, other):
        of.model.fc.register_forward_pre_hook(lambda m, _: head_weights.append(m.weight.detach().clone()))
        whole(RNI(rounds=2, last=0.5), steps=4)(of)
    assert moved_apart(one.model, other.model) == 0
    assert all(not torch.equal(a, b) for a, b in pairwise(head_weights[: len(head_weights) // 2]))


def test_rni_needs_a_layer_beside_a_head_that_is_free():
    of = fresh("layernorm")
    of.model = nn.Sequential(nn.Linear(6, 4)).double()
    with pytest.raises(ValueError, match="layers other than the head, and this model has no trainable one"):
        whole(RNI(), steps=9)(of)
    of.model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)).double()
    of.model[1].weight = of.model[0].weight
    with pytest.raises(ValueError, match="0.weight are to be redrawn, and other modules share them"):
        whole(RNI(), steps=9)(of)
    of = fresh()
    of.model.fc.requires_grad_(False)
    with pytest.raises(ValueError, match="a module to be redrawn has no trainable weights"):
        whole(RNI(), steps=9)(of)


@for_each("changes", [{"noise": -1.0}, {"layers": 1.5}, {"noisy": -0.5}, {"rounds": 0}, {"last": 1.0}])
def test_settings_of_rni_out_of_range_are_refused(changes: dict):
    with pytest.raises(ValueError, match="found"):
        RNI(**changes)


# --- KDE


def kde_method(lr: float = 0.1) -> KDE:
    """Two steps on calibration data, of which each sees all."""
    return KDE(temperature=3.0, taught=Descent(lr=lr, steps=2, batch=100, momentum=0.9, weight_decay=0.01))


def test_kde():
    method, original = whole(kde_method(), steps=2), fresh().model.eval()
    plain = still(fresh(), kde_method(lr=STILL)).train()
    (of, recorder), loss = recorded("batchnorm"), nn.CrossEntropyLoss()
    plain.load_state_dict({**plain.state_dict(), **dict(of.model.named_buffers())})
    method(of)
    assert [sorted(batch.ids.tolist()) for batch in recorder.drawn] == (
        2 * [of.split.calibration.tolist()] + 2 * [of.split.retain.tolist()]
    )
    for how, part in ((method.taught, recorder.drawn[:2]), (method.how, recorder.drawn[2:])):
        sgd = Sgd(plain, how)
        for batch in part:
            logits = plain(batch.inputs[0])
            target = (original(batch.inputs[0]) / 3).softmax(1).detach()
            total = F.kl_div((logits / 3).log_softmax(1), target, reduction="batchmean")
            if how is method.how:
                total = total + loss(logits, batch.target) + loss(logits / 3, target)
            sgd.step(grad(plain, total))
    assert moved_apart(of.model, plain) < 1e-12


def test_the_three_losses_of_kde_add_up():
    """Of logits z their slope is p - y + 2 / T (q - r): 1/2 - 1 + 2/5 (1/2 - 3/4) = -0.6 for the first."""
    of = fresh("layernorm")
    data = Toy((torch.tensor([0, 0]),), torch.tensor([0, 0]))
    of.task, of.split, of.model = Recorder(2), Split(data, [1], data), nn.Embedding(1, 2).double()
    of.build = lambda: set_to_zero(nn.Embedding(1, 2).double())
    with torch.no_grad():
        of.model.weight.copy_(5 * torch.tensor([[3.0, 1.0]]).double().log())  # 3/4 and 1/4 at T = 5
    whole(KDE(taught=Descent(lr=STILL, steps=1)), lr=1.0, weight_decay=0.0)(of)
    torch.testing.assert_close(of.model.weight.detach(), torch.tensor([[0.6, -0.6]]).double())


def set_to_zero(model: nn.Module) -> nn.Module:
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def test_the_first_layer_and_the_head_are_told_by_place_and_alone_start_afresh():
    """Released: a stem of another name than conv1 kept what it knew, without a word."""
    for family, ends in (("layernorm", ("0.", "6.")), ("batchnorm", ("conv1", "fc"))):
        of, anew, before = fresh(family), fresh(family).fresh_model(), fresh(family).model
        still(of, kde_method(lr=STILL))
        for name, p in of.model.named_parameters():
            old, new = before.get_parameter(name), anew.get_parameter(name)
            # steps of no length move a zero
            torch.testing.assert_close(p, new if name.startswith(ends) else old, rtol=0, atol=1e-200)


def test_kde_reads_no_label_of_calibration_data():
    one, other = fresh(), fresh()
    data, data_ids = other.split.held_out, other.split.calibration.tolist()
    shifted_data = Toy(data.inputs, (data.labels + 1) % 4)
    other.split = Split(other.split.train, other.split.forget, shifted_data, calibration=data_ids)
    for of in (one, other):
        whole(kde_method(), steps=2)(of)
    assert moved_apart(one.model, other.model) == 0


def test_what_kde_cannot_redraw_is_refused_before_anything_moves():
    of = fresh()
    of.model.conv1.requires_grad_(False)
    before = copy.deepcopy(of.model)
    with pytest.raises(ValueError, match="a module to be redrawn has no trainable weights"):
        whole(KDE())(of)
    assert moved_apart(of.model, before) == 0
    with pytest.raises(ValueError, match=r"temperature must be in \(0, inf\), found 0"):
        KDE(temperature=0.0)


# --- FCS


def test_fcs():
    method = whole(FCS(push=0.8, contrast=0.7, rounds=2), steps=5)
    of, recorder = recorded("batchnorm")
    plain = copy.deepcopy(of.model).train()
    method(of)
    sgd, (push, *rounds) = Sgd(plain, method.how), recorder.drawn
    forget = of.split.forget.tolist()

    def answers(batch: Batch) -> Tensor:
        return plain(batch.inputs[0])

    flat = torch.full((13, 4), 0.25).double()
    assert sorted(push.ids.tolist()) == forget and len(rounds) == 2 * 3
    sgd.step(grad(plain, 0.8 * F.kl_div(answers(push).log_softmax(1), flat, reduction="batchmean")))
    for factor, (first, second, repair) in zip((0.7, 0.35), (rounds[:3], rounds[3:]), strict=True):
        one, other = (first, second) if sorted(first.ids.tolist()) == forget else (second, first)
        assert sorted(one.ids.tolist()) == forget
        assert sorted(other.ids.tolist()) == sorted(repair.ids.tolist()) == of.split.retain.tolist()
        similarity = answers(one) @ answers(other).detach().T / 1.15
        sgd.step(grad(plain, -factor * similarity.log_softmax(1).mean()))
        sgd.step(grad(plain, ce(plain, repair)))
    assert moved_apart(of.model, plain) < 1e-12


def distance_to_three_optimizers(method: FCS, family: str, seed: int = 0) -> float:
    """How far FCS ends from a run with an optimizer per loss, in lengths of that run's displacement."""
    of, recorder = recorded(family, seed)
    start, plain = copy.deepcopy(of.model), copy.deepcopy(of.model).train()
    method(of)
    pushing, contrasting, repairing = (Sgd(plain, method.how) for _ in range(3))
    (push, *rounds), lr, forget = recorder.drawn, method.how.lr, of.split.forget.tolist()

    def answers(batch: Batch) -> Tensor:
        return plain(batch.inputs[0])

    logs = answers(push).log_softmax(1)
    loss = F.kl_div(logs, torch.full_like(logs, 1 / logs.shape[1]), reduction="batchmean")
    pushing.step(grad(plain, loss), lr * method.push)
    for number, (first, second, repair) in enumerate(zip(*[iter(rounds)] * 3, strict=True)):
        one, other = (first, second) if sorted(first.ids.tolist()) == forget else (second, first)
        similarity = answers(one) @ answers(other).detach().T / method.temperature
        fading = method.contrast * (1 + cos(pi * number / method.rounds)) / 2
        contrasting.step(grad(plain, -similarity.log_softmax(1).mean()), lr * fading)
        repairing.step(grad(plain, ce(plain, repair)), lr)
    ours, theirs, before = (parameters_to_vector(m.parameters()).detach() for m in (of.model, plain, start))
    return float((ours - theirs).norm() / (theirs - before).norm())


@pytest.mark.parametrize("family", ["batchnorm", "layernorm"])
def test_one_optimizer_of_fcs_is_three_without_momentum_and_far_from_them_with(family: str):
    method = whole(FCS(), lr=4e-3, steps=1 + 8 * 2, weight_decay=0.0, momentum=0.0)
    assert distance_to_three_optimizers(method, family) < 1e-9
    assert distance_to_three_optimizers(replace(method, how=replace(method.how, momentum=0.9)), family) > 0.5


def test_fcs_says_that_its_shared_momentum_leads_elsewhere():
    assert "one momentum for all" in FCS.about.deviations and "with it they end apart" in str(FCS.__doc__)


def test_the_contrast_is_that_of_inner_products_of_logits():
    """Of products s and 0 it is log(1 + exp(s)) - s / 2; where all are alike, log m."""
    of = fresh("layernorm")
    of.model = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(of.model.weight)
    retain, forget = (
        Batch(torch.arange(len(x)), (torch.tensor(x).double(),), torch.zeros(len(x)).long(), torch.zeros(1))
        for x in ([[3.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 7.0]])
    )
    sizes = {"forget": 2, "retain": 2}
    step = Step(of.params, Runtime(of.model, of.task), {"forget": [forget], "retain": [retain]}, sizes)
    (loss,) = Contrast(1.0, temperature=2.0).objective.losses(step)
    s = 3 * 0.5 / 2
    assert float(loss.detach()) == pytest.approx((log(1 + exp(s)) - s / 2 + log(2)) / 2, abs=1e-14)


def test_passes_are_whole_and_in_turns():
    of, recorder = recorded("layernorm")
    whole(FCS(rounds=3), steps=None, epochs=7, batch=16, forget_batch=8)(of)
    forget = set(of.split.forget.tolist())
    kinds = "".join("f" if set(batch.ids.tolist()) <= forget else "r" for batch in recorder.drawn)
    assert kinds == "ff" + 3 * ("frfr" + "rrr")  # of forget data two batches, of retain data three
    repairs = [batch for start in (6, 13, 20) for batch in recorder.drawn[start : start + 3]]
    assert sorted(i for batch in repairs for i in batch.ids.tolist()) == sorted(3 * of.split.retain.tolist())


def test_fcs_is_not_for_several_processes():
    of = fresh("layernorm")
    of.processes = Processes(rank=0, count=2)
    with pytest.raises(ValueError, match="several processes would see a shard of it, found 2: use one"):
        whole(FCS())(of)


@for_each("changes", [{"push": 0.0}, {"temperature": -1.0}, {"repair": 0.0}, {"rounds": 0}])
def test_settings_of_fcs_out_of_range_are_refused(changes: dict):
    with pytest.raises(ValueError, match="found"):
        FCS(**changes)
