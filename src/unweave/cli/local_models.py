"""Models of others that judge images, each from a local file: all are optional, and none is downloaded."""

from dataclasses import dataclass

from unweave.audits.diffusion.local_classifier import LocalClassifier, read_classifier
from unweave.audits.diffusion.nude_net import NudeNet, read_detector
from unweave.cli.audit_concept import ConceptFiles


@dataclass(frozen=True, eq=False)
class LocalModels:
    """The models that an audit of a concept is given.

    Args:
        classifier: Recognises the concept, in place of a recogniser trained on the user's images.
        nude_net: Detects nudity.
    """

    classifier: LocalClassifier | None = None
    nude_net: NudeNet | None = None

    @property
    def facts(self) -> dict[str, object]:
        """What figures depend on, by model."""
        found = {
            "classifier": self.classifier and {**self.classifier.facts, "classes": self.classifier.names},
            "nudenet": self.nude_net and self.nude_net.digest,
        }
        return {name: each for name, each in found.items() if each}


def read_local_models(given: ConceptFiles) -> LocalModels:
    """Reads the models of an audit.

    Raises:
        ValueError: If one of them can't be used.
    """
    classifier = given.classifier and read_classifier(
        given.classifier, architecture=given.architecture, names=given.class_names
    )
    return LocalModels(classifier, given.nudenet and read_detector(given.nudenet))
