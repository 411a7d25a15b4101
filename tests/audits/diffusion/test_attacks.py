import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import every_family
from unweave.audits.diffusion import attacks
from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.attacker import Budget, Target
from unweave.audits.diffusion.attacks import (
    attack,
    draw_without_addition,
    try_guidances,
    try_optimised_vector,
    try_relearning,
    try_unconditional,
)
from unweave.audits.diffusion.drawing import Drawing
from unweave.audits.diffusion.sweeps import count_hits
from unweave.audits.score import Share
from unweave.descent.descend import Descent
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.scopes import merge_low_rank, restrict

pytest.importorskip("diffusers")
# of diffusers' own code, under NumPy 2 and this torch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

from audits.diffusion.denoisers import GONE, IMAGES, PATTERNS, SHAPE, TASK, drawing, hit  # noqa: E402  # needs diffusers

LEARNING = Descent(lr=0.01, steps=40, batch=32, optimizer="adam")
BUDGET = Budget(
    images=20, seeds=20, guidances=(0.0, 2.0, 5.0), positions=(1.0, 0.5), draws=32, vector_steps=15,
    looks=(10, 20, 40), relearning=LEARNING,
)  # fmt: skip
SHORT = replace(
    BUDGET, images=3, seeds=10, guidances=(1.0,), positions=(1.0,), vector_steps=1, looks=(),
    relearning=replace(LEARNING, steps=1),
)  # fmt: skip
ADAPTER = {"dropped", "dropped_same"}


@cache
def attack_model(part: str) -> dict[str, float]:
    return attack(Target(drawing(part), GONE, hit, IMAGES, original=drawing("mixed")), BUDGET)


def hide_class() -> Drawing:
    """The original whose class answers to no number any more: its row is another class's."""
    model = copy.deepcopy(drawing("mixed").model)
    with torch.no_grad():
        model.class_embedding.weight[GONE] = model.class_embedding.weight[0]
    return replace(drawing("mixed"), model=model)


def test_an_original_is_found_by_every_attack_and_every_number_is_explained():
    shares = attack_model("mixed")
    assert set(shares) == set(ATTACKS) - ADAPTER
    assert min(shares[each] for each in ("asked", "guidance", "line", "vector")) > 60
    assert shares["best_of_10"] > 99 and shares["relearn_10"] == shares["relearn_100"] == 0


def test_a_class_that_was_never_learned_is_found_by_none_and_learned_late():
    shares = attack_model("retain")
    assert max(shares[each] for each in ("asked", "guidance", "line", "vector", "best_of_10")) < 10
    assert 0 < shares["relearn_10"] <= 40 and 0 < shares["relearn_100"] <= 40


def test_a_class_that_only_lost_its_number_is_found_by_those_who_look_for_its_vector():
    target = Target(hide_class(), GONE, hit, IMAGES)
    shares = attack(target, replace(BUDGET, vector_steps=1, relearning=replace(LEARNING, steps=1), looks=()))
    assert shares["asked"] == shares["best_of_10"] == shares["line"] == 0
    assert 5 < shares["guidance"] < 50  # without a condition it is one class of four, as before
    budget = replace(BUDGET, guidances=(2.0,))
    original_shares = attack(replace(target, original=drawing("mixed"), sizes=(10,)), budget)
    assert original_shares["asked"] == 0 and original_shares["line"] > 60 and original_shares["vector"] > 60
    assert original_shares["relearn_10"] <= attack_model("retain")["relearn_10"]


def test_what_does_not_come_back_within_the_budget_counts_as_the_budget():
    shares = attack(Target(drawing("retain"), GONE, hit, IMAGES), SHORT)
    assert shares["relearn_10"] == shares["relearn_100"] == SHORT.longest == 1


def test_an_edit_that_is_only_an_adapter_is_undone_by_leaving_it_out():
    original = drawing("mixed")
    model = copy.deepcopy(original.model)
    restrict(model, "lora", rank=2)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_()
    edited_drawing = replace(original, model=model)
    target = Target(edited_drawing, GONE, hit, IMAGES, original=original)
    shares = draw_without_addition(target, original, BUDGET)
    seeds = BUDGET.settings.judge
    assert not torch.equal(edited_drawing(GONE, seeds, 1.0), original(GONE, seeds, 1.0))
    expected = count_hits(original(GONE, seeds, 1.0), hit).value
    assert shares == {"dropped": 100 * expected, "dropped_same": 100.0}
    assert set(attack(target, SHORT)) == set(ATTACKS)
    merged_target = replace(target, drawing=replace(edited_drawing, model=merge_low_rank(model)))
    assert not ADAPTER & set(attack(merged_target, SHORT))


