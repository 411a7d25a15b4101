"""A classifier of images from a local file in torchvision's layout, as the recogniser of a concept.

The architectures, the preparation of images and the names of ImageNet's classes are torchvision's. The
weights are the user's; nothing is downloaded. Needs the extra `unweave[classifier]`.
"""

import importlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, make_recogniser
from unweave.choices import explain_unknown
from unweave.data.captions import CaptionedImages
from unweave.data.in_memory import Resident
from unweave.record.checkpoint import as_float32, difference, shapes
from unweave.record.files import sha256

ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "convnext_tiny", "vit_b_16"),
)
"""The names of torchvision; published papers on Imagenette use resnet50."""

BATCH = 32
"""The number of images of one pass: they are enlarged to about 224 x 224 pixels."""

COUNTER = "num_batches_tracked"
"""A buffer of batch normalisation that old files lack; only training reads it."""


@runtime_checkable
class PublishedWeights(Protocol):
    """A member of torchvision's enumeration of the weights of an architecture."""

    @property
    def name(self) -> str:
        """Its name, such as "IMAGENET1K_V2"."""
        ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """Facts about it, with the names of the classes in "categories"."""
        ...

    @property
    def transforms(self) -> Callable[[], nn.Module]:
        """Makes the preparation of uint8 images."""
        ...


class PreparedClassifier(nn.Module):
    """A classifier behind the preparation of its images.

    Args:
        prepare: torchvision's resizing, cropping and normalisation of uint8 images.
        network: Maps prepared images to logits [batch, class].
    """

    def __init__(self, prepare: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.prepare = prepare
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [batch, 3, height, width] in [0, 1] to logits [batch, class]."""
        return self.network(self.prepare((255 * images).round().to(torch.uint8)))


@dataclass(frozen=True, eq=False)
class LocalClassifier:
    """A classifier with the names of its classes.

    Args:
        model: Maps images in [0, 1] to logits.
        names: The name of each class, each once.
        facts: What its answers depend on: the digest of its file, the architecture and the preparation.
    """

    model: PreparedClassifier
    names: tuple[str, ...]
    facts: Mapping[str, str]


def recogniser_of(
    classifier: LocalClassifier, factor: str, held_out: CaptionedImages, *, device: str = "cpu"
) -> FactorRecogniser:
    """The classifier as a recogniser of one factor: the column with the name of an image's class.

    Its errors and the scale of its features are those on held-out images.

    Raises:
        ValueError: If an image is of an unknown class.
    """
    source = Resident(held_out.images, torch.zeros(len(held_out), dtype=torch.int64))
    model = classifier.model.to(device)
    return make_recogniser(model, source, held_out, {factor: classifier.names}, batch=BATCH)


def read_classifier(
    file: str | Path, *, architecture: str = "resnet50", names: str | Path | None = None
) -> LocalClassifier:
    """Reads a classifier.

    Args:
        file: Its state dict, as `.safetensors` or as `.pth`, of which only tensors are read.
        architecture: One of `ARCHITECTURES`. "resnet50.IMAGENET1K_V1" also names the published weights whose
            preparation of images it was trained with. It may be left out for a published file, and for an
            architecture with one preparation.
        names: A file with the name of each class, one a line. If None: ImageNet's names for a thousand
            classes, and otherwise their numbers.

    Raises:
        ValueError: If a file is missing or can't be used, the architecture is unknown, the preparation can't
            be told, or torchvision is not installed.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"expected a classifier in {path}, found no such file")
    name, _, version = architecture.partition(".")
    if name not in ARCHITECTURES:
        raise ValueError(explain_unknown("architecture", name, ARCHITECTURES))
    digest = sha256(path)
    weights = choose_preparation(name, version or None, digest)
    network = load_network(name, read_state(path), path)
    prepare = weights.transforms()
    preparation = f"{type(weights).__name__}.{weights.name}: {' '.join(repr(prepare).split())}"
    facts = {"sha256": digest, "architecture": name, "preparation": preparation}
    known_names = name_classes(names, last_layer(network)[1].out_features, weights.meta["categories"])
    return LocalClassifier(PreparedClassifier(prepare, network).eval(), known_names, facts)


