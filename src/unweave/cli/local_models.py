"""Models that judge images, each from a local file: all are optional, and none is downloaded."""

from dataclasses import dataclass
from pathlib import Path

from unweave.audits.diffusion.clip_folder import read_clip
from unweave.audits.diffusion.clip_score import ClipScore
from unweave.audits.diffusion.fid import refuse_no_fid
from unweave.audits.diffusion.local_classifier import LocalClassifier, read_classifier
from unweave.audits.diffusion.nude_net import NudeNet, read_detector
from unweave.cli.audit_concept import ConceptFiles
from unweave.record.files import sha256


@dataclass(frozen=True, eq=False)
class LocalModels:
    """The models that an audit of a concept is given.

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
    def facts(self) -> dict[str, object]:
        """What the figures of each model depend on."""
        found = {
            "classifier": self.classifier and {**self.classifier.facts, "classes": self.classifier.names},
            "nudenet": self.nude_net and self.nude_net.digest,
            "clip": self.clip and self.clip.digest,
            "inception": self.inception and sha256(self.inception),
        }
        return {name: each for name, each in found.items() if each}


def read_local_models(given: ConceptFiles, device: str | None) -> LocalModels:
    """Reads the models of an audit.

    Raises:
        ValueError: If one of them can't be used.
    """
    if given.inception is not None:
        refuse_no_fid(given.inception)
    return LocalModels(
        given.classifier
        and read_classifier(given.classifier, architecture=given.architecture, names=given.class_names),
        given.nudenet and read_detector(given.nudenet),
        given.clip and read_clip(given.clip, device=device or "cpu"),
        given.inception,
    )
