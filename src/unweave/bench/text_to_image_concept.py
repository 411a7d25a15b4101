"""One concept of a small text-to-image model: the prompts of its audit, its request and its exam.

Needs the extra `unweave[diffusion]`.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unweave.audits.diffusion.attacks import relearning_curves
from unweave.audits.diffusion.concept_exam import ConceptExam
from unweave.audits.diffusion.concept_prompts import ConceptPrompts, Prompt
from unweave.audits.diffusion.images_exam import Drawn
from unweave.audits.diffusion.latent_drawing import PromptedPipeline
from unweave.audits.diffusion.old_words import with_text_encoder
from unweave.audits.diffusion.relearning import OLD_WORDS, describe_curves, relearned_sooner
from unweave.audits.metrics import Values
from unweave.bench.stage import Memory
from unweave.data.captioned_drawings import HELD_OUT_TEMPLATES, Drawings
from unweave.data.captions import TEXT
from unweave.problem import Problem
from unweave.tasks.diffusion.concept_request import ConceptRequest
from unweave.tasks.diffusion.prompts import Encoded, Prompted
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion

Row = Mapping[str, str]
"""A prompt with the factors that it names."""


@dataclass(frozen=True)
class PromptCounts:
    """How many prompts of each kind to draw.

    Args:
        trained: Prompts of the concept in the templates of the training.
        paraphrased: Prompts of the concept in templates that were never trained.
        combined: Prompts of the concept in pairs of object and colour that were never trained.
        neighbours: For each other value of the concept's factor: prompts in the templates of the training.
        others: For each other value: prompts in templates that were never trained.
    """

    trained: int = 4
    paraphrased: int = 4
    combined: int = 2
    neighbours: int = 1
    others: int = 1


def concept_prompts(drawings: Drawings, factor: str, value: str, counts: PromptCounts) -> ConceptPrompts:
    """The prompts of the audit of a concept, such as the object "three", spread over all captions.

    Args:
        drawings: What the model was trained on.
        factor: The factor of the concept.
        value: Its value.
        counts: The number of prompts of each kind.
    """
    trained_rows, reworded_rows = drawings.prompts(), drawings.prompts(HELD_OUT_TEMPLATES)
    other_values = [each for each in drawings.names[factor] if each != value]

    def of(rows: Sequence[Row], name: str, n: int) -> tuple[Prompt, ...]:
        return spread([row for row in rows if row.get(factor) == name], n)

    return ConceptPrompts(
        {factor: value},
        trained=of(trained_rows, value, counts.trained),
        paraphrased=of(reworded_rows, value, counts.paraphrased),
        combined=of(drawings.prompts(held_out=True), value, counts.combined),
        neighbours=tuple(each for name in other_values for each in of(trained_rows, name, counts.neighbours)),
        others=tuple(each for name in other_values for each in of(reworded_rows, name, counts.others)),
    )


def spread(rows: Sequence[Row], n: int) -> tuple[Prompt, ...]:
    """N prompts at equal distances among the rows; all if there are fewer."""
    chosen_rows = [rows[place * len(rows) // n] for place in range(n)] if n < len(rows) else rows
    return tuple(
        Prompt(row[TEXT], {name: each for name, each in row.items() if name != TEXT}) for row in chosen_rows
    )


@dataclass(frozen=True, kw_only=True)
class EditExam(ConceptExam):
    """The exam of edits of one pipeline; it takes their `Prompted` models, and whole pipelines.

    Args:
        pipeline: The pipeline whose denoiser or text encoder was edited.
    """

    pipeline: StableDiffusion

    def answers(self, model: nn.Module) -> Drawn:
        """Draws images of every prompt."""
        return super().answers(self.whole(model))

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """Attacks that try to recover the concept."""
        return super().probes(self.whole(model), None if original is None else self.whole(original))

    def relearn(self, model: nn.Module) -> dict[str, float]:
        """The steps of relearning until half of the images show the concept, and the share after each check.

        Shares are in percent. A concept that is not relearned within the budget counts as the budget. If the
        model has a text encoder of its own, it is also relearned behind that of the pipeline: whoever kept
        the original has it (names with `OLD_WORDS`).

        Raises:
            ValueError: If the exam has no budget of attackers.
        """
        if self.budget is None:
            raise ValueError("relearning needs the budget of an attacker, found none: give the exam one")
        target = self.target(self.whole(model))
        figures = describe_curves(relearning_curves(target, self.budget), self.budget.longest)
        if isinstance(model, Prompted) and isinstance(model.words, Encoded):
            old_encoder = PromptedPipeline(self.pipeline, self.prompts.conditions).encoder
            curves = relearning_curves(with_text_encoder(target, old_encoder), self.budget)
            figures |= describe_curves(curves, self.budget.longest, OLD_WORDS)
        return figures

    def whole(self, model: nn.Module) -> nn.Module:
        """The pipeline with the edited parts of a model, under the prompts."""
        if not isinstance(model, Prompted):
            return model
        text_encoder = (
            model.words.text_encoder if isinstance(model.words, Encoded) else self.pipeline.text_encoder
        )
        edited_pipeline = replace(self.pipeline, unet=model.unet, text_encoder=text_encoder)
        return PromptedPipeline(edited_pipeline, self.prompts.conditions)


@dataclass(frozen=True, kw_only=True)
class PracticeExam(EditExam):
    """The exam of a search that asks whether a concept is gone: its only attack is relearning.

    A trial's value has one part more than the mean gap: `sooner`, the mean over the checks of how many more
    images show the concept than after as much relearning of the retrained model, in points.
    """

    def probes(self, model: nn.Module, original: nn.Module | None = None) -> dict[str, float]:
        """The course of relearning; none without a budget of attackers."""
        return {} if self.budget is None else self.relearn(model)

    def further_parts(self, values: Values, retrained_values: Values) -> dict[str, float]:
        """How much sooner the concept is relearned."""
        return relearned_sooner(values, retrained_values)


@dataclass(frozen=True, eq=False)
class ConceptCase:
    """A request to forget a concept, as a search or a study runs methods on it.

    Args:
        pipeline: The original.
        request: The request.
        questions: The exam.
    """

    pipeline: StableDiffusion
    request: ConceptRequest
    questions: EditExam

    def original(self, *, text_encoder: bool = False) -> Prompted:
        """The model to edit, with all weights of the denoiser trainable; the text encoder is frozen.

        Args:
            text_encoder: Whether it is part of the model, for methods that edit it; passes then take longer.
        """
        model = self.pipeline.model(self.request.prompts, "text encoder" if text_encoder else "all")
        for name, p in model.named_parameters():
            p.requires_grad_(name.startswith("unet."))
        return model

    def problem(
        self, original: nn.Module, seed: int, memory: Memory, tuning_seed: int | None = None
    ) -> Problem:
        """The request on a copy of a model; that of a tuning seed is the same."""
        model, generator = copy.deepcopy(original), torch.Generator().manual_seed(seed)
        assert isinstance(model, Prompted)
        return Problem(
            self.request.task,
            model,
            self.request.split,
            generator,
            lambda: self.pipeline.fresh(model),
            memory=memory,
            caller_model=original,
        )

    def exam(self, tuning_seed: int | None = None) -> ConceptExam:
        """The exam; that of a tuning seed is the same."""
        return self.questions

    def facts(self) -> dict[str, Any]:
        """The facts that figures depend on, besides the model and the method."""
        return {"split": self.request.split.digest(), "exam": self.questions.digest}
