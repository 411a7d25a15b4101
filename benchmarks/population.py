"""The CPU time of a population of digits nets: trained together, and one after the other.

    OMP_NUM_THREADS=1 python benchmarks/population.py             # minutes of one core
    python benchmarks/population.py --models 64 --rounds 3 --record population.json

The nets are those of the recipe `digits-trace`, 64-512-10, each with its own weights and order and without
its own half of the forget set. In each round both ways train the same models, one after the other on one
thread, and the order of the two ways alternates. Reported are CPU times, their ratio per round, and the
accuracy of the models on the test set, which must not depend on the way.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from time import process_time
from typing import Any

import torch
from rows import write_json
from torch import nn

from unweave.audits.classifier.accuracy import ta
from unweave.audits.classifier.collect import collect
from unweave.audits.classifier.evidence import Evidence
from unweave.bench.recipe import Recipe, load
from unweave.bench.split_data import make_split
from unweave.descent.populations.halves import antithetic_halves, half_members
from unweave.descent.populations.population import TOGETHER, Member, Population, train_population
from unweave.record.record import environment


def members_of(recipe: Recipe, models: int) -> list[Member]:
    """Members that train on the retain set and one half of the forget set."""
    split = make_split(recipe.data, family=recipe.family)
    halves = antithetic_halves(len(split.forget), models // 2, torch.Generator().manual_seed(0))
    return half_members(split, halves)


def train(recipe: Recipe, members: Sequence[Member], together: int) -> tuple[float, Population]:
    """The CPU seconds of training all members, and the models."""
    start = process_time()
    population = train_population(
        recipe.train, lambda: recipe.build(members[0].split.n_classes), members, together=together
    )
    return process_time() - start, population


def answers_of(members: Sequence[Member], population: Population) -> list[Evidence]:
    """The answers of each model."""
    parts = [
        {name: member.split.part(name) for name in ("forget", "retain", "calibration", "test")}
        for member in members
    ]
    return [
        collect(trained.model, part, device="cpu")
        for trained, part in zip(population.models, parts, strict=True)
    ]


def count_other_answers(one: Evidence, other: Evidence) -> int:
    """The test examples that two models assign to different classes."""
    ours, theirs = (each.logits["test"].argmax(1) for each in (one, other))
    return int((ours != theirs).sum())


def weight_difference(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of a weight."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


def measure(models: int, rounds: int) -> dict[str, Any]:
    """Everything that is reported."""
    recipe = load("digits-trace")
    members = members_of(recipe, models)
    train(recipe, members[:2], TOGETHER), train(recipe, members[:1], 1)  # the first run imports and allocates
    seconds: dict[int, list[float]] = {TOGETHER: [], 1: []}
    populations: dict[int, Population] = {}
    for number in range(rounds):
        for together in (1, TOGETHER) if number % 2 else (TOGETHER, 1):
            duration, population = train(recipe, members, together)
            assert not population.alone, population.alone
            seconds[together].append(duration)
            populations[together] = population
    ratios = [one / other for one, other in zip(seconds[1], seconds[TOGETHER], strict=True)]
    answers = {how: answers_of(members, population) for how, population in populations.items()}
    accuracies = {how: [ta(each) for each in models] for how, models in answers.items()}
    differences = [abs(one - other) for one, other in zip(accuracies[1], accuracies[TOGETHER], strict=True)]
    twins = [*zip(populations[1].models, populations[TOGETHER].models, strict=True)]
    pairs = [*zip(answers[1], answers[TOGETHER], strict=True)]
    return {
        "models": models,
        "rounds": rounds,
        "together": TOGETHER,
        "seconds_together": seconds[TOGETHER],
        "seconds_alone": seconds[1],
        "ratios": ratios,
        "ratio": median(ratios),
        "accuracy": {"together": mean(accuracies[TOGETHER]), "alone": mean(accuracies[1])},
        "largest_difference": max(differences),
        "other_answers": {
            "of a pair": mean(count_other_answers(*pair) for pair in pairs),
            "of two seeds": mean(count_other_answers(*pair) for pair in pairwise(answers[1])),
            "examples": len(answers[1][0].logits["test"]),
        },
        "weights": sorted(weight_difference(one.model, other.model) for one, other in twins),
        "environment": environment(),
    }


def main() -> None:
    """Measures, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=int, default=64, help="an even number")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", type=Path, help="the file to keep everything in as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    row = measure(arguments.models, arguments.rounds)
    write_json(arguments.record, row)
    print(
        f"{row['models']} models, {row['rounds']} rounds of CPU seconds, one thread\n"
        f"  together  {' '.join(f'{each:.1f}' for each in row['seconds_together'])}\n"
        f"  alone     {' '.join(f'{each:.1f}' for each in row['seconds_alone'])}\n"
        f"  ratio     {row['ratio']:.2f}  at least 2.00: {'yes' if row['ratio'] >= 2 else 'NO'}\n"
        "  accuracy  "
        f"{row['accuracy']['together']:.2f} % together, {row['accuracy']['alone']:.2f} % alone, "
        f"largest difference of a pair {row['largest_difference']:.2f} points\n"
        f"  answers   {row['other_answers']['of a pair']:.1f} of {row['other_answers']['examples']} test "
        f"examples differ within a pair, {row['other_answers']['of two seeds']:.1f} between two seeds\n"
        f"  weights   differ by at most {row['weights'][0]:.1g} to {row['weights'][-1]:.1g}"
    )


if __name__ == "__main__":
    main()
