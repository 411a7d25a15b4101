"""A run of a text-to-image recipe: small models forget concepts beside models retrained without them.

Needs the extra `unweave[diffusion]`; `unweave bench` imports it only for such a recipe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unweave.bench.bench import compare, select_methods
from unweave.bench.concept_stage import ConceptStage, preparing_jobs
from unweave.bench.recipe import Recipe, shorten_training
from unweave.bench.setup import Architecture, Data
from unweave.bench.text_to_image_concept import PromptCounts
from unweave.bench.text_to_image_recipe import TextToImageRecipe, method_tables, text_to_image_recipe
from unweave.bench.workers import run_jobs
from unweave.choices import explain_unknown
from unweave.cli.bench_runs.folder import claim_folder
from unweave.cli.inputs import out
from unweave.cli.inputs.executor import Executor, count_jobs
from unweave.cli.inputs.plan import extends
from unweave.cli.options import CommonFlags, parse_names
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.methods.simple import FromScratch
from unweave.methods.unfit_targets import refuse_unfit_targets
from unweave.tables import as_table


@dataclass(frozen=True)
class ConceptBench:
    """Methods to compare on concepts of small text-to-image models.

    Args:
        source: The recipe of the models.
        family: How images are drawn and attacked.
        counts: The prompts of each kind.
        concepts: The concepts, by factor and value; one stage each.
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
        """The recipe of a stage: one seed, and no margins; short-retrain takes a tenth of the training."""
        short = FromScratch(shorten_training(self.source.train, 0.1))
        return Recipe(
            name=name,
            data=Data("images", forget="class"),
            model=Architecture("given"),
            train=self.source.train,
            seeds=(seed,),
            calibration_seeds=(),
            family=self.family,
            partial=self.partial,
            methods={**self.family.methods, "short-retrain": short, **self.methods},
        )

    def facts(self, methods: Sequence[str], seed: int) -> out.Facts:
        """What a run depends on."""
        return {
            "verb": "bench",
            "recipe": as_table(self.source),
            "family": as_table(self.family),
            "prompts": as_table(self.counts),
            "settings": {name: as_table(method) for name, method in self.methods.items()},
            "concepts": [list(each) for each in self.concepts],
            "methods": list(select_methods(self.recipe("concept", seed), methods)),
            "seeds": [[seed]],
            "budgets": [[]],
        }


def read_concept_bench(
    place: str, concepts: Sequence[str], data: str | None = None, attacks: str | None = None
) -> ConceptBench:
    """A recipe, and concepts to erase by the methods that it has settings of.

    Args:
        place: The name or the path of the recipe.
        concepts: Values of its factors, such as "three" or "red".
        data: The folder of its images, if it needs one.
        attacks: The attacks, as `--attacks` names them; none if None.

    Raises:
        ValueError: If the recipe is invalid, no concept is given, one is unknown or given twice, or an attack
            is unknown.
    """
    source = text_to_image_recipe(place)
    source = source if data is None else source.with_data(Path(data).resolve())
    names = source.drawings.names
    if not concepts:
        raise ValueError(f"{place} trains models of concepts: name one to erase with --concept, such as red")
    if len(set(concepts)) < len(concepts):
        raise ValueError(f"each concept can be erased once, found {', '.join(concepts)}")
    family = TextToImageFamily(source.sampler)
    return ConceptBench(
        source,
        family if attacks is None else family.with_attacks(attacks),
        PromptCounts(),
        tuple((factor_of(each, names), each) for each in concepts),
        configured_methods(place, family),
    )


def factor_of(value: str, names: Mapping[str, Sequence[str]]) -> str:
    """The factor of a concept, such as "colour" of "red".

    Raises:
        ValueError: If no factor has the value.
    """
    for factor, values in names.items():
        if value in values:
            return factor
    raise ValueError(
        explain_unknown("concept", value, [each for values in names.values() for each in values])
    )


def configured_methods(place: str, family: TextToImageFamily) -> dict[str, Method]:
    """The methods that a recipe has settings of.

    Raises:
        ValueError: If one is unknown, or has unknown settings or a forget loss for other models.
    """
    methods: dict[str, Method] = {}
    for name, table in method_tables(place).items():
        path = f"methods.{name}"
        methods[name] = configure(family.method_named(name), table, path)
        refuse_unfit_targets(methods[name], family.name, path)
    return methods


def run_concept_bench(
    comparison: ConceptBench,
    default_folder: Path,
    methods: str | None,
    executor: Executor,
    flags: CommonFlags,
) -> Path:
    """Trains, erases and compares; returns the folder.

    Args:
        comparison: What to compare.
        default_folder: The folder of the run without --out.
        methods: Method names separated by commas; those with settings if None.
        executor: Where models are trained and edited.
        flags: The flags of every verb.

    Raises:
        ValueError: If the device is not the CPU, the images are too few, no method is named, or one does not
            support such models.
    """
    if flags.device not in (None, "cpu"):
        raise ValueError(f"small text-to-image models run on the CPU, found --device {flags.device}")
    executor.refuse_unfit("cpu")
    seed, names = flags.seed or 0, parse_names(methods) or tuple(comparison.methods)
    if not names:
        raise ValueError("the recipe has settings of no method: name some with --methods")
    if "retrain" in names:
        raise ValueError("a retrained model stands beside the methods in any case: leave retrain out")
    facts, out_folder = comparison.facts(names, seed), flags.out or default_folder
    out.refuse_within(out_folder, None, comparison.source.drawings.folder)
    folder = out.choose_folder(out_folder, facts, goes_on=extends)
    stages = comparison.stages(folder, seed)
    for stage in stages:
        stage.refuse_unfit()
    what = " and ".join(stage.name for stage in stages)
    with (
        executor.crew("cpu", count_jobs("cpu")) as crew,
        claim_folder(what, folder, facts, quiet=flags.quiet) as listener,
    ):
        list(run_jobs(crew, preparing_jobs(stages[0]), listener))
        compare(stages, folder, methods=names, crew=crew, listener=listener)
    return folder
