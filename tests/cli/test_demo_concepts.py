"""`unweave demo text-to-image`: an object and a colour of the digits, by the methods of their recipe."""

from pathlib import Path
from typing import Any

import pytest

from unweave.cli import main

pytest.importorskip("diffusers")

from unweave.bench.text_to_image_recipe import method_tables, text_to_image_recipe
from unweave.cli import demo_concepts
from unweave.cli.bench_runs import concepts
from unweave.families.text_to_image import TextToImageFamily


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_it_runs_as_a_benchmark_of_the_recipe(flags: list[str], monkeypatch: pytest.MonkeyPatch):
    runs: list[Any] = []

    def run(bench: concepts.ConceptBench, preferred: Path, *rest: object) -> Path:
        runs.append((bench, preferred))
        raise ValueError("as far as this")

    monkeypatch.setattr(concepts, "run_concept_bench", run)
    assert main(["demo", "text-to-image", *flags]) == 2
    assert runs == [(demo_concepts.digits(bool(flags)), Path("unweave-demo"))]


def test_a_quick_run_says_that_its_training_is_shortened():
    full_bench, quick_bench = demo_concepts.digits(False), demo_concepts.digits(True)
    assert full_bench.source == text_to_image_recipe("digits") and not full_bench.partial
    assert (
        quick_bench.partial
        and quick_bench.source.train.steps == demo_concepts.QUICK_STEPS < full_bench.source.train.steps
    )
    assert (
        quick_bench.concepts == full_bench.concepts[:1] == (("object", "three"),)
        and not quick_bench.family.attacks
    )
    assert full_bench.concepts[1] == ("colour", "red") and full_bench.family.attacks


@pytest.mark.parametrize("name", ["digits", "garments"])
def test_a_method_spends_at_most_a_tenth_of_a_retraining(name: str):
    train = text_to_image_recipe(name).train
    prices = {"lur": 2, "salun": 2, "esd": 1, "sa": 2}  # gradients of a step
    fixed_gradients = {"lur": 5, "salun": 3}  # for the bound of mode lagged, and for the mask
    tables = method_tables(name)
    assert tables["lur"]["mode"] == "lagged"
    for method, price in prices.items():
        gradients = price * tables[method]["how"]["steps"] + fixed_gradients.get(method, 0)
        assert gradients <= train.steps / 10, method
    assert tables.keys() == {*prices, "uce"} <= TextToImageFamily().methods.keys()


def test_only_the_cpu_and_one_seed_are_taken(refused):
    refused("has one seed, found --seeds 2", "demo", "text-to-image", "--seeds", "2")
