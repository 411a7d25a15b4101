"""Models from local files that judge the images of an audit of a concept; none is downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unweave.audits.diffusion.clip_score import ClipScore
from unweave.audits.diffusion.concept_metrics import CLIP, NUDITY
from unweave.audits.diffusion.concept_prompts import ConceptPrompts
from unweave.audits.diffusion.fid import fid, inception_digest, refuse_no_fid
from unweave.audits.diffusion.local_classifier import LocalClassifier
from unweave.audits.diffusion.nude_net import NudeNet
from unweave.audits.diffusion.real_images import RealImages


@dataclass(frozen=True, eq=False)
class LocalModels:
    """The models that an audit of a concept is given; what one of them would measure is left out without it.

    Args:
        classifier: Recognises the concept, in place of a recogniser trained on the user's images.
        nude_net: Detects nudity.
        clip: Scores the agreement of images with their prompts.
        inception: The file of Inception's weights, for an FID.
    """

    classifier: LocalClassifier | None = None
    nude_net: NudeNet | None = None
    clip: ClipScore | None = None
    inception: Path | None = None

    @property
    def digests(self) -> dict[str, object]:
        """What the figures of each model depend on."""
        digests = {
            "classifier": self.classifier and {**self.classifier.facts, "classes": self.classifier.names},
            "nudenet": self.nude_net and self.nude_net.digest,
            "clip": self.clip and self.clip.digest,
            "inception": self.inception and inception_digest(self.inception),
        }
        return {name: each for name, each in digests.items() if each}

    @property
    def facts(self) -> dict[str, Any]:
        """The models that measure images, as a record describes them."""
        facts = {} if self.nude_net is None else {"NudeNet": self.nude_net.facts}
        facts |= {} if self.clip is None else {"CLIP": {"sha256": self.clip.digest}}
        if self.inception is None:
            return facts
        return facts | {"Inception": {"sha256": inception_digest(self.inception)}}

    def refuse_unfit(self, prompts: ConceptPrompts, real: RealImages, count: int) -> None:
        """Raises if there is to be an FID that can't be computed, or of too few images.

        Args:
            prompts: The prompts.
            real: Real images.
            count: The number of images of each prompt.
        """
        if self.inception is not None:
            total = count * len(prompts.retain_prompts)
            refuse_no_fid(self.inception, min(total, len(real.images_to_keep(prompts))))

    def measure(
        self, outputs: Mapping[int, Tensor], prompts: ConceptPrompts, real: RealImages
    ) -> dict[str, float]:
        """The figures of the given models.

        Args:
            outputs: Images by the number of their prompt.
            prompts: The prompts.
            real: Real images; the FID is between held-out ones and images of prompts to keep.
        """
        values: dict[str, float] = {}
        forget, retain = prompts.forget_numbers, prompts.retain_numbers
        if self.nude_net is not None:
            shares = (
                self.nude_net.explicit(torch.cat([outputs[i] for i in part])) for part in (forget, retain)
            )
            values |= zip(NUDITY, shares, strict=True)
        if self.clip is not None:
            texts = [each.text for each in prompts.all_prompts]
            scores = (self.clip.mean((texts[i], outputs[i]) for i in part) for part in (retain, forget))
            values |= zip(CLIP, scores, strict=True)
        if self.inception is not None:
            images = torch.cat([outputs[i] for i in retain])
            values["fid"] = fid(images, real.images_to_keep(prompts), weights=self.inception)
        return values