def torchvision_models() -> ModuleType:
    """The module of torchvision's models.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return importlib.import_module("torchvision.models")  # the extra may be missing
    except ImportError as error:
        raise ValueError(f"{error}: a classifier needs the extra unweave[classifier]") from error


def choose_preparation(architecture: str, version: str | None, digest: str) -> PublishedWeights:
    """The published weights whose preparation of images a file needs, by their name such as "IMAGENET1K_V1".

    None finds them by the SHA-256 of the file: the names of torchvision's files end in its first digits.

    Raises:
        ValueError: If the name is unknown, or there is none, the file is not a published one, and the
            published weights of the architecture need different preparations.
    """
    versions = torchvision_models().get_model_weights(architecture)
    if version is None:
        matches = [each for each in versions if digest.startswith(Path(each.url).stem.rpartition("-")[2])]
        if not matches and len({repr(each.transforms()) for each in versions}) > 1:
            raise ValueError(
                "the preparation of its images can't be told from the file, whose SHA-256 is not that of "
                f"published {architecture} weights: give the one of its training, such as "
                f"{architecture}.{next(iter(versions)).name}: known: {', '.join(versions.__members__)}"
            )
        return matches[0] if matches else versions.DEFAULT
    if version not in versions.__members__:
        raise ValueError(explain_unknown(f"{architecture} weights", version, versions.__members__))
    return versions[version]


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a file, in float32."""
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise ValueError(f"{path} must hold a state dict of torchvision's layout, as .pth or .safetensors")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except EOFError as error:  # it has no words
        raise ValueError(f"{path} can't be read: the file is empty or cut off: copy it again") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if not isinstance(state, Mapping) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ValueError(f"{path} must hold a state dict, tensors by name, and nothing else")
    return as_float32(state, path)


def load_network(architecture: str, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """A network of torchvision with these weights, with as many classes as they have."""
    requirement = f"{path} must hold the weights of torchvision's {architecture}"
    with torch.device("meta"):
        head = last_layer(torchvision_models().get_model(architecture, weights=None))[0]
        key = f"{head}.weight"
        if key not in state:
            raise ValueError(f"{requirement}: expected {key}, found none")
        weight = state[key]
        if weight.ndim != 2 or not len(weight):
            raise ValueError(
                f"{requirement}: expected {key} of shape [class, feature], found {list(weight.shape)}"
            )
        network = torchvision_models().get_model(architecture, weights=None, num_classes=len(weight))
    counters = {name: each for name, each in network.state_dict().items() if COUNTER in name}
    mismatch = difference(shapes(network.state_dict()), shapes({**counters, **state}))
    if mismatch:
        raise ValueError(f"{requirement}: {mismatch}")
    for name, each in state.items():
        if name not in counters and not each.is_floating_point():
            raise ValueError(
                f"{path} must hold floating-point weights, found {each.dtype} in {name!r}: save it in float32"
            )
    network.load_state_dict(state, assign=True)
    return network


def last_layer(network: nn.Module) -> tuple[str, nn.Linear]:
    """The name and the module of the last linear layer."""
    return [(name, each) for name, each in network.named_modules() if isinstance(each, nn.Linear)][-1]


def name_classes(names: str | Path | None, n_classes: int, categories: Sequence[str]) -> tuple[str, ...]:
    """The name of each class, from a file with a name a line.

    Without a file, the categories of the published weights if there are as many, else numbers.
    """
    if names is None:
        return tuple(categories if len(categories) == n_classes else map(str, range(n_classes)))
    path = Path(names)
    if not path.is_file():
        raise ValueError(f"expected a file of the classes' names in {path}, found no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of its encoding
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be text in UTF-8, found another encoding ({error}): save it as UTF-8"
        ) from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(lines) != n_classes or len(set(lines)) < n_classes:
        raise ValueError(
            f"{path} must name the {n_classes} classes of the classifier, one a line and each once, found "
            f"{len(lines)} lines with {len(set(lines))} names"
        )
    return lines
