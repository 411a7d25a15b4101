"""Attacks on a class-conditional denoiser; `attack` runs them, and `attack_metrics` says what each shows.

Compare each with the same attack on a retrained denoiser, which may also produce something like the class,
and on the original, which shows the power of the attack. None is a bound: a stronger attack may exist.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.attacker import PATIENCE, Budget, Target
from unweave.audits.diffusion.conditioning import minimise
from unweave.audits.diffusion.drawing import Drawing, Relearner, denoising_loss
from unweave.audits.diffusion.relearning import Relearning
from unweave.audits.diffusion.sweeps import Attack, best_of, best_setting, count_hits
from unweave.audits.score import Share
from unweave.tasks.diffusion.condition_vectors import takes_vectors
from unweave.tasks.diffusion.scopes import drop_low_rank
from unweave.tasks.low_rank import find_additions

Numbers = dict[str, float]

NO_GUIDANCE = 1.0
"""The guidance scale that uses the output under the condition alone."""

T = TypeVar("T")

Try = Callable[[Target, Budget], Numbers]


def attack(target: Target, budget: Budget) -> Numbers:
    """Runs the attacks of a budget; returns the numbers of `ATTACKS`, by id.

    Attacks that the denoiser does not allow are left out: by guidance and without a condition if it has no
    null condition, by vectors if it takes none, and by dropping its low-rank additions if it has none or
    there is no `original` to compare with. A class that does not come back within the budget counts as the
    budget.
    """
    numbers = try_condition(target, budget) | run_chosen(attacks_on(target), target, budget)
    return {name: numbers[name] for name in ATTACKS if name in numbers}


def attacks_on(target: Target) -> dict[str, Try]:
    """The attacks that a denoiser allows, by name."""
    attacks: dict[str, Try] = {"many-seeds": try_seeds, "relearning-from-images": try_relearning}
    if target.drawing.task.null is not None:
        attacks |= {"guidance": try_guidances, "no-condition": try_unconditional}
    if takes_vectors(target.drawing.model):
        attacks |= {"interpolation": try_interpolation, "optimised-vector": try_optimised_vector}
    if find_additions(target.drawing.model) and target.original is not None:
        attacks["without-adapter"] = try_without_addition
    return attacks


def run_chosen(attacks: Mapping[str, Callable[[T, Budget], Numbers]], attacked: T, budget: Budget) -> Numbers:
    """The numbers of those attacks that a budget names."""
    numbers: Numbers = {}
    for name, of in attacks.items():
        if budget.runs(name):
            numbers |= of(attacked, budget)
    return numbers


def try_condition(target: Target, budget: Budget) -> Numbers:
    """No attack: draws the class as its users do."""
    images = target.drawing(target.condition, budget.settings.judge, target.guidance)
    return {"asked": 100 * count_hits(images, target.hit).value}


def best_condition(target: Target, budget: Budget, conditions: Mapping[float, int | Tensor]) -> float:
    """The share of images that show the class under the best of some conditions, in percent."""
    draws = {
        each: partial(target.drawing, condition, guidance=target.guidance)
        for each, condition in conditions.items()
    }
    return percent(best_setting(draws, target.hit, budget.settings))


def try_guidances(target: Target, budget: Budget) -> Numbers:
    """Tries other guidances, and none, which hides from the model that guidance is used."""
    guidances = dict.fromkeys((target.guidance, NO_GUIDANCE, *budget.guidances))  # ties go to the first
    draws = {each: partial(target.drawing, target.condition, guidance=each) for each in guidances}
    return {"guidance": percent(best_setting(draws, target.hit, budget.settings))}


def try_unconditional(target: Target, budget: Budget) -> Numbers:
    """Draws without a condition: a class that only lost its condition still occurs among the images."""
    assert target.drawing.task.null is not None
    images = target.drawing(target.drawing.task.null, budget.many_seeds, NO_GUIDANCE)
    return {"unasked": 100 * count_hits(images, target.hit).value}


def try_seeds(target: Target, budget: Budget) -> Numbers:
    """Tries many seeds: a class that is only rare comes back with patience."""
    images = target.drawing(target.condition, budget.many_seeds, target.guidance)
    return {"best_of_10": 100 * best_of(count_hits(images, target.hit), PATIENCE)}


def embeddings(target: Target) -> tuple[Tensor, Tensor]:
    """The embeddings of the forgotten class, the original's if that is known, and of a retained class."""
    drawing = target.original or target.drawing
    return drawing.vector(target.condition), target.drawing.vector(target.retained_class)


def try_interpolation(target: Target, budget: Budget) -> Numbers:
    """Tries vectors on the line from a retained class's embedding (0) through the forgotten class's (1)."""
    end, start = embeddings(target)
    points = {each: start + each * (end - start) for each in budget.positions}
    return {"line": best_condition(target, budget, points)}


def try_optimised_vector(target: Target, budget: Budget) -> Numbers:
    """Optimises a vector, starting at the embeddings of the forgotten and of a retained class.

    Textual inversion (Gal et al., 2022) with the vector of a condition instead of a token, as in
    UnlearnDiffAtk (Zhang et al., 2023) without its discrete prefixes.
    """
    loss = denoising_loss(target.drawing, target.images, draws=budget.draws, seed=budget.seed)
    steps, lr = budget.vector_steps, budget.vector_lr
    vectors = {
        float(i): minimise(loss, each, steps=steps, lr=lr) for i, each in enumerate(embeddings(target))
    }
    return {"vector": best_condition(target, budget, vectors)}


def try_relearning(target: Target, budget: Budget) -> Numbers:
    """Fine-tunes a copy on a few images."""
    curves = relearning_curves(target, budget)
    return {f"relearn_{size}": min(curve.steps(), budget.longest) for size, curve in curves.items()}


def relearning_curves(target: Target, budget: Budget) -> dict[int, Relearning]:
    """The course of relearning, by the number of images; a smaller set is part of a larger one."""
    relearn = Relearner(target.drawing, target.condition, budget.relearning, budget.looks, budget.seed)
    order = torch.randperm(len(target.images), generator=torch.Generator().manual_seed(budget.seed))

    def share(draw: Drawing) -> Share:
        return count_hits(draw(target.condition, budget.settings.judge, target.guidance), target.hit)

    return {size: Relearning(tuple(relearn(target.images[order[:size]], share))) for size in target.sizes}


def try_without_addition(target: Target, budget: Budget) -> Numbers:
    """Leaves the low-rank additions out, beside the known original."""
    assert target.original is not None, "only such targets are attacked"
    return draw_without_addition(target, target.original, budget)


def draw_without_addition(target: Target, original: Drawing, budget: Budget) -> Numbers:
    """Draws without the low-rank additions: a user who gets them as a separate file can leave them out.

    `dropped_same` is the share of images that equal the original's bit for bit: at 100 the edit is undone.
    """
    bare_drawing = replace(target.drawing, model=drop_low_rank(target.drawing.model))
    images, original_images = (
        draw(target.condition, budget.settings.judge, target.guidance) for draw in (bare_drawing, original)
    )
    share = (images == original_images).flatten(1).all(dim=1).double().mean()
    return {"dropped": 100 * count_hits(images, target.hit).value, "dropped_same": 100 * float(share)}


def percent(result: Attack) -> float:
    """The success of an attack, in percent."""
    return 100 * result.success.value
