import copy
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
from unweave.descent.descend import Descent
from unweave.tasks.diffusion.sample import Sampler
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
    found = attack_model("mixed")
    assert set(found) == set(ATTACKS) - ADAPTER
    assert min(found[each] for each in ("asked", "guidance", "line", "vector")) > 60
    assert found["best_of_10"] > 99 and found["relearn_10"] == found["relearn_100"] == 0


def test_a_class_that_was_never_learned_is_found_by_none_and_learned_late():
    found = attack_model("retain")
    assert max(found[each] for each in ("asked", "guidance", "line", "vector", "best_of_10")) < 10
    assert 0 < found["relearn_10"] <= 40 and 0 < found["relearn_100"] <= 40


def test_a_class_that_only_lost_its_number_is_found_by_those_who_look_for_its_vector():
    target = Target(hide_class(), GONE, hit, IMAGES)
    alone = attack(target, replace(BUDGET, vector_steps=1, relearning=replace(LEARNING, steps=1), looks=()))
    assert alone["asked"] == alone["best_of_10"] == alone["line"] == 0
    assert 5 < alone["guidance"] < 50  # without a condition it is one class of four, as before
    few = replace(BUDGET, guidances=(2.0,))
    knowing = attack(replace(target, original=drawing("mixed"), sizes=(10,)), few)
    assert knowing["asked"] == 0 and knowing["line"] > 60 and knowing["vector"] > 60
    assert knowing["relearn_10"] <= attack_model("retain")["relearn_10"]


def test_what_does_not_come_back_within_the_budget_counts_as_the_budget():
    found = attack(Target(drawing("retain"), GONE, hit, IMAGES), SHORT)
    assert found["relearn_10"] == found["relearn_100"] == SHORT.longest == 1


def test_an_edit_that_is_only_an_adapter_is_undone_by_leaving_it_out():
    original = drawing("mixed")
    model = copy.deepcopy(original.model)
    restrict(model, "lora", rank=2)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_()
    edited = replace(original, model=model)
    target = Target(edited, GONE, hit, IMAGES, original=original)
    found = draw_without_addition(target, original, BUDGET)
    seeds = BUDGET.settings.judge
    assert not torch.equal(edited(GONE, seeds, 1.0), original(GONE, seeds, 1.0))
    expected = count_hits(original(GONE, seeds, 1.0), hit).value
    assert found == {"dropped": 100 * expected, "dropped_same": 100.0}
    assert set(attack(target, SHORT)) == set(ATTACKS)
    shipped = replace(target, drawing=replace(edited, model=merge_low_rank(model)))
    assert not ADAPTER & set(attack(shipped, SHORT))


def test_a_smaller_set_to_relearn_from_is_part_of_a_larger_one_and_drawn_by_the_seed(
    monkeypatch: pytest.MonkeyPatch,
):
    seen: list[torch.Tensor] = []

    def learn(images: torch.Tensor) -> list[tuple[int, Drawing]]:
        seen.append(images)
        return [(0, drawing("mixed"))]

    monkeypatch.setattr(attacks, "Relearner", lambda *_: learn)
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    for seed in (0, 0, 1):
        try_relearning(target, replace(SHORT, seed=seed))
    few, many, again, _, other, _ = seen
    assert [len(each) for each in (few, many)] == [10, 100]
    assert torch.equal(few, many[:10]) and torch.equal(few, again)
    assert not torch.equal(few, IMAGES[:10]) and not torch.equal(few, other)


def test_a_vector_is_optimised_from_the_embedding_of_a_retained_class_too(monkeypatch: pytest.MonkeyPatch):
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    gone, retained = (drawing("mixed").vector(each) for each in (GONE, target.retained_class))

    def find(loss: object, start: torch.Tensor, *, steps: int, lr: float) -> torch.Tensor:
        """A search that finds the class from the retained one alone."""
        return gone if torch.equal(start, retained) else retained

    monkeypatch.setattr(attacks, "minimise", find)
    assert try_optimised_vector(target, BUDGET)["vector"] > 60


def test_attacks_that_a_denoiser_does_not_allow_are_absent():
    plain = Drawing(every_family.Denoiser(), replace(TASK, null=None, drop=0.0), SHAPE)
    found = attack(Target(plain, GONE, hit, IMAGES), SHORT)
    assert set(found) == set(ATTACKS) - ADAPTER - {"guidance", "unasked", "line", "vector"}


def test_named_attacks_run_alone_and_find_what_they_find_among_all():
    target = Target(drawing("mixed"), GONE, hit, IMAGES)
    everything, some = attack(target, SHORT), attack(target, replace(SHORT, names=("guidance",)))
    assert some == {name: everything[name] for name in ("asked", "guidance")}


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
        kept = (1 - torch.linspace(1e-4, 0.3, 50)).cumprod(0)[t].view(-1, 1, 1, 1)
        return (x - kept.sqrt() * self.pattern) / (1 - kept).sqrt()


def ways_in(model: nn.Module) -> dict[str, float]:
    """What guidance and no condition find, where a user's guidance is another than none."""
    drawn = Drawing(model, replace(TASK, names=None), SHAPE, Sampler("dpm", steps=8, guidance=1.5))
    target = Target(drawn, GONE, hit, IMAGES)
    return try_guidances(target, replace(SHORT, guidances=(2.0,))) | try_unconditional(target, SHORT)


def test_a_class_that_is_hidden_only_where_guidance_looks_is_found_without():
    shows, hides = Constant(1.0), Constant(-1.0)
    assert ways_in(Hiding(with_none=hides, otherwise=shows)) == {"guidance": 100.0, "unasked": 0.0}
    assert ways_in(hides) == {"guidance": 0.0, "unasked": 0.0}


def test_a_class_that_comes_without_a_condition_is_found():
    assert ways_in(Hiding(with_none=Constant(1.0), otherwise=Constant(-1.0)))["unasked"] == 100.0
