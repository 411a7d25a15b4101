"""What attacks on single models find of each method, beside its verdict and gap in the benchmark.

    export OMP_NUM_THREADS=1
    python benchmarks/attacks_by_method.py digits-trace --record records/attacks-by-method.json

The benchmark gives the verdict and the mean gap of each method on all seeds of a recipe. Then the models of
its first seeds are attacked one at a time, as `unweave audit --attacks` does: beside the retrained models of
all seeds, with margins from the calibration retrains; each retrained model is attacked beside the others. The
order of methods by an attack is that of the distance from retrained models in margins, of the figure that is
furthest, as a mean over seeds. Kendall's tau compares it with the order by gap; p is that of two independent
orders. An attack takes a PASS away if it finds more than half of the attacked models, by any of its figures.

Recipes may differ in the settings of methods alone; models and what attacks keep of them are stored in --out.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from attack_ranking import compare
from compact import write_compact
from torch import nn

from unweave.audits.answers import Answers
from unweave.audits.attack import EXAMINING_FORMAT, Attack, ModelAnswers
from unweave.audits.attack_runs.compare import AuditedModels, Null, figures_of, judge_figures, null_of
from unweave.audits.attack_runs.controls import drop_reference
from unweave.audits.attack_runs.plan import choose_attacks
from unweave.audits.attack_runs.report import distance_in_margins
from unweave.audits.classifier.prepare_attacks import examine_with
from unweave.bench.bench import bench
from unweave.bench.cache import read_or_make
from unweave.bench.recipe import Recipe, load
from unweave.bench.stage import Stage
from unweave.bench.study import REFERENCES
from unweave.descent.train import digest
from unweave.record import checkpoint
from unweave.record.compact import read_record
from unweave.record.record import environment

ATTACKS = (
    "forget-vs-unseen,rmia,functional-distance,streisand,"
    "representation,compression,relearning,update-alignment,inversion"
)
METHODS = (
    "lur,lur:recover,lur-lagged:recover,joint,joint:recover,salun,salun:recover,neggrad+,"
    "neggrad+:recover,scissorhands,msg,msg:recover,ascent"
)

ANY = "any attack"

Row = dict[str, Any]


@dataclass(frozen=True)
class AttackedSeed:
    """One seed of a stage: its original, and all retrained models, which are examined beside it.

    Args:
        stage: The stage, with the models of all seeds.
        seed: The seed of the original.
        attacks: The attacks.
    """

    stage: Stage
    seed: int
    attacks: Sequence[Attack]

    @cached_property
    def original(self) -> nn.Module:
        """The model before unlearning."""
        return self.stage.load_or_train("mixed", self.seed).model

    @cached_property
    def case(self) -> AuditedModels:
        """The models of an audit, with the original as the model to attack."""
        recipe = self.stage.recipe
        retrained, calibration = (
            [self.examine(self.stage.load_or_train("retain", each).model) for each in seeds]
            for seeds in (recipe.seeds, recipe.calibration_seeds)
        )
        before = self.examine(self.original)
        return AuditedModels(before, retrained, calibration, before)

    def unlearn(self, name: str) -> nn.Module:
        """The model after a method."""
        problem = self.stage.problem(self.original, self.seed, {})
        self.stage.recipe.method(name)(problem)
        return problem.model.eval()

    def examine(self, model: nn.Module) -> ModelAnswers:
        """The answers of a model, and what each attack keeps of it."""
        exam, weights = self.stage.exam(), checkpoint.contents(model.state_dict())
        attacks = [each for each in self.attacks if each.examine]

        def make() -> Row:
            return {"kept": examine_with(attacks, exam, self.original)(model)}

        facts = {"attacks": [each.name for each in attacks], "format": EXAMINING_FORMAT}
        facts |= {"data": self.stage.split().digest(), "model": weights}
        facts |= {"original": checkpoint.contents(self.original.state_dict())}
        key = digest(facts)
        measurements = read_or_make(self.stage.folder / "examined" / key, key, make)["kept"]
        return Answers(exam.answers(model), measurements=measurements)

    def attack(self, model: ModelAnswers) -> dict[str, Row]:
        """The figures of a model by "attack: figure"; none that can't be read or judged."""
        return self.judge(model, self.case.retrained, self.nulls)

    def attack_references(self) -> list[dict[str, Row]]:
        """The figures of each retrained model, beside the others."""
        return [
            self.judge(
                each,
                self.case.without(index).retrained,
                {name: drop_reference(null, index) for name, null in self.nulls.items()},
            )
            for index, each in enumerate(self.case.retrained)
        ]

    def judge(
        self, model: ModelAnswers, retrained: Sequence[ModelAnswers], nulls: Mapping[str, Null]
    ) -> dict[str, Row]:
        """The figures of a model beside some retrained models."""
        return {
            f"{attack.name}: {name}": {
                "value": each.value,
                "retrained": each.retrained,
                "margins": distance_in_margins(each),
                "found": each.finding is not None,
            }
            for attack in self.attacks
            if attack.check is None or attack.check(model, self.case.original).is_valid
            for name, each in judge_figures(
                attack, figures_of(attack, model, retrained), nulls[attack.name]
            ).items()
            if not each.unjudged
        }

    @cached_property
    def nulls(self) -> Mapping[str, Null]:
        """The figures of the retrained models, by attack."""
        return {attack.name: null_of(attack, self.case) for attack in self.attacks}


