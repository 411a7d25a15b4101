"""The work of auditing a concept: trains the recogniser, draws images of every model and judges.

Needs the extra `unweave[diffusion]`; `unweave audit` imports it only for a text-to-image model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unweave.auditing import Audit, judge_answers
from unweave.audits.answers import Answers, answers_or_refuse
from unweave.audits.diffusion.concept_exam import ConceptExam
from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, fit_recogniser
from unweave.audits.diffusion.images_exam import Drawn
from unweave.audits.diffusion.latent_drawing import PromptedPipeline
from unweave.audits.diffusion.local_classifier import recogniser_of
from unweave.audits.diffusion.local_models import LocalModels
from unweave.audits.diffusion.real_images import RealImages, shows
from unweave.audits.margins import RETRAINS
from unweave.audits.one_model import GivenModel
from unweave.audits.verdict import SEEDS
from unweave.bench.workers import Listener, Progress
from unweave.cli.audits.concept import Folders
from unweave.cli.audits.concept_checks import (
    HALF,
    WEAK,
    explain_other_concept,
    explain_still_drawn,
    explain_weak_prompts,
)
from unweave.families.text_to_image import TextToImageFamily
from unweave.record import record
from unweave.record.files import read_object, write_atomically
from unweave.record.one_model import UNKNOWN, request_row
from unweave.record.record import package_digest
from unweave.result import ADDITIONS
from unweave.tasks.diffusion.low_rank_file import add_from_file
from unweave.tasks.diffusion.stable_diffusion import load

REFERENCES = "references"
"""The folder of the answers of retrained models, from which an interrupted audit goes on."""

MODELS = "models"
"""The folder of the recogniser."""


@dataclass(frozen=True)
class ConceptAudit:
    """An audit of a concept that is ready to run.

    Args:
        folders: The folders of the models.
        digests: The digest of the weights of each folder, the original's first.
        prompts: The prompts.
        real: Real images.
        family: The settings.
        device: The device of the models; the CPU if None.
        models: Models from local files that judge images.
        omissions: What does not run.
    """

    folders: Folders
    digests: Mapping[Path, str]
    prompts: ConceptPrompts
    real: RealImages
    family: TextToImageFamily
    device: str | None
    models: LocalModels
    omissions: Sequence[str]

    def facts(self) -> dict[str, Any]:
        """The facts that the audit depends on."""
        return {
            "verb": "audit",
            "weights": {str(folder.resolve()): digest for folder, digest in self.digests.items()},
            "prompts": repr(self.prompts),
            "data": self.real.digest,
            "family": repr(self.family),
            "attacks": list(self.family.attacker.names),
            "device": self.device,
            **self.models.digests,
            "code": package_digest(),
        }

    def notes(self, outcome: Audit) -> list[str]:
        """What the figures of the audit may hide: a concept that is drawn, and prompts that test nothing."""
        (stage,) = outcome.record["stages"].values()
        return [
            *explain_still_drawn(stage),
            *explain_weak_prompts(stage),
            *explain_other_concept(self.folders.edited, self.prompts),
        ]

    def run(self, place: Path, listener: Listener) -> Audit:
        """Draws images of every model, attacks them and judges."""
        exam = self.exam(place / MODELS)
        total = len(self.digests) + 1
        listener(Progress("the recogniser", 1, total))
        original = self.model(self.folders.original)
        original_answers = answers_or_refuse(f"model in {self.folders.original}", original, exam, original)
        edited_model = self.edited_model()
        edited_answers = answers_or_refuse(f"model in {self.folders.edited}", edited_model, exam, original)
        listener(Progress("the original and the model", 3, total))
        answers: list[Answers[Drawn]] = []
        for folder in self.folders.retrained:
            answers.append(self.stored_answers(folder, exam, place / REFERENCES))
            listener(Progress(folder.name, 3 + len(answers), total))
        enough = len(answers) >= SEEDS + RETRAINS
        references = answers[:-RETRAINS] if enough else answers
        return judge_answers(
            exam,
            self.subject(exam, original_answers.outputs),
            edited_answers,
            original_answers,
            references,
            answers[-RETRAINS:] if enough else [],
        )

    def exam(self, cache: Path) -> ConceptExam:
        """The exam, with the recogniser."""
        exam = self.family.concept_exam(self.prompts, self.recogniser(cache), self.real)
        return replace(exam, models=self.models)

    def recogniser(self, cache: Path) -> FactorRecogniser:
        """The classifier if there is one, else a recogniser trained on the real images."""
        real, device = self.real, self.device or "cpu"
        if self.models.classifier is not None:
            (factor,) = self.prompts.concept
            return recogniser_of(self.models.classifier, factor, real.held_out, device=device)
        cache.mkdir(parents=True, exist_ok=True)
        return fit_recogniser(real.train, real.held_out, real.names, device=device, cache=cache)

    def model(self, folder: Path) -> PromptedPipeline:
        """A pipeline under the prompts."""
        return PromptedPipeline(load(folder), self.prompts.conditions).to(self.device or "cpu")

    def edited_model(self) -> PromptedPipeline:
        """The model under audit: of a run with a LoRA file, the original with it, as its users have it."""
        lora = None if self.folders.run is None else self.folders.run / ADDITIONS
        if lora is None or not lora.is_dir():
            return self.model(self.folders.edited)
        model = self.model(self.folders.original)
        add_from_file(model.denoiser, lora)
        return model

    def stored_answers(self, folder: Path, exam: ConceptExam, place: Path) -> Answers[Drawn]:
        """The answers of a retrained model, read from a folder if they are there."""
        name = f"{self.digests[folder][:16]}-{exam.digest}"
        facts, images = place / f"{name}.json", place / f"{name}.{exam.suffix}"
        if not facts.exists():
            model = self.model(folder)
            answers = answers_or_refuse(f"model in {folder}", model, exam, model)
            place.mkdir(parents=True, exist_ok=True)
            exam.save(answers.outputs, images)
            write_atomically(facts, json.dumps({"probes": dict(answers.probes)}))
        return Answers(exam.load(images), read_object(facts, ": delete it")["probes"])

    def subject(self, exam: ConceptExam, original: Drawn) -> GivenModel:
        """The model under audit, as the record describes it; with the images of the original."""
        train = self.real.train
        ids = train.part(shows(train, self.prompts.concept).nonzero()[:, 0]).names
        about = request_row(ids, [0] * len(ids), of=len(train), model=self.folders.original.name)
        about |= {"classes": {self.prompts.concept_words: len(ids)}}
        data = {"digest": self.real.digest, "forget": len(ids), "retain": len(train) - len(ids)}
        data |= {"not run": list(self.omissions)}
        if self.models.classifier is not None:
            data |= {"classifier": dict(self.models.classifier.facts)}
        name, row, request, seed = method_of(self.folders.run)
        data |= exam.facts
        samples, numbers = exam.samples(original), self.prompts.kinds.get("trained", ())
        weak = [self.prompts.all_prompts[each].text for each in numbers if samples.hits([each]).value < HALF]
        data |= {WEAK: weak} if weak else {}
        return GivenModel(name, row, {**about, **request}, data, TextToImageFamily.name, seed)


def method_of(
    run: Path | None,
) -> tuple[str, Mapping[str, Any], Mapping[str, Any], int | None]:
    """The name, the row, the request and the seed of the method that made a model, if its run is known."""
    if run is None:
        return "model", {"repr": "a model known by its folder", **UNKNOWN}, {}, None
    (stage,) = record.load(run)["stages"].values()
    ((name, row),) = stage["methods"].items()
    facts = {key: row[key] for key in ("repr", "seconds", "gradient_evaluations", "cost", "trace")}
    return name, facts, stage["request"], next(iter(stage["seeds"]), None)
