"""The exam of generators: what is drawn, what is measured, what a search may see."""

import hashlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import every_family
from unweave.audits.diffusion import fid
from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.class_images import refuse_unfit
from unweave.audits.diffusion.exam import TRIAL, DiffusionExam
from unweave.audits.diffusion.kid import kid
from unweave.audits.diffusion.metrics import GENERATION
from unweave.audits.diffusion.recogniser import make_recogniser
from unweave.audits.verdict import Verdict
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.errors import Failed
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.scopes import restrict

CLASSES, SIZE, COUNT = 3, 4, 24


class Shades(nn.Module):
    """A denoiser of grey images whose shade is that of their class; some classes it takes for others."""

    def __init__(self, instead: dict[int, int] | None = None) -> None:
        super().__init__()
        self.shade = nn.Parameter(torch.tensor([-0.8, 0.0, 0.8, 0.0]))
        self.instead = torch.arange(CLASSES + 1)
        for label, other in (instead or {}).items():
            self.instead[label] = other

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        alpha = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[t].float()
        alpha, shade = (v.view(-1, 1, 1, 1) for v in (alpha, self.shade[self.instead[condition]]))
        return (x - alpha.sqrt() * shade) / (1 - alpha).sqrt()


def images(n: int, seed: int) -> Resident:
    """Images of the three shades, a little noisy."""
    labels = torch.arange(CLASSES).repeat_interleave(n)
    noise = torch.randint(-6, 7, (len(labels), 1, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))
    shade = torch.tensor([26, 128, 229])[labels].view(-1, 1, 1, 1)
    return Resident((shade + noise).to(torch.uint8), labels, mean=(0.5,), std=(0.5,))