def attack_stage(stage: Stage, stage_record: Mapping[str, Any], seeds: int, attacks: Sequence[Attack]) -> Row:
    """The verdict, the gap and the figures of every method of a stage that did not fail."""
    cases = [AttackedSeed(stage, seed, attacks) for seed in stage.recipe.seeds[:seeds]]
    rows = {}
    for name, method in stage_record["methods"].items():
        if method["failed"] is not None:
            rows[name] = {"failed": method["failed"]}
            continue
        figures = (
            cases[0].attack_references()
            if name == "retrain"
            else [case.attack(case.examine(case.unlearn(name))) for case in cases]
        )
        gap = round(method["gap"]["mean"], 3)
        rows[name] = {"failed": None, "verdict": method["verdict"], "gap": gap, "figures": merge(figures)}
    return {
        "methods": rows,
        "kendall": {attack.name: rank(rows, attack.name) for attack in attacks},
        "passes": [name for name in ranked(rows) if rows[name]["verdict"] == "PASS"],
        "taken away": {
            name: overturned_passes(rows, name) for name in (*(each.name for each in attacks), ANY)
        },
    }


def merge(figures: Sequence[Mapping[str, Row]]) -> dict[str, Row]:
    """The figures of several models of one method: means, and which models are found."""
    return {
        name: {
            **{
                key: round(mean(each[name][key] for each in figures), 3)
                for key in ("value", "retrained", "margins")
            },
            "found": [each[name]["found"] for each in figures],
        }
        for name in figures[0]
        if all(name in each for each in figures)
    }


def figures_by(row: Row, attack: str) -> list[Row]:
    """The figures of an attack on one method, or of any attack."""
    return [each for name, each in row["figures"].items() if attack == ANY or name.startswith(f"{attack}: ")]


def count_found(figures: Sequence[Row]) -> int:
    """The number of models that some figure finds."""
    return sum(map(any, zip(*(each["found"] for each in figures), strict=True)))


def ranked(rows: Mapping[str, Row]) -> list[str]:
    """The methods that are compared: all that did not fail and are no reference."""
    return [name for name, row in rows.items() if row["failed"] is None and name not in REFERENCES]


def rank(rows: Mapping[str, Row], attack: str) -> Row:
    """Kendall's tau of the order by gap with that by an attack."""
    pairs = [
        (rows[name]["gap"], max(each["margins"] for each in figures))
        for name in ranked(rows)
        if (figures := figures_by(rows[name], attack))
    ]
    return compare(*zip(*pairs, strict=True)) if len(pairs) > 1 else {"tau": None, "p": None, "methods": 0}


def overturned_passes(rows: Mapping[str, Row], attack: str) -> list[str]:
    """The methods with a PASS of which an attack finds more than half of the models."""
    passes = [name for name in ranked(rows) if rows[name]["verdict"] == "PASS"]
    figures = {name: figures_by(rows[name], attack) for name in passes}
    return [name for name, each in figures.items() if each and 2 * count_found(each) > len(each[0]["found"])]


def summarize(results: Row) -> list[str]:
    """The table of a recipe as text: the distance in margins by attack, and how many models were found."""
    attacks = [*results["taken away"]]
    lines = [f"{'':<22}{'gap':>6}  " + "".join(f"{name:>20}" for name in attacks)]
    for name, row in results["methods"].items():
        if row["failed"] is not None:
            lines.append(f"{name:<22}FAILED: {row['failed']}")
            continue
        lines.append(
            f"{name:<22}{row['gap']:>6.2f}  " + "".join(f"{cell(row, each):>20}" for each in attacks)
        )
    for attack, methods in results["taken away"].items():
        order = results["kendall"].get(attack)
        agreement = (
            "" if order is None else f" tau {order['tau']}, p {order['p']}, {order['methods']} methods;"
        )
        passes = f"{len(methods)} of {len(results['passes'])} PASSes"
        lines.append(f"{attack}:{agreement} takes away {passes}: {', '.join(methods)}")
    return lines


def cell(row: Row, attack: str) -> str:
    """The distance of the figure that is furthest, and how many models the attack finds."""
    figures = figures_by(row, attack)
    if not figures:
        return "–"
    return f"{max(each['margins'] for each in figures):.1f} ({count_found(figures)})"


def choose_methods(recipe: Recipe, names: str | None) -> list[str]:
    """The named methods; by default those for which the recipe has settings."""
    if names:
        return names.split(",")
    usual = recipe.methods if recipe.tuning.budgets else METHODS.split(",")
    return [each for each in usual if each in recipe.methods]


def main() -> None:
    """Runs the benchmark, attacks, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipes", nargs="+", help="recipes of classifiers")
    parser.add_argument("--methods", help="names with commas between; by default those with settings")
    parser.add_argument("--attacks", default=ATTACKS, help="names with commas between")
    parser.add_argument("--seeds", type=int, default=2, help="the seeds whose models are attacked")
    parser.add_argument("--out", type=Path, default=Path("unweave-attacked"), help="where models are stored")
    parser.add_argument("--record", type=Path, help="a JSON file; other recipes in it stay")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    attacks, results = choose_attacks(arguments.attacks), {}
    for name in arguments.recipes:
        recipe = load(name)
        methods = [*REFERENCES, *choose_methods(recipe, arguments.methods)]
        (stage_record,) = bench([recipe], arguments.out, methods=methods, jobs=1)["stages"].values()
        outcome = attack_stage(Stage(recipe, arguments.out), stage_record, arguments.seeds, attacks)
        results[name] = {"seeds": arguments.seeds, **outcome, "environment": environment()}
        print(name, *summarize(results[name]), sep="\n", flush=True)
    if arguments.record:
        old_recipes = read_record(arguments.record)["recipes"] if arguments.record.exists() else {}
        write_compact({"recipes": {**old_recipes, **results}}, arguments.record)


if __name__ == "__main__":
    main()
