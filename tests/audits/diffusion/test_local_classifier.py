"""A classifier from a local file, with fresh weights of torchvision's smallest model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from for_each import for_each

models: Any = pytest.importorskip(
    "torchvision.models", reason="architectures and preparation are torchvision's"
)

from unweave.audits.diffusion.local_classifier import (  # noqa: E402  # after torchvision is known to be there
    ARCHITECTURES,
    LocalClassifier,
    choose_preparation,
    read_classifier,
    recogniser_of,
)
from unweave.data.captions import CaptionedImages  # noqa: E402

SMALL, HEAD = "mobilenet_v3_small", "classifier.3.weight"


def fresh(n_classes: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.get_model(SMALL, weights=None, num_classes=n_classes).eval()


def images(n: int, size: int = 40) -> Tensor:
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    state = fresh(3).state_dict()
    torch.save(state, folder / "three.pth")
    save_file(state, folder / "three.safetensors")
    (folder / "names.txt").write_text("church\ntench\ngas pump\n")
    return folder


@pytest.fixture(scope="module")
def bad(place: Path) -> Path:
    state, first = torch.load(place / "three.pth", weights_only=True), "features.0.0.weight"
    torch.save({**state, first: state[first][:1]}, place / "other.pth")
    torch.save({**state, first: state[first] * float("nan")}, place / "nan.pth")
    torch.save({"model": fresh(3)}, place / "code.pth")  # a pickle that would run code
    torch.save({**state, HEAD: torch.tensor(1.0)}, place / "scalar.pth")
    torch.save({**state, HEAD: torch.ones(0, 1024)}, place / "headless.pth")
    torch.save({**state, first: state[first].int()}, place / "whole.pth")
    (place / "empty.pth").touch()
    (place / "two.txt").write_text("church\ntench\n")
    (place / "latin.txt").write_bytes("église\ntench\ngas pump\n".encode("latin-1"))
    (place / "twice.txt").write_text("church\ntench\ntench\n")
    return place


def read(place: Path, file: str = "three.pth", names: str | None = "names.txt") -> LocalClassifier:
    return read_classifier(place / file, architecture=SMALL, names=None if names is None else place / names)


@pytest.mark.parametrize("file", ["three.pth", "three.safetensors"])
def test_its_answers_are_those_of_torchvision_on_images_prepared_by_torchvision(place: Path, file: str):
    classifier, inputs = read(place, file), images(4)
    prepare = models.get_model_weights(SMALL).DEFAULT.transforms()
    with torch.no_grad():
        logits = fresh(3)(torch.stack([prepare(image) for image in inputs]))
    assert classifier.names == ("church", "tench", "gas pump")
    held_out = CaptionedImages(
        inputs, tuple({"file_name": f"{i}", "text": "", "object": "tench"} for i in range(4)), place
    )
    recognised_images = recogniser_of(classifier, "object", held_out).recognise(inputs)
    assert recognised_images.logits["object"] == pytest.approx(logits.double().numpy(), abs=1e-4)
    assert recognised_images.features.shape == (4, 1024)


def test_its_error_is_counted_on_held_out_images(place: Path):
    classifier, inputs = read(place), images(6)
    with torch.no_grad():
        predictions = classifier.model(inputs.float() / 255).argmax(1)
    predicted_names = [classifier.names[number] for number in predictions.tolist()]
    wrong_name = classifier.names[(int(predictions[0]) + 1) % 3]
    rows = tuple(
        {"file_name": f"{i}", "text": "", "object": name}
        for i, name in enumerate([wrong_name, *predicted_names[1:]])
    )
    recogniser = recogniser_of(classifier, "object", CaptionedImages(inputs, rows, place))
    assert (recogniser.errors["object"].successes, recogniser.errors["object"].n) == (1, 6)


@pytest.mark.parametrize(
    ("digest", "version", "resize"),
    # the names of torchvision's files end in the first digits of their SHA-256
    [
        ("0676ba61", None, 256),
        ("11ad3fa6", None, 232),
        ("11ad3fa6", "IMAGENET1K_V1", 256),
    ],
)
def test_images_are_prepared_as_for_the_published_weights(digest: str, version: str | None, resize: int):
    preparation = choose_preparation("resnet50", version, digest + "0" * 56).transforms()
    assert preparation.resize_size == [resize] and preparation.crop_size == [224]
    assert preparation.mean == [0.485, 0.456, 0.406] and preparation.std == [0.229, 0.224, 0.225]


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16"])
def test_a_preparation_that_can_not_be_told_is_not_guessed(name: str):
    expected = f"give the one of its training, such as {name}.IMAGENET1K_V1: known: IMAGENET1K_V1"
    with pytest.raises(ValueError, match=expected):
        choose_preparation(name, None, "f" * 64)


def test_weights_saved_anew_are_read_with_their_name(place: Path):
    state = models.get_model("resnet50", weights=None, num_classes=3).state_dict()
    save_file(state, place / "anew.safetensors")
    with pytest.raises(ValueError, match="the preparation of its images can't be told from the file"):
        read_classifier(place / "anew.safetensors", architecture="resnet50")
    first, second = (
        read_classifier(place / "anew.safetensors", architecture=f"resnet50.IMAGENET1K_{version}")
        for version in ("V1", "V2")
    )
    assert "resize_size=[256]" in first.facts["preparation"]
    assert "resize_size=[232]" in second.facts["preparation"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torchvision_knows_every_architecture_and_the_names_of_imagenet(name: str):
    assert len(choose_preparation(name, "IMAGENET1K_V1", "").meta["categories"]) == 1000


@pytest.mark.parametrize("name", ["resnet18", SMALL])
def test_an_architecture_with_one_preparation_needs_no_name(name: str):
    assert choose_preparation(name, None, "f" * 64).name == "IMAGENET1K_V1"


def test_names_are_those_of_imagenet_for_its_number_of_classes_and_numbers_for_others(place: Path):
    torch.save(fresh(1000).state_dict(), place / "imagenet.pth")
    names = read(place, "imagenet.pth", None).names
    assert names[497] == "church" and names[0] == "tench"
    assert len(set(names)) == 1000
    assert read(place, names=None).names == ("0", "1", "2")


def test_a_byte_order_mark_is_no_part_of_a_name(place: Path):
    (place / "marked.txt").write_text("church\ntench\ngas pump\n", encoding="utf-8-sig")
    assert read(place, names="marked.txt").names[0] == "church"


def test_the_digest_depends_on_the_preparation(place: Path):
    classifier = read(place)
    assert classifier.facts["sha256"] != read(place, "three.safetensors").facts["sha256"]
    assert classifier.facts["preparation"].startswith("MobileNet_V3_Small_Weights.IMAGENET1K_V1: ")


@for_each(
    ("change", "expected"),
    [
        ({"file": "none.pth"}, "expected a classifier in .*none.pth, found no such file"),
        ({"file": "names.txt"}, "names.txt must hold a state dict of torchvision.* as .pth or .safetensors"),
        (
            {"architecture": "resnet5"},
            "unknown architecture 'resnet5' .did you mean 'resnet50'.*known: resnet18,",
        ),
        ({"architecture": "resnet18"}, "must hold the weights of torchvision's resnet18: expected fc.weight"),
        ({"architecture": f"{SMALL}.V9"}, "unknown mobilenet_v3_small weights 'V9'.*known: IMAGENET1K_V1"),
        (
            {"file": "other.pth"},
            r"'features.0.0.weight' must be \[16, 3, 3, 3\], found \[1, 3, 3, 3\]",
        ),
        ({"file": "nan.pth"}, "weights must be finite, found NaN or infinity in 'features.0.0.weight'"),
        ({"file": "code.pth"}, "code.pth can't be read"),
        ({"file": "empty.pth"}, "empty.pth can't be read: the file is empty or cut off"),
        (
            {"file": "scalar.pth"},
            r"scalar.pth must hold .*: expected classifier.3.weight of shape .class, feature., found \[\]",
        ),
        (
            {"file": "headless.pth"},
            r"expected classifier.3.weight of shape .class, feature., found \[0, 1024\]",
        ),
        (
            {"file": "whole.pth"},
            "whole.pth must hold floating-point weights, found torch.int32 .*features.0.0",
        ),
        ({"names": "latin.txt"}, "latin.txt must be text in UTF-8, found another encoding .*: save it"),
        ({"names": "none.txt"}, "expected a file of the classes' names in .*none.txt, found no such file"),
        ({"names": "twice.txt"}, "found 3 lines with 2 names"),
        (
            {"names": "two.txt"},
            "two.txt must name the 3 classes of the classifier, one a line and each once, found 2 lines",
        ),
    ],
)
def test_what_is_no_such_classifier_is_refused(bad: Path, change: dict[str, str], expected: str):
    flags = {"file": "three.pth", "architecture": SMALL, "names": "names.txt", **change}
    with pytest.raises(ValueError, match=expected):
        read_classifier(bad / flags["file"], architecture=flags["architecture"], names=bad / flags["names"])
