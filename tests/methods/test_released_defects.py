"""Defects of code released for these methods, each of which must not come back here."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from every_family import Toy, problem
from for_each import for_each
from plain import STILL, moved_apart, recorded, start_of, whole
from unweave.descent.descend import Descent
from unweave.descent.importance import match_names
from unweave.descent.redraw import eligible_weights, redraw_sensitive
from unweave.methods.ct import ConvolutionTranspose
from unweave.methods.lur import LUR
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.salun import SalUn
from unweave.methods.scissorhands import Scissorhands
from unweave.methods.scrub import SCRUB
from unweave.methods.simple import FineTune, GradientAscent, NegGradPlus, RandomLabel
from unweave.methods.ssd import SelectiveSynapticDampening
from unweave.methods.starts import Redraw
from unweave.problem import Problem
from unweave.split import Split
from unweave.targets import Quantile
from unweave.tasks.classifier import Classifier


def fresh(family: str = "batchnorm") -> Problem:
    return recorded(family)[0]


# --- SalUn: weight decay moved the weights that the mask was meant to freeze


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_does_not_leak_through_the_mask(optimizer: str):
    of = fresh()
    before = copy.deepcopy(of.model.state_dict())
    whole(SalUn(fraction=0.1), steps=5, weight_decay=0.5, optimizer=optimizer)(of)
    unchanged_counts = [float((p == before[name]).sum()) for name, p in of.params.items()]
    total = sum(p.numel() for p in of.params.values())
    assert sum(unchanged_counts) == total - round(0.1 * total)


def test_the_mask_is_taken_without_a_step_and_without_augmentation():
    of, recorder = recorded("layernorm")
    before = copy.deepcopy(of.model.state_dict())
    whole(SalUn(), lr=STILL, weight_decay=0.0)(of)
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    mask_pass, step = recorder.drawn
    assert torch.equal(pictures(mask_pass), of.split.train.inputs[0][mask_pass.ids])
    assert not torch.equal(pictures(step), of.split.train.inputs[0][step.ids])


def pictures(batch) -> Tensor:
    return batch.inputs[0]


def test_wrong_labels_are_wrong_and_drawn_anew():
    of, recorder = recorded("layernorm")
    whole(RandomLabel(), steps=6)(of)
    forget_batches = [b for b in recorder.drawn if bool(of.split.is_forget[b.ids].all())]
    by_id = torch.stack([b.other[b.ids.argsort()] for b in forget_batches])
    true = of.split.train.labels[of.split.forget]
    assert len(forget_batches) == 6 and not bool((by_id == true).any())
    assert len({tuple(row.tolist()) for row in by_id}) == 6


def test_random_labels_warm_up():
    whole(RandomLabel(), steps=4, warmup=0.5)(fresh())


def test_a_concatenated_epoch_sees_each_example_once_and_true_labels_on_retain_rows():
    of, recorder = recorded("layernorm")
    whole(SalUn(), steps=None, epochs=1, batch=16)(of)
    epoch = recorder.drawn[1:]
    assert sorted(i for b in epoch for i in b.ids.tolist()) == list(range(60))
    with pytest.raises(ValueError, match="retain_weight must be 1 where the data is concatenated, found 0.5"):
        SalUn(retain_weight=0.5)


# --- Scissorhands: normalisations were told by "bn" in their name, and the share redrawn was another


def redrawn(eligible: str) -> nn.Module:
    """The model after the start that redraws alone."""
    of = fresh()
    Redraw(1.0, eligible)(of)
    return of.model


@pytest.mark.parametrize(
    "start_from", [lambda names: start_of(fresh, Scissorhands(trim=1.0, eligible=names)), redrawn]
)
def test_normalisations_are_told_by_type(start_from: Callable[[str], nn.Module]):
    start, old = start_from("downsample|bn|conv2"), fresh().model
    counts = {
        name: int((p != q).sum())
        for (name, p), (_, q) in zip(start.named_parameters(), old.named_parameters(), strict=True)
    }
    whole_kernels = {"conv2.weight": 324, "downsample.0.weight": 36}
    assert {name: n for name, n in counts.items() if n} == whole_kernels


def test_a_normalisation_over_several_axes_is_one():
    of = fresh("layernorm")
    of.model = nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.LayerNorm((2, 3)), nn.Flatten(), nn.Linear(6, 4)
    ).double()
    assert [name for name, _ in of.blocks] == ["3"]
    assert eligible_weights(of, "") == ["3.weight", "3.bias"]


@for_each("fraction", [0.0, 0.001, 0.03, 0.5, 0.999, 1.0])
def test_exactly_the_fraction_asked_for_is_redrawn(fraction: float):
    start, old = start_of(fresh, Scissorhands(trim=fraction, eligible="conv|fc")), fresh().model
    eligible = [
        n for n, _ in old.named_parameters() if n in ("conv1.weight", "conv2.weight", "fc.weight", "fc.bias")
    ]
    counts = {n: int((p != old.get_parameter(n)).sum()) for n, p in start.named_parameters()}
    assert (
        sum(counts.values())
        == sum(counts[n] for n in eligible)
        == round(fraction * sum(old.get_parameter(n).numel() for n in eligible))
    )


def test_the_default_is_the_last_third_of_what_may_move():
    of = fresh()
    assert eligible_weights(of, None) == ["fc.weight", "fc.bias"]  # of conv1, conv2, downsample.0, fc
    of.model.fc.requires_grad_(False)
    assert eligible_weights(of, None) == ["downsample.0.weight"]
    names = match_names(of.params, "conv1")
    assert eligible_weights(of, None, names) == ["conv1.weight"]
    language = problem("language")
    # the head is tied to the embedding
    assert eligible_weights(language, None) == [
        "embed.weight",
        "down.weight",
        "down.bias",
    ]
    with pytest.raises(ValueError, match="no weight can be redrawn: .* matches 'bn'"):
        eligible_weights(of, "bn")


def test_what_may_not_move_is_not_redrawn():
    of = fresh()
    before = copy.deepcopy(of.model.state_dict())
    redraw_sensitive(of, 1.0, eligible="", within=match_names(of.params, "conv1|bn1"))
    assert [
        name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])
    ] == ["conv1.weight"]


# --- SCRUB: settings that did nothing, and an average of the weights that was dropped


def scrub(**changes) -> nn.Module:
    of, method = fresh(), SCRUB(distill_weight=0.3, temperature=2.0)
    how = {name: changes.pop(name) for name in ("ema", "momentum") if name in changes}
    whole(replace(method, **changes), steps=6, **how)(of)
    return of.model


@pytest.mark.parametrize(
    "change",
    [{"retain_weight": 0.5}, {"distill_weight": 0.0}, {"temperature": 4.0}, {"alternate": 0.34}],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_of_scrub_does_something(change: dict[str, float]):
    assert moved_apart(scrub(), scrub(**change)) > 1e-4


def test_the_average_of_scrubs_weights_is_the_result():
    last, average, start = scrub(), scrub(ema=0.99), fresh().model
    assert moved_apart(last, average) > 1e-4 and moved_apart(start, average) > 1e-4


def test_scrub_begins_where_the_forget_data_has_no_slope():
    of, recorder = recorded("layernorm")
    before = copy.deepcopy(of.model)
    whole(SCRUB(alternate=1.0), weight_decay=0.0)(of)  # a forget batch alone: the model is its own teacher
    (batch,) = recorder.drawn
    assert bool(of.split.is_forget[batch.ids].all()) and moved_apart(of.model, before) < 1e-12


def test_scrubs_teacher_takes_no_part_in_the_statistics():
    of, reference = fresh(), fresh().model
    whole(SCRUB(), steps=6, norm="frozen")(of)
    assert all(torch.equal(b, reference.get_buffer(name)) for name, b in of.model.named_buffers())


@for_each(("field", "value"), [("alternate", 0.0), ("alternate", 1.5), ("temperature", 0.0)])
def test_scrub_refuses_what_makes_no_run(field: str, value: float):
    with pytest.raises(ValueError, match=f"{field} must be .* found {value}"):
        SCRUB(**{field: value})


# --- data: itertools.cycle replays the first epoch for ever, augmentation included


def test_each_pass_over_the_forget_data_is_drawn_anew():
    of, recorder = recorded("layernorm")
    whole(NegGradPlus(), steps=8, forget_batch=4)(of)  # four batches a pass
    forget = [b for b in recorder.drawn if bool(of.split.is_forget[b.ids].all())]
    passes = [forget[:4], forget[4:]]
    orders = [[i for b in four for i in b.ids.tolist()] for four in passes]
    assert all(sorted(order) == of.split.forget.tolist() for order in orders) and orders[0] != orders[1]
    pictures_by_id = [
        {i: x for b in four for i, x in zip(b.ids.tolist(), pictures(b), strict=True)} for four in passes
    ]
    assert not any(torch.equal(pictures_by_id[0][i], pictures_by_id[1][i]) for i in pictures_by_id[0])


@pytest.mark.parametrize(("method", "part"), [(FineTune(), "retain"), (GradientAscent(), "forget")])
def test_an_epoch_is_every_example_once(method: FineTune | GradientAscent, part: str):
    of, recorder = recorded("layernorm")
    whole(method, steps=None, epochs=2, batch=10, forget_batch=5)(of)
    ids = of.split.part(part)[1].tolist()
    assert sorted(i for b in recorder.drawn for i in b.ids.tolist()) == sorted(ids * 2)


# --- SSD: squares of mean gradients grow as batches shrink, so that two sizes can't be compared


@for_each(("batch", "sizes"), [(64, [13]), (12, [7, 6]), (5, [5, 5, 3]), (1, [1] * 13)])
def test_both_importances_of_ssd_are_of_batches_of_one_size(batch: int, sizes: list[int]):
    of, recorder = recorded("layernorm")
    SelectiveSynapticDampening(batch=batch)(of)
    forget, all_batches = recorder.drawn[: len(sizes)], recorder.drawn[len(sizes) :]
    assert [len(b) for b in forget] == sizes
    assert all(bool(of.split.is_forget[b.ids].all()) for b in forget)
    assert {len(b) for b in all_batches[:-1]} == {sizes[0]} and sum(map(len, all_batches)) == 60
    assert of.cost.gradients == len(recorder.drawn)  # each is taken once


def test_ssd_looks_without_augmentation_and_leaves_no_trace_in_statistics():
    of, recorder = recorded("batchnorm")
    before = copy.deepcopy(of.model.state_dict())
    SelectiveSynapticDampening(alpha=1.0)(of)
    assert all(torch.equal(b, before[name]) for name, b in of.model.named_buffers())
    assert not torch.equal(of.model.bn1.weight, before["bn1.weight"])  # a normalisation's scale is a weight
    assert all(torch.equal(pictures(b), of.split.train.inputs[0][b.ids]) for b in recorder.drawn)


def test_ssd_refuses_numbers_that_mean_nothing():
    for wrong in ({"alpha": -1.0}, {"dampening": -0.1}, {"batch": 0}):
        with pytest.raises(ValueError, match=r"(alpha|dampening|batch) must be in \[[01], inf\), found"):
            SelectiveSynapticDampening(**wrong)


# --- the rest


def test_transposing_twice_through_a_shared_kernel_is_no_way_out():
    of = fresh()
    of.model.conv1 = nn.Conv2d(1, 6, 3, padding=1, bias=False).double()
    twin = nn.Conv2d(1, 6, 3, padding=1, bias=False)
    twin.weight = of.model.conv1.weight
    of.model.twin = twin
    before = of.model.conv1.weight.detach().clone()
    start = start_of(lambda: of, ConvolutionTranspose())
    assert torch.equal(start.conv1.weight, before.transpose(2, 3)) and not torch.equal(
        start.conv1.weight, before
    )


def test_a_frozen_kernel_is_not_transposed():
    of = fresh()
    of.model.conv1.weight.requires_grad_(False)
    before = of.model.conv1.weight.detach().clone()
    assert torch.equal(start_of(lambda: of, ConvolutionTranspose()).conv1.weight, before)
    of.model.conv2.weight.requires_grad_(False)
    with pytest.raises(ValueError, match="trainable square convolution kernels"):
        ConvolutionTranspose()(of)


def test_msg_without_a_trainable_matrix_is_refused():
    of = fresh()
    for _, module in of.blocks:
        module.requires_grad_(False)
    with pytest.raises(ValueError, match="none of this model's is trainable"):
        MaskedSmallGradients()(of)


def test_msg_takes_as_much_retain_as_forget_data():
    of, recorder = recorded("layernorm")
    whole(MaskedSmallGradients())(of)
    retain, forget = recorder.drawn[:2]
    assert not bool(of.split.is_forget[retain.ids].any()) and bool(of.split.is_forget[forget.ids].all())
    assert len(retain) == len(forget) == 13


def test_a_hidden_layer_of_any_name_can_be_eligible():
    def odd() -> Iterator[tuple[str, nn.Module]]:
        yield "my_bn_like_linear", nn.Linear(6, 8)
        yield "act", nn.Tanh()
        yield "layer3_norm", nn.LayerNorm(8)
        yield "out", nn.Linear(8, 4)

    model = nn.Sequential()
    for name, module in odd():
        model.add_module(name, module)
    of = problem("layernorm")
    of.model = model
    assert eligible_weights(of, "bn") == ["my_bn_like_linear.weight", "my_bn_like_linear.bias"]
    assert eligible_weights(of, "layer3|out") == ["out.weight", "out.bias"]


def test_a_single_example_is_forgotten_with_the_batch_it_has():
    train = Toy((torch.randn(20, 6, generator=torch.Generator().manual_seed(0)),), torch.arange(20) % 4)
    split = Split(
        train, [7], Toy((torch.randn(8, 6, generator=torch.Generator().manual_seed(1)),), torch.arange(8) % 4)
    )
    for method in (
        LUR(),
        Scissorhands(),
        SalUn(),
        MaskedSmallGradients(),
        NegGradPlus(),
        LUR(forget=Quantile()),
    ):
        of = Problem(Classifier(4), problem("layernorm").model, split, torch.Generator().manual_seed(0))
        replace(method, how=Descent(lr=0.01, steps=3))(of)
        assert of.cost.gradients >= 3
