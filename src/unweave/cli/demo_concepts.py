"""`unweave demo text-to-image`: a small text-to-image model forgets an object, and another time a colour.

Needs the extra `unweave[diffusion]`; `unweave demo` imports it only for this demo.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unweave.audits.diffusion.attacks import Budget
from unweave.bench.bench import compare, select_methods
from unweave.bench.concept_stage import ConceptStage, preparing_jobs
from unweave.bench.recipe import Recipe
from unweave.bench.setup import Architecture, Data
from unweave.bench.text_to_image_concept import PromptCounts
from unweave.bench.text_to_image_recipe import TextToImageRecipe, text_to_image_recipe
from unweave.bench.workers import run_jobs
from unweave.cli import bench
from unweave.cli.inputs import out
from unweave.cli.inputs.executor import Executor, count_jobs
from unweave.cli.inputs.plan import extends
from unweave.cli.options import CommonFlags, parse_names
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.tables import as_table
from unweave.tasks.diffusion.sample import Sampler
from unweave.tasks.diffusion.scopes import PATTERNS

BATCHES = {"batch": 64, "forget_batch": 32, "max_norm": 1.0, "schedule": "cosine"}

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "lur": {"forget": "ideal", "weight": 1.0, "how": {**BATCHES, "lr": 1e-3, "steps": 30}},
    "salun": {"how": {**BATCHES, "lr": 1e-3, "steps": 36}},
    "esd": {"where": PATTERNS["cross-attention"], "how": {**BATCHES, "lr": 1e-3, "steps": 60}},
    "uce": {},
    "sa": {
        "per_class": 1,
        "fisher_images": 8,
        "fisher_times": 2,
        "how": {**BATCHES, "lr": 1e-3, "steps": 37},
    },
}
"""The methods with settings that spend at most a tenth of a retraining; none was searched."""

CONCEPTS = (("object", "three"), ("colour", "red"))
"""The concepts, by factor and value; a quick run erases the first."""

SAMPLER = Sampler("dpm", steps=8, guidance=3.0)
ATTACKER = Budget(seeds=20, draws=32, vector_steps=15)
ATTACKED = 10
"""The number of images of each setting of an attack."""

FEW = PromptCounts(trained=3, paraphrased=2, combined=1)
"""The prompts of a quick run."""

QUICK_STEPS = 600
"""The steps of a quick training: two thirds of the recipe's."""


@dataclass(frozen=True)
class Demonstration:
    """What a demo of text-to-image models runs.

    Args:
        source: The recipe of the models.
        family: How images are drawn and attacked.
        counts: The prompts of each kind.
        concepts: The concepts, by factor and value.
        methods: The methods by name.
        partial: Whether the training is shortened, which rules out a verdict.
    """

    source: TextToImageRecipe
    family: TextToImageFamily
    counts: PromptCounts
    concepts: Sequence[tuple[str, str]]
    methods: Mapping[str, Method]
    partial: bool = False

    def stages(self, folder: Path, seed: int) -> list[ConceptStage]:
        """A stage for each concept."""
        return [
            ConceptStage(
                self.recipe(f"{factor}-{value}", seed),
                folder,
                source=self.source,
                family=self.family,
                factor=factor,
                value=value,
                counts=self.counts,
            )
            for factor, value in self.concepts
        ]

    def recipe(self, name: str, seed: int) -> Recipe:
        """The recipe of a stage: one seed, and no margins."""
        return Recipe(
            name=name,
            data=Data("images", forget="class"),
            model=Architecture("given"),
            train=self.source.train,
            seeds=(seed,),
            calibration_seeds=(),
            family=self.family,
            partial=self.partial,
            methods={**self.family.methods, **self.methods},
        )


def digits(quick: bool) -> Demonstration:
    """An object and a colour of the digits; a quick run erases the object, after a shorter training."""
    source, family = text_to_image_recipe("digits"), TextToImageFamily(SAMPLER, images=20, attacker=ATTACKER)
    methods = {name: configure(family.method_named(name), each, name) for name, each in SETTINGS.items()}
    if quick:
        hurried = replace(source, train=replace(source.train, steps=QUICK_STEPS))
        return Demonstration(hurried, family, FEW, CONCEPTS[:1], methods, partial=True)
    attacked = replace(family, attacks=ATTACKED)
    return Demonstration(source, attacked, PromptCounts(), CONCEPTS, methods)


def run(shown: Demonstration, methods: str | None, jobs: int | None, flags: CommonFlags) -> Path:
    """Trains, erases and compares; returns the folder.

    Raises:
        ValueError: If the device is not the CPU, or a method does not support text-to-image models.
    """
    if flags.device not in (None, "cpu"):
        raise ValueError(f"demo text-to-image runs on the CPU, found --device {flags.device}: leave it out")
    executor = Executor(jobs)
    executor.refuse_unfit("cpu")
    seed = flags.seed or 0
    names = parse_names(methods) or tuple(shown.methods)
    facts = {
        "verb": "demo",
        "recipe": as_table(shown.source),
        "family": as_table(shown.family),
        "prompts": as_table(shown.counts),
        "concepts": [list(each) for each in shown.concepts],
        "methods": list(select_methods(shown.recipe("demo", seed), names)),
        "seeds": [[seed]],
        "budgets": [[]],
    }
    folder = out.choose_folder(flags.out or Path("unweave-demo"), facts, goes_on=extends)
    stages = shown.stages(folder, seed)
    what = " and ".join(stage.name for stage in stages)
    with (
        executor.crew("cpu", count_jobs("cpu")) as crew,
        bench.claim_folder(what, folder, facts, quiet=flags.quiet) as listener,
    ):
        list(run_jobs(crew, preparing_jobs(stages[0]), listener))
        compare(stages, folder, methods=names, crew=crew, listener=listener)
    return folder
