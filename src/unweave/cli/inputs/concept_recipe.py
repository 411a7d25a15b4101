"""Recipes of requests to forget a concept: what to forget and to keep, and the settings of methods.

They are files in TOML with the flags of `forget` as keys, and a table for each method. Flags given beside a
recipe replace its values; settings of methods given with --set are added to its tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from unweave.choices import explain_unknown
from unweave.cli.inputs.concept_source import Generation, RecipeGeneration
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.scope import TrainedWeights
from unweave.cli.inputs.single_file import is_single_file
from unweave.cli.project.text_to_image import is_pipeline
from unweave.data.captions import holds_phrase
from unweave.methods.pipeline import JOINT
from unweave.tables import merge_tables, read, read_toml, refuse_unknown
from unweave.tasks.diffusion.scopes import Scope

FOLDER = files("unweave").joinpath("recipes", "concepts")

PROMPT_METHODS = frozenset({"uce", "reset-tokens"})
"""The methods that read the prompts to keep."""

IMAGE_FREE = frozenset({"uce"})
"""The methods that need no images: the prompts that the user names are enough."""

TARGET = "as"
"""The key of the prompt that replaces a concept; a word that Python keeps for itself."""


@dataclass(frozen=True)
class ConceptRecipe:
    """A request to forget a concept; fields are the flags of `forget`.

    Args:
        concept: The concepts.
        target: The prompt that replaces them.
        keep: Prompts to keep, without --data or for methods that read them; those with the words of a concept
            are left out.
        scope: The weights to train; by default those of `forget`.
        rank: The rank of low-rank additions.
        generate: The number of images that the model draws of each kind, if no --data is given.
        prompts: Prompts for these images, as those of the file of --prompts.
        sampler: Settings of their sampler.
        methods: The settings of methods, by name.
    """

    concept: tuple[str, ...]
    target: str | None = None
    keep: tuple[str, ...] = ()
    scope: Scope | None = None
    rank: int | None = None
    generate: int | None = None
    prompts: tuple[str, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def concepts(self, flags: Concepts, *, keeps: bool) -> Concepts:
        """The concepts of the flags, and of the recipe where flags say nothing.

        Args:
            flags: Those of the flags.
            keeps: Whether the recipe's prompts to keep are of use: not to methods that learn from the user's
                images.
        """
        concept = flags.concept or self.concept
        is_other_concept = bool(flags.concept) and flags.concept != self.concept
        keep = tuple(text for text in self.keep if not any(holds_phrase(text, each) for each in concept))
        target = flags.target if flags.target is not None or is_other_concept else self.target
        return replace(flags, concept=concept, keep=flags.keep or (keep if keeps else ()), target=target)

    def trained(self, flags: TrainedWeights) -> TrainedWeights:
        """The weights to train: those of the flags, or of the recipe where flags say nothing."""
        if flags.scope not in (None, self.scope):
            return flags
        return replace(flags, scope=self.scope, rank=self.rank if flags.rank is None else flags.rank)

    def generation(
        self, flags: Generation, data: str | None, concepts: tuple[str, ...], *, needs_images: bool
    ) -> Generation:
        """What the model draws; nothing beside images of the user.

        Args:
            flags: The flags.
            data: Images of the user.
            concepts: The concepts; the recipe's prompts are those of its own concepts alone.
            needs_images: Whether the method needs images; if not, the recipe gives prompts alone.
        """
        if data is not None:
            return flags
        number = self.generate if needs_images and flags.generate is None else flags.generate
        prompts = self.prompts if concepts == self.concept else ()
        return RecipeGeneration(number, flags.prompts, flags.sampler, prompts, self.sampler)

    def settings(self, method: str, table: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings of a method.

        Raises:
            ValueError: If the recipe has none for it and the flags give none.
        """
        if method not in self.methods and not table:
            others = f", only for {', '.join(self.methods)}: choose one of these, or" if self.methods else ":"
            raise ValueError(
                f"the recipe has no settings for {method}{others} give forget its settings with --set"
            )
        return merge_tables(self.methods.get(method, {}), table)


def learns_from_prompts(method: str) -> bool:
    """Whether a method or a stage of a pipeline reads the prompts to keep, and not only images."""
    return not PROMPT_METHODS.isdisjoint(method.split(JOINT))


def needs_images(method: str) -> bool:
    """Whether a method or a stage of a pipeline needs images, or captions of the training data."""
    return not IMAGE_FREE.issuperset(method.split(JOINT))


def concept_recipe_names() -> tuple[str, ...]:
    """The names of the recipes that come with the package."""
    return tuple(sorted(each.name.removesuffix(".toml") for each in FOLDER.iterdir()))


def read_concept_recipe(place: str | None, model: str) -> ConceptRecipe | None:
    """Reads a recipe by the path of its TOML file or its name in the package; None if it is another recipe.

    Raises:
        ValueError: If it is invalid, the message says where; or if it is another recipe and the model is a
            text-to-image pipeline.
    """
    table = table_of(place) if place is not None else {}
    if "concept" not in table:
        if place is not None and (is_pipeline(Path(model)) or is_single_file(model)):
            raise ValueError(explain_unknown("recipe of a concept", place, concept_recipe_names()))
        return None
    keys = {TARGET if name == "target" else name for name in ConceptRecipe.__dataclass_fields__}
    refuse_unknown(table, sorted(keys), f"{place}")
    return read(
        ConceptRecipe, {"target" if key == TARGET else key: value for key, value in table.items()}, ""
    )


def table_of(place: str) -> dict[str, Any]:
    """The content of a recipe; empty if it is none of a concept."""
    if place in concept_recipe_names():
        return read_toml(FOLDER.joinpath(f"{place}.toml"))
    path = Path(place)
    return read_toml(path) if path.suffix == ".toml" and path.is_file() else {}
