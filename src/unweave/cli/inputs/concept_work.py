"""The work of erasing concepts: reads a pipeline and its images, runs a method, writes the result.

Needs the extra `unweave[diffusion]`; `unweave forget` imports it only for a text-to-image model.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unweave.bench.workers import Listener
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.forget_folder import manifest_facts, write_request
from unweave.cli.inputs.scope import RANK, TEXT_TO_IMAGE, TrainedWeights
from unweave.data.captions import CaptionedImages, read_captioned
from unweave.data.prompt_list import read_prompt_list
from unweave.methods import Method
from unweave.record.record import package_digest
from unweave.result import ADDITIONS, Result, replace_folder
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.diffusion.concept_request import ConceptRequest, Erasure, make_request
from unweave.tasks.diffusion.low_rank_file import save_low_rank
from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load, refuse_other_pipeline, save
from unweave.tasks.diffusion.text_to_image import Prompts
from unweave.unlearning import unlearn


class FirstPass(Exception):
    """A method came as far as its first pass through the model."""


@dataclass(frozen=True)
class ConceptWork:
    """A pipeline, the request to it, and its model.

    Args:
        concepts: The request as given.
        trained: The weights to train.
        pipeline: The pipeline.
        request: The request to it.
        model: The model, with the weights of the scope trainable; it shares the pipeline's memory, and a
            method edits a copy.
        by_prompts: Whether there are no images: a blank latent stands for each prompt.
    """

    concepts: Concepts
    trained: TrainedWeights
    pipeline: StableDiffusion
    request: ConceptRequest
    model: Prompted
    by_prompts: bool = False

    @property
    def counts(self) -> tuple[int, int]:
        """The number of images to forget, and of all training images; of prompts if there are no images."""
        return len(self.request.split.forget), len(self.request.split.train)

    @property
    def prompts(self) -> tuple[list[str], list[str]]:
        """The prompts of the concepts, those named by the user first, and the prompts to keep."""
        texts, split = self.request.prompts.texts, self.request.split
        prompts = self.request.prompts
        labels = split.train.labels[split.retain].tolist()
        numbers = ((*prompts.concepts, *prompts.forgotten), (*prompts.kept, *labels))
        forget_prompts, keep_prompts = (
            [texts[number] for number in dict.fromkeys(each) if number != prompts.null] for each in numbers
        )
        return forget_prompts, [text for text in keep_prompts if text not in forget_prompts]

    def describe(self) -> str:
        """A sentence on its images."""
        n, of = self.counts
        if self.by_prompts:
            return f"{self.concepts.named}: {n} of {of} prompts hold it; the method needs no images."
        return f"{self.concepts.named}: {n} of {of} training images hold it."

    def facts(self) -> dict[str, Any]:
        """The facts that a run depends on."""
        return {
            "verb": "forget",
            **self.pipeline.facts(self.request.prompts),
            "split": self.request.split.digest(),
            "request": repr(self.concepts),
            "trained": repr(self.trained),
            "code": package_digest(),
        }

    def note(self, folder: Path) -> str:
        """Nothing: its images are there."""
        return ""

    def prepare(
        self, method: Method, folder: Path, folders: Iterable[Path], device: str | None, listener: Listener
    ) -> "ConceptWork":
        """Returns itself."""
        return self

    def refuse_unfit(self, method: Method, device: str | None) -> None:
        """Runs a method up to its first pass, so that what it refuses is an error early.

        Raises:
            ValueError: If the method does not fit the request or the model.
        """

        def stop(*_: object) -> None:
            raise FirstPass

        handle = self.model.register_forward_pre_hook(stop)
        try:
            self.run(method, seed=0, device=device)
        except FirstPass:
            pass
        finally:
            handle.remove()

    def task(self, split: Split) -> Task:
        """The task of the request."""
        return self.request.task

    def build(self) -> Prompted:
        """A model with fresh weights."""
        return self.pipeline.fresh(self.model)

    def run(self, method: Method, *, seed: int, device: str | None) -> Result:
        """Runs a method on a copy of the model."""
        split, task = self.request.split, self.request.task
        return unlearn(self.model, split, method, task=task, seed=seed, device=device, build=self.build)

    def forgotten(self) -> dict[str, list[str]]:
        """The concepts, and captions to forget that only a column or a list finds, for the manifest."""
        prompts, concepts = self.request.prompts, list(self.concepts.concept)
        captions = [prompts.texts[number] for number in prompts.forgotten]
        by_words = self.concepts.column is None and self.concepts.captions is None
        other_captions = [] if by_words else [text for text in captions if text not in concepts]
        return {"forgotten_concepts": concepts, "forgotten_captions": other_captions}

    def save(self, result: Result, folder: Path, *, name: str) -> None:
        """Writes the record, the pipeline, and the low-rank additions if there are any."""
        model = result.model
        assert isinstance(model, Prompted)
        facts = {**manifest_facts(result, name), **self.forgotten()}
        result.save(folder, write=lambda _, place: save(self.pipeline, model, place, facts))
        if self.trained.is_lora:
            with replace_folder(folder / ADDITIONS) as draft_folder:
                save_low_rank(model, draft_folder)
        words = " ".join(f"--concept {each!r}" for each in self.concepts.concept)
        split, texts = self.request.split, (*self.request.prompts.texts, "")
        counts = Counter(texts[label] for label in split.train.labels[split.forget].tolist())
        name, facts = self.pipeline.folder.name, {"classes": dict(counts)}
        if self.by_prompts:
            n, of = self.counts
            data = {"prompts to forget": n, "prompts to keep": of - n}
            write_request(folder, name, words, {**facts, "unit": "prompts"}, data)
        else:
            write_request(folder, name, words, facts)


def read(
    model: str, concepts: Concepts, trained: TrainedWeights, data: str, device: str | None
) -> ConceptWork:
    """Reads a pipeline and its images, which are encoded on a device.

    Raises:
        ValueError: If the pipeline, the images or the request can't be used.
    """
    erasure_of(concepts)
    refuse_other_pipeline(Path(model))
    train, test = read_captioned(data)
    return make_work(load(model), concepts, trained, train, test, device)


def make_work(
    pipeline: StableDiffusion,
    concepts: Concepts,
    trained: TrainedWeights,
    train: CaptionedImages,
    test: CaptionedImages | None,
    device: str | None,
) -> ConceptWork:
    """The work on a pipeline and its images.

    Raises:
        ValueError: If the images or the request can't be used.
    """
    request = make_request(pipeline, train, test, erasure_of(concepts), device or "cpu")
    return ConceptWork(concepts, trained, pipeline, request, load_model(pipeline, request.prompts, trained))


def load_model(pipeline: StableDiffusion, prompts: Prompts, trained: TrainedWeights) -> Prompted:
    """A model of a pipeline that shares its memory.

    Raises:
        ValueError: If it has no weights of the scope.
    """
    scope, rank = trained.scope or TEXT_TO_IMAGE, trained.rank or RANK
    return pipeline.shared_model(prompts, scope, rank=rank)


def erasure_of(concepts: Concepts) -> Erasure:
    """What to erase, and what stays.

    Raises:
        ValueError: If a kept prompt or the target holds a concept, or the file of captions can't be read.
    """
    captions = () if concepts.captions is None else read_prompt_list(concepts.captions)
    return Erasure(concepts.concept, concepts.column, concepts.keep, concepts.target, captions)