def nearest() -> nn.Module:
    """A classifier of images by their mean."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, CLASSES))
    shades = torch.tensor([-0.8, 0.0, 0.8])
    with torch.no_grad():
        model[1].weight.copy_(10 * shades[:, None].expand(-1, SIZE**2) / SIZE**2)
        model[1].bias.copy_(-5 * shades.square())
    return model


def exam(count: int = COUNT, *, searching: bool = False, forgotten: int = 1) -> DiffusionExam:
    train, held_out = images(30, 0), images(20, 1)
    split = Split(train, (train.labels == forgotten).nonzero()[:, 0], held_out)
    task = Diffusion(CLASSES, null=CLASSES, forgotten=(forgotten,))
    sampler = Sampler("ddim", steps=5, clip=True)
    return DiffusionExam(
        split, task, make_recogniser(nearest(), train, held_out), sampler, count, searching=searching
    )


def test_named_attacks_are_part_of_its_digest() -> None:
    train, held_out = images(100, 0), images(20, 1)
    split = Split(train, (train.labels > 0).nonzero()[:, 0], held_out)
    task, recogniser = Diffusion(CLASSES, null=CLASSES), make_recogniser(nearest(), train, held_out)
    full_exam = DiffusionExam(split, task, recogniser, Sampler(steps=5), COUNT, budget=Budget())
    partial_exam = full_exam.with_attacks("interpolation,guidance")
    assert partial_exam.budget is not None and partial_exam.budget.names == ("guidance", "interpolation")
    assert partial_exam.digest != full_exam.digest == full_exam.with_attacks("all").digest


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of peft, under NumPy 2
def test_attackers_of_an_addition_alone_have_the_original_and_classes_are_averaged(monkeypatch) -> None:
    pytest.importorskip("peft")
    train, held_out = images(100, 0), images(20, 1)
    split = Split(train, (train.labels > 0).nonzero()[:, 0], held_out)
    task = Diffusion(CLASSES, null=CLASSES, forgotten=(1, 2))
    recogniser = make_recogniser(nearest(), train, held_out)
    attack_exam = DiffusionExam(split, task, recogniser, Sampler(steps=5), COUNT, budget=Budget())
    originals: list[nn.Module | None] = []

    def attack_class(
        self: DiffusionExam, model: nn.Module, label: int, budget: Budget, original: nn.Module | None
    ) -> dict[str, float]:
        originals.append(original)
        return {"asked": float(label)}

    monkeypatch.setattr(DiffusionExam, "attack_class", attack_class)
    model, original = every_family.unet(), every_family.unet()
    assert attack_exam.probes(model, original) == {"asked": 1.5} and originals == [None, None]
    restrict(model, "lora", rank=2)
    assert attack_exam.probes(model, original) == {"asked": 1.5} and originals[2:] == [original, original]


def test_an_image_hangs_on_its_class_and_number() -> None:
    twenty, thirty = exam(20).answers(Shades()), exam(30).answers(Shades())
    for label in range(CLASSES):
        assert torch.equal(twenty[label], thirty[label][:20]) and len(thirty[label]) == 30
    other = replace(exam(20), first_seed=7).answers(Shades())
    assert any(not torch.equal(twenty[label], other[label]) for label in range(CLASSES))


def test_what_was_drawn_is_read_back(tmp_path) -> None:
    answers = exam().answers(Shades())
    exam().save(answers, tmp_path / "found.npz")
    copy = exam().load(tmp_path / "found.npz")
    assert copy.keys() == answers.keys()
    assert all(torch.equal(copy[label], answers[label]) for label in answers)


@pytest.mark.parametrize("length", [0, 40, -10])
def test_what_was_drawn_and_cut_off_is_refused_by_name(tmp_path, length) -> None:
    path = tmp_path / "0.npz"
    exam().save({0: torch.zeros(20, 1, 8, 8, dtype=torch.uint8)}, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"0.npz is truncated or holds no images .*delete it and 0.json"):
        exam().load(path)


def test_a_model_that_makes_every_class_and_one_that_remaps_one() -> None:
    values, remap = (exam().measure(exam().answers(model)) for model in (Shades(), Shades({1: 2})))
    assert values.keys() == {name for name, metric in GENERATION.items() if metric.of_one}
    assert (values["ua"], values["ra"]) == (0, 100)
    assert (remap["ua"], remap["ra"], remap["effective"]) == (100, 100, pytest.approx(1, abs=0.3))
    answers = exam().answers(Shades({1: 2}))
    pair = exam().measure_pair(answers, exam().answers(Shades({1: 0})))
    assert pair["class_tv"] == 1 and pair["kid_retain"] == pytest.approx(0, abs=1e-3)
    assert pair == {name: exam().measure(answers, exam().answers(Shades({1: 0})))[name] for name in pair}


def test_images_move_from_the_originals_under_retained_conditions_alone() -> None:
    answers, other = exam().answers(Shades()), exam().answers(Shades({1: 2}))
    assert (
        exam().drift(answers, answers)
        == exam().drift(other, answers)
        == {"drift_pixel": 0, "drift_feature": 0}
    )
    drift = exam().drift(exam().answers(Shades({0: 2})), answers)
    assert drift["drift_pixel"] == pytest.approx((229 - 26) / 2, abs=3) and drift["drift_feature"] > 0.1


def test_a_search_measures_less_and_sees_no_held_out_image(monkeypatch) -> None:
    searching = exam(searching=True)
    answers, other = searching.answers(Shades({1: 2})), searching.answers(Shades({1: 0}))
    monkeypatch.setattr(searching.split, "held_out", None)
    assert searching.measure(answers, other).keys() == set(TRIAL)
    assert searching.measure(answers).keys() == {"ua", "ra"}


def test_the_value_of_a_trial_by_hand() -> None:
    values = {"ua": 90.0, "ra": 97.0, "class_tv": 0.5, "kid_retain": 0.02}
    reference = {"ua": 96.0, "ra": 99.0, "kid": 0.0}
    trial = exam().score_trial(values, reference, 0.4)
    # (6 + 2 + 100 (0.5 - 0.4)) / 3 + 100 * 0.02
    assert trial["value"] == pytest.approx(6 + 2) and trial["gap"] == pytest.approx((6 + 2 + 50) / 3)
    # neither more accuracy than a retrained model's nor a KID below zero is further away
    better = exam().score_trial({**values, "ra": 100.0, "kid_retain": -0.01}, reference, 0.6)
    assert better["value"] == pytest.approx(6 / 3), (
        "neither more accuracy nor luck is further from retraining"
    )


def test_a_search_with_attackers_asks_how_soon_a_class_is_relearned() -> None:
    attacker = Budget(images=4, relearning=Descent(lr=1e-6, steps=2, batch=2), looks=(1,))
    practice = replace(exam(searching=True), budget=attacker)
    hidden_figures, retrained_figures = practice.probes(Shades()), practice.probes(Shades({1: 0}))
    assert hidden_figures == {"relearn_10": 0, **{f"relearned_10_at_{step}": 100 for step in (0, 1, 2)}}
    assert retrained_figures == {"relearn_10": 2, **{f"relearned_10_at_{step}": 0 for step in (0, 1, 2)}}
    values = {"ua": 90.0, "ra": 90.0, "class_tv": 0.0, "kid_retain": 0.0}
    trial = practice.score_trial({**values, **hidden_figures}, {**values, **retrained_figures}, 0.0)
    assert trial["sooner"] == 100 and trial["value"] == 100 / 4
    assert (
        practice.score_trial({**values, **retrained_figures}, {**values, **hidden_figures}, 0.0)["value"] == 0
    ), "later is no worse"


@pytest.mark.parametrize(("searching", "needed"), [(True, 10), (False, 100)])
def test_a_class_with_too_few_images_to_relearn_from_is_refused(searching: bool, needed: int) -> None:
    train, held_out = images(110, 0), images(20, 1)
    for count in (needed, needed - 1):
        is_used = (train.labels != 1) | ((train.labels == 1).cumsum(0) <= count)
        dataset = Resident(train.inputs[is_used], train.labels[is_used], mean=(0.5,), std=(0.5,))
        split = Split(dataset, (dataset.labels == 1).nonzero()[:, 0], held_out)
        if count == needed:
            refuse_unfit(split, searching=searching, attacked=True)
            continue
        refuse_unfit(split, searching=searching)
        with pytest.raises(
            ValueError, match=f"needs {needed} training images of a forgotten class, found {count}"
        ):
            refuse_unfit(split, searching=searching, attacked=True)


def test_a_class_that_the_original_never_makes_is_inconclusive() -> None:
    answers = exam().answers(Shades({1: 2}))
    values = [exam().measure(answers, answers)]
    judgement = exam().judge(values, [exam().measure(answers)], None, values, lambda: [answers])
    assert (
        judgement.verdict is Verdict.INCONCLUSIVE
        and "generates class 1 no more often than by chance" in judgement.reason
    )
    original_answers = exam().answers(Shades())
    judgement = exam().judge(values, [exam().measure(answers)], None, values, lambda: [original_answers])
    assert "no more often" not in judgement.reason and "1 seed, 10 needed" in judgement.reason


def test_a_model_that_has_diverged_has_failed() -> None:
    model = Shades()
    with torch.no_grad():
        model.shade.fill_(float("nan"))
    with pytest.raises(Failed, match="not finite"):
        exam().answers(model)


def test_only_whole_classes_can_be_forgotten() -> None:
    class_exam = exam()
    some_examples = Split(class_exam.split.train, [0, 40], class_exam.split.held_out)
    with pytest.raises(ValueError, match="name a class"):
        replace(class_exam, split=some_examples)


def test_the_kernel_distance_to_a_retrained_model_is_that_of_retained_conditions() -> None:
    base = exam()
    one, other = base.samples(base.answers(Shades())), base.samples(base.answers(Shades({1: 2, 2: 0})))
    expected = kid(one.groups((0, 2)), other.groups((0, 2)), paired=True)
    assert GENERATION["kid_retain"].of_two(one, other) == expected > 0.1


def test_an_fid_is_refused_before_anything_is_drawn_where_it_can_not_be_had(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="needs the file weights-inception.*, found none at .*none.pth"):
        replace(exam(), inception=tmp_path / "none.pth")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="whose SHA-256 begins with 6726825d, found e3b0c442"):
        replace(exam(), inception=path)
    monkeypatch.setattr(fid, "BEGINNING", "e3b0c442")  # of no bytes: the stub counts as the file
    with pytest.raises(ValueError, match=r"an FID needs (torchmetrics|at least 2049 images)"):
        replace(exam(), inception=path)


def test_facts_name_the_weights_of_inception(tmp_path, monkeypatch) -> None:
    assert "Inception" not in exam().facts
    monkeypatch.setattr("unweave.audits.diffusion.exam.refuse_no_fid", lambda *_: None)
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    facts = replace(exam(), inception=path).facts
    assert facts["Inception"] == {"sha256": hashlib.sha256(b"weights").hexdigest()}


def test_the_digest_hangs_on_all_that_images_hang_on() -> None:
    base = exam()
    variants = [
        exam(COUNT + 1),
        replace(base, sampler=Sampler("ddim", steps=6, clip=True)),
        replace(base, first_seed=1),
        replace(base, recogniser=replace(base.recogniser, scale=2.0)),
        replace(base, task=Diffusion(CLASSES, null=None, drop=0.0)),
    ]
    assert exam().digest == base.digest and len({base.digest, *(each.digest for each in variants)}) == 6
