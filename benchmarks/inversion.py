"""How often a deleted digit is re-identified from the update of its deletion, among 99 others of its class.

    OMP_NUM_THREADS=1 python benchmarks/inversion.py                     # a minute of one core
    OMP_NUM_THREADS=1 python benchmarks/inversion.py --methods neggrad+,salun --records 20

The net is that of the recipe `digits-clean`. Each of the records, drawn at random, is deleted by one ascent
step of the method `ascent`, and by each method that is named, with its default settings. The attacker knows
both nets and infers the label from the last bias. The control is an update of equal norm on a random retain
batch: the record has no part in it, so it should be re-identified once in a hundred.
"""

import argparse
import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unweave.audits.attacks.inversion import (
    Search,
    is_nearest,
    label_from_bias,
    loss_gradient,
    recover,
    reidentification,
    update_between,
)
from unweave.bench.recipe import Recipe, load
from unweave.bench.split_data import make_split
from unweave.descent.train import train_model
from unweave.methods import method_named
from unweave.methods.simple import GradientAscent
from unweave.problem import Problem
from unweave.record.record import environment
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.weights.params import norm, scale

STEP, CONTROL = "one ascent step", "control: equal norm on retain data"
DECOYS = 99


def one_step() -> GradientAscent:
    """The method `ascent` with a single step."""
    return GradientAscent(how=replace(GradientAscent().how, steps=1))


def deleted(recipe: Recipe, original: nn.Module, split: Split, method: str) -> nn.Module:
    """The net after the deletion of the split's forget set."""
    model, n = copy.deepcopy(original), split.n_classes
    generator = torch.Generator().manual_seed(0)
    problem = Problem(Classifier(n), model, split, generator, lambda: recipe.build(n), caller_model=original)
    (one_step() if method == STEP else method_named(method))(problem)
    return model


def control(original: nn.Module, split: Split, size: float, seed: int) -> dict[str, Tensor]:
    """The update of an ascent step on 16 retain examples, of the given norm."""
    drawn = torch.randperm(len(split.retain), generator=torch.Generator().manual_seed(seed))[:16]
    (raw,) = split.train.stream([split.retain[drawn]])
    gradient = loss_gradient(original, raw.inputs, raw.label)
    return scale(gradient, size / float(norm(gradient)))


def is_hit(
    original: nn.Module, update: Mapping[str, Tensor], split: Split, search: Search
) -> dict[str, bool]:
    """Whether the record is nearest to its reconstruction, and whether its label was inferred."""
    source, label = split.train, int(split.train.labels[split.forget])
    same = (source.labels == label).nonzero()[:, 0]
    decoys = same[same != split.forget][:DECOYS]
    record, others = (raw.inputs[0] for raw in source.stream([split.forget, decoys]))
    inferred = label_from_bias(list(update.values())[-1])
    found = recover(original, update, inferred, record.shape[1:], image=(1, 8, 8), search=search)
    return {"record": is_nearest(found.inputs, record[0], others), "label": inferred == label}


def measure(records: int, methods: list[str], iterations: int) -> dict[str, Any]:
    """The share of re-identified records, by method."""
    recipe = load("digits-clean")
    whole = make_split(recipe.data, family=recipe.family)
    original = train_model(recipe.train, lambda: recipe.build(10), whole, "mixed", 0).model
    inputs = next(iter(whole.train.stream([torch.arange(len(whole.train))]))).inputs[0]
    search = Search(iterations=iterations, least=float(inputs.min()), most=float(inputs.max()))
    chosen = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(1))[:records]
    names = [STEP, *methods, CONTROL]
    hits: dict[str, dict[int, dict[str, bool]]] = {name: {} for name in names}
    for position in chosen.tolist():
        split = Split(whole.train, [position], whole.held_out, calibration=whole.calibration.tolist())
        updates: dict[str, dict[str, Tensor]] = {}
        for name in [STEP, *methods]:
            updates[name] = update_between(original, deleted(recipe, original, split, name))
        updates[CONTROL] = control(original, split, float(norm(updates[STEP])), position)
        for name, update in updates.items():
            hits[name][position] = is_hit(original, update, split, search)
    rows = {}
    for name, found in hits.items():
        share = reidentification({i: each["record"] for i, each in found.items()})
        labels = reidentification({i: each["label"] for i, each in found.items()})
        rows[name] = {
            "hits": share.successes,
            "low": share.low,
            "high": share.high,
            "labels": labels.successes,
        }
    return {"records": records, "iterations": iterations, "rows": rows, "environment": environment()}


def main() -> None:
    """Measures, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=20)
    parser.add_argument("--methods", default="", help="names with commas between")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--record", type=Path, help="the file to keep everything in as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(asked.records, [each for each in asked.methods.split(",") if each], asked.iterations)
    if asked.record:
        asked.record.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, row in found["rows"].items():
        print(
            f"{name:<36} {row['hits']} of {found['records']} re-identified "
            f"({row['low']:.2f} to {row['high']:.2f}), label of {row['labels']}"
        )


if __name__ == "__main__":
    main()