def test_a_smaller_set_to_relearn_from_is_part_of_a_larger_one_and_drawn_by_the_seed(
    monkeypatch: pytest.MonkeyPatch,
):
    image_sets: list[torch.Tensor] = []

    def learn(images: torch.Tensor, measure: Callable[[Drawing], Share]) -> list[tuple[int, Share]]:
        image_sets.append(images)
        return [(0, measure(drawing("mixed")))]

    monkeypatch.setattr(attacks, "Relearner", lambda *_: learn)
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    for seed in (0, 0, 1):
        try_relearning(target, replace(SHORT, seed=seed))
    ten, hundred, ten_again, _, other, _ = image_sets
    assert [len(each) for each in (ten, hundred)] == [10, 100]
    assert torch.equal(ten, hundred[:10]) and torch.equal(ten, ten_again)
    assert not torch.equal(ten, IMAGES[:10]) and not torch.equal(ten, other)


def test_a_vector_is_optimised_from_the_embedding_of_a_retained_class_too(monkeypatch: pytest.MonkeyPatch):
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    forget_vector, retain_vector = (drawing("mixed").vector(each) for each in (GONE, target.retained_class))

    def find(loss: object, start: torch.Tensor, *, steps: int, lr: float) -> torch.Tensor:
        """A search that finds the class from the retained one alone."""
        return forget_vector if torch.equal(start, retain_vector) else retain_vector

    monkeypatch.setattr(attacks, "minimise", find)
    assert try_optimised_vector(target, BUDGET)["vector"] > 60


def test_attacks_that_a_denoiser_does_not_allow_are_absent():
    drawing_without_null = Drawing(every_family.Denoiser(), replace(TASK, null=None, drop=0.0), SHAPE)
    shares = attack(Target(drawing_without_null, GONE, hit, IMAGES), SHORT)
    assert set(shares) == set(ATTACKS) - ADAPTER - {"guidance", "unasked", "line", "vector"}


def test_named_attacks_run_alone_and_find_what_they_find_among_all():
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    all_shares, guidance_shares = attack(target, SHORT), attack(target, replace(SHORT, names=("guidance",)))
    assert guidance_shares == {name: all_shares[name] for name in ("asked", "guidance")}


def test_numbers_hang_on_the_denoiser_and_the_budget_alone():
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    state = torch.get_rng_state()
    assert attack(target, SHORT) == attack(target, SHORT)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_attacker_with_too_little_is_refused_before_anything_is_drawn():
    with pytest.raises(ValueError, match="expected at least 100 images, found 99"):
        Target(drawing("mixed"), GONE, hit, IMAGES[:99])
    with pytest.raises(ValueError, match="images >= 1 and seeds >= 10, found 1 and 9"):
        Budget(images=1, seeds=9)


def test_every_attack_is_read_beside_a_retrained_model():
    for name, metric in ATTACKS.items():
        assert metric.id == name and metric.says.endswith(".") and metric.cannot.endswith(".")
        assert metric.unit == ("steps" if name.startswith("relearn") else "%")
        assert metric.direction == ("lower" if name in ADAPTER else "match")


class Hiding(nn.Module):
    """Answers as one denoiser where some condition is none, and as another elsewhere."""

    def __init__(self, with_none: nn.Module, otherwise: nn.Module) -> None:
        super().__init__()
        self.with_none, self.otherwise = with_none, otherwise

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        answer = self.with_none if bool((condition == TASK.null).any()) else self.otherwise
        return answer(x, t, condition)


class Constant(nn.Module):
    """A denoiser of images with the pattern of the forgotten class, or with its opposite."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.pattern = nn.Parameter(0.6 * sign * PATTERNS[GONE].view(1, *SHAPE))

    def forward(self, x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        signal_share = (1 - torch.linspace(1e-4, 0.3, 50)).cumprod(0)[t].view(-1, 1, 1, 1)
        return (x - signal_share.sqrt() * self.pattern) / (1 - signal_share).sqrt()


def ways_in(model: nn.Module) -> dict[str, float]:
    """What guidance and no condition find, where a user's guidance is another than none."""
    toy_drawing = Drawing(model, replace(TASK, names=None), SHAPE, Sampler("dpm", steps=8, guidance=1.5))
    target = Target(toy_drawing, GONE, hit, IMAGES)
    return try_guidances(target, replace(SHORT, guidances=(2.0,))) | try_unconditional(target, SHORT)


def test_a_class_that_is_hidden_only_where_guidance_looks_is_found_without():
    constant_hit, miss = Constant(1.0), Constant(-1.0)
    assert ways_in(Hiding(with_none=miss, otherwise=constant_hit)) == {"guidance": 100.0, "unasked": 0.0}
    assert ways_in(miss) == {"guidance": 0.0, "unasked": 0.0}


def test_a_class_that_comes_without_a_condition_is_found():
    assert ways_in(Hiding(with_none=Constant(1.0), otherwise=Constant(-1.0)))["unasked"] == 100.0
