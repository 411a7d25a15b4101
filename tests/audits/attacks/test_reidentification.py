"""Inversion in an audit: an exact ascent step gives records away, a random update does not."""

import base64
import copy
import io
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import nn

import unweave
from audits.answers import Examples, draw_evidence
from once_differentiable import Double
from unweave.audits.answers import Answers
from unweave.audits.attack import Subject
from unweave.audits.attacks import reidentification
from unweave.audits.attacks.attacked_records import draw_records, image_shape
from unweave.audits.attacks.reidentification import (
    ATTACK,
    NAME,
    attack_figures,
    check,
    draw,
    examine,
)
from unweave.audits.attacks.update_alignment import loss_gradient
from unweave.audits.pictures import png_of_levels
from unweave.cli import main
from unweave.data.datasets import RelabelledSource, load
from unweave.data.in_memory import Resident
from unweave.data.part_of_source import PartOfSource
from unweave.methods.simple import GradientAscent
from unweave.tasks.models import build

SIZES = {"forget": 3, "retain": 3, "calibration": 3, "test": 3}
BLANK = draw_evidence(0, SIZES)


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(reidentification, "ITERATIONS", 60)
    monkeypatch.setattr(reidentification, "RESTARTS", 1)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A net with fresh weights: the gradient of an example holds its input."""
    torch.manual_seed(0)
    return build("mlp", 10, {"hidden": 32})


def cuts(forget: Sequence[int], source=None):
    train, held_out = load("digits")
    train = train if source is None else source
    order = torch.arange(len(train))
    forget_order = torch.tensor(forget)
    return {
        "forget": (train, forget_order),
        "retain": (train, order[~torch.isin(order, forget_order)]),
        "calibration": (held_out, torch.arange(len(held_out))),
    }


def move(model: nn.Module, update) -> nn.Module:
    """The model after an update."""
    moved_model = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in moved_model.named_parameters():
            p.add_(update[name])
    return moved_model


def ascend(model: nn.Module, parts) -> nn.Module:
    source, order = parts["forget"]
    (batch,) = source.stream([order])
    gradient = loss_gradient(model, batch.inputs, batch.label)
    return move(model, {name: 0.01 * g for name, g in gradient.items()})


def move_randomly(model: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(1)
    return move(
        model, {name: 0.01 * torch.randn(p.shape, generator=draws) for name, p in model.named_parameters()}
    )


def examine_update(after: nn.Module, before: nn.Module, parts) -> Answers:
    return Answers(BLANK, measurements={NAME: examine(Subject(after, parts, "cpu", before))})


def test_an_exact_ascent_step_gives_its_records_away_and_a_random_update_does_not(model) -> None:
    parts = cuts([3, 17, 30])
    answers, other, control = (
        examine_update(each, model, parts) for each in (ascend(model, parts), move_randomly(model), model)
    )
    (name,) = attack_figures(answers, [])
    assert name == "re-identified, 3 of 3 attacked"
    assert attack_figures(answers, [])[name].value >= 2 / 3
    assert attack_figures(answers, [])[name].low == pytest.approx(
        {2: 0.0943, 3: 0.2924}[int(sum(answers.measurements[NAME]["hits"]))], abs=1e-4
    )  # Clopper and Pearson, from a table
    assert attack_figures(other, [])[name].value == attack_figures(control, [])[name].value == 0
    assert answers.measurements[NAME]["chance"] == [1 / 100] * 3
    validity = check(answers, control)
    assert (
        validity.is_valid and "attacks 3 of 3" in validity.says and "0 of 3, by chance 0.0" in validity.says
    )


class Keyed(Examples):
    """Examples whose input has a keyword."""

    def stream(self, order, *, generator=None):
        for batch in super().stream(order, generator=generator):
            assert isinstance(batch.inputs, tuple)
            yield replace(batch, inputs={"pixels": batch.inputs[0]})


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, *, pixels):
        return self.net(pixels)


def test_a_model_that_takes_its_input_by_keyword_is_attacked() -> None:
    model = ByKeyword()
    inputs = torch.randn(40, 20, generator=torch.Generator().manual_seed(0))
    order = torch.arange(40)
    parts = {"forget": order[:1], "retain": order[1:30], "calibration": order[30:], "test": order[30:]}
    data = Keyed(inputs, order % 2, parts)
    gradient = loss_gradient(model, {"pixels": inputs[:1]}, torch.tensor([0]))
    answers = examine_update(move(model, gradient), model, data.cuts)
    assert answers.measurements[NAME]["hits"] == [1.0] and "shape" not in answers.measurements[NAME]
    assert "No pictures" in check(answers_of([1.0] * 10), answers_of([0.0] * 10)).says


def test_targets_decoys_and_the_records_of_the_control_share_no_example() -> None:
    parts = cuts(list(range(0, 700, 7)))
    targets = draw_records(Subject(nn.Identity(), parts, "cpu", nn.Identity()))
    assert len(targets.labels) == len(targets.index) == 64
    assert parts["forget"][1][targets.index].tolist() == targets.cut[1].tolist()
    orders = [
        targets.cut[1],
        *(order for each in (targets.decoys, targets.others) for _, order in each.values()),
    ]
    assert len(torch.cat(orders).unique()) == sum(map(len, orders))
    for label, (source, order) in [*targets.decoys.items(), *targets.others.items()]:
        assert set(source.labels[order].tolist()) == {label}
    counts = targets.labels.bincount(minlength=10).tolist()
    assert [len(targets.others[label][1]) for label in range(10)] == counts
    assert torch.isin(torch.cat(orders[1:]), parts["retain"][1]).all()


def test_a_class_that_is_forgotten_whole_is_compared_with_held_out_examples() -> None:
    train, held_out = load("digits")
    parts = cuts((train.labels == 4).nonzero()[:, 0].tolist())
    targets = draw_records(Subject(nn.Identity(), parts, "cpu", nn.Identity()))
    assert targets.decoys[4][0].digest() == held_out.digest() and len(targets.decoys) == 1
    assert len(targets.decoys[4][1]) + len(targets.others[4][1]) == int((held_out.labels == 4).sum())


def answers_of(hits: Sequence[float], chance: float = 0.01) -> Answers:
    measurement = {"hits": list(hits), "chance": [chance] * len(hits), "of": [40.0], "index": [0.0]}
    return Answers(BLANK, measurements={NAME: measurement})


def test_a_control_above_chance_makes_the_attack_invalid() -> None:
    # P(two or more of ten at 1 %) = 1 - 0.99^10 - 0.1 x 0.99^9 = 0.0043; of one or more 0.096
    answers = answers_of([1.0] * 10)
    assert check(answers, answers_of([1.0] + [0.0] * 9)).is_valid
    validity = check(answers, answers_of([1.0, 1.0] + [0.0] * 8))
    assert not validity.is_valid
    assert validity.says == (
        "it is invalid: from the deletion of other records it re-identifies 2 of 10, by chance 0.1"
    )
    assert check(answers, answers_of([1.0, 1.0] + [0.0] * 8, chance=0.1)).is_valid
    assert not check(answers, None).is_valid


def test_a_control_that_can_not_fail_shows_nothing() -> None:
    # P(all of 6 at 1/2) = 1/64 = 0.016, of 7 1/128 = 0.008; P(the only one at 1 %) = 0.01
    for hits, chance, enough in ((6, 0.5, False), (7, 0.5, True), (1, 0.01, False), (2, 0.01, True)):
        validity = check(answers_of([1.0] * hits), answers_of([0.0] * hits, chance))
        assert validity.is_valid == enough, (hits, chance)
        assert enough or validity.says.startswith("its control can't fail: ")


def test_what_cannot_be_inverted_has_a_reason_and_no_figure(model) -> None:
    parts = cuts([3, 17, 30])
    null = examine_update(copy.deepcopy(model), model, parts)
    assert check(null, null).says.startswith("no weight differs from the original's")
    parts_of = dict(zip(SIZES, torch.arange(4).split(1), strict=True))
    tokens = Examples(torch.zeros(6, 4).long(), torch.zeros(6).long(), parts_of)
    ones = replace(tokens, inputs=torch.ones(6, 64))
    lonely_examples = replace(ones, labels=torch.arange(6))
    moved_model = move_randomly(model)
    for source, why in (
        (tokens, "it reconstructs inputs that are one tensor of floats, and these are not"),
        (replace(ones, parts={**parts_of, "retain": torch.arange(1, 5)}), "the inputs of the forget set all"),
        (lonely_examples, "no class of a forget example has two others"),
    ):
        answers = examine_update(moved_model, model, source.cuts)
        assert attack_figures(answers, []) == {} and draw(answers) == []
        assert not check(answers, answers).is_valid and check(answers, answers).says.startswith(why)
    with pytest.raises(ValueError, match="an update is between two models of one architecture"):
        examine_update(build("mlp", 10, {"hidden": 33}), model, parts)


class OnceDifferentiable(nn.Linear):
    """A linear classifier whose logits have no second derivative."""

    def forward(self, x):
        return Double.apply(super().forward(x))


def test_a_model_without_second_derivatives_is_refused_by_name() -> None:
    model = OnceDifferentiable(64, 10)
    with pytest.raises(ValueError, match=r"needed by the attack inversion, .* leave it out"):
        examine_update(move_randomly(model), model, cuts([3]))


def test_an_audit_shows_pictures_and_keeps_them_for_another_page(model, tmp_path) -> None:
    train, held_out = load("digits")
    split = unweave.Split(train, [3, 17, 30], held_out)
    step = GradientAscent(how=replace(GradientAscent().how, steps=1, batch=512))
    result = unweave.unlearn(model, split, step)
    audit = unweave.audit(result, attacks=NAME)
    audit.save(tmp_path)
    attacks = json.loads((tmp_path / "record.json").read_text())["stages"]["audit"]["attacks"]
    assert {each["title"].split(": ")[0] for each in attacks["pictures"]} == {"3", "17", "30"}
    page = tmp_path / "report.html"
    text = page.read_text()
    assert all(image in text for each in attacks["pictures"] for image in each["images"].values())
    assert "inversion attacks 3 of 3 forget examples together" in text
    assert (
        "hold pictures of 3 attacked records: keep these files as you keep the data."
        in attacks["notes"][NAME]
    )
    page.unlink()
    assert main(["report", str(tmp_path), "--quiet"]) == 0
    assert attacks["pictures"][0]["images"]["reconstruction"] in page.read_text()


def test_a_picture_holds_its_levels() -> None:
    for shape, levels in (((1, 2, 3), [0, 50, 100, 150, 200, 255]), ((3, 1, 2), [255, 0, 0, 10, 20, 30])):
        pixels = imread(io.BytesIO(base64.b64decode(png_of_levels(levels, shape).split(",")[1])))
        expected = np.broadcast_to(np.reshape(levels, shape).transpose(1, 2, 0), (*shape[1:], 3))
        np.testing.assert_array_equal(np.rint(pixels[..., :3] * 255), expected)


def test_images_are_known_by_their_shape_or_by_their_source() -> None:
    train, _ = load("digits")
    assert image_shape(train, (64,)) == (1, 8, 8)
    wrapped_source = PartOfSource(RelabelledSource(train, train.labels), torch.arange(9))
    assert image_shape(wrapped_source, (64,)) == (1, 8, 8)
    plain_source = Resident(torch.zeros(2, 64), torch.zeros(2).long())
    assert image_shape(plain_source, (64,)) is None and image_shape(plain_source, (3, 5, 5)) == (3, 5, 5)
    assert image_shape(plain_source, (7, 5, 5)) is None and image_shape(plain_source, (3, 1, 5)) is None


def test_it_is_no_default_and_needs_both_models() -> None:
    assert not ATTACK.default and ATTACK.tier == 0 and ATTACK.examine is not None
    assert ATTACK.gradients == reidentification.GRADIENTS == 800
