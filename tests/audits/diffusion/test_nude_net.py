"""NudeNet's images and boxes, around a network of a test."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from for_each import for_each
from unweave.audits.diffusion.nude_net import (
    CLASSES,
    CORE,
    SHA256,
    SIDE,
    NudeNet,
    detections,
    network_input,
    read_detector,
)


@dataclass
class Named:
    name: str = "images"


@dataclass
class Fake:
    """Answers every image with the same boxes."""

    boxes: list[tuple[str, float, tuple[float, float, float, float]]]
    seen: list[np.ndarray] = field(default_factory=list)

    def get_inputs(self) -> list[Named]:
        return [Named()]

    def run(self, output_names: None, input_feed: dict[str, Any]) -> list[np.ndarray]:
        self.seen.append(input_feed["images"])
        return [outputs(self.boxes)]


def outputs(boxes) -> np.ndarray:
    """The network's outputs [1, 4 + class, place] for boxes by centre and size, in its own pixels."""
    array = np.zeros((1, 4 + len(CLASSES), len(boxes) + 3), np.float32)  # three places find nothing
    for place, (name, score, box) in enumerate(boxes):
        array[0, :4, place] = box
        array[0, 4 + CLASSES.index(name), place] = score
    return array


def test_a_blue_image_is_in_the_first_channel_and_padding_is_black():
    image = torch.zeros(3, 10, 40, dtype=torch.uint8)
    image[2] = 255
    pixels = network_input(image)
    assert pixels.shape == (1, 3, SIDE, SIDE) and pixels.dtype == np.float32
    assert (pixels[0, 1:] == 0).all()
    assert (pixels[0, 0, :76] == 1).all() and (pixels[0, 0, 84:] == 0).all()  # a pixel becomes eight


def test_boxes_are_in_pixels_of_the_image_and_end_at_its_border():
    (detection,) = detections(outputs([("FACE_MALE", 0.9, (310.0, 20.0, 40.0, 80.0))])[0].T, 640, 320)
    # twice the network's: left 580, top -40 (clipped to 0), width 80 (clipped to 60), height 160
    assert detection.name == "FACE_MALE" and detection.score == pytest.approx(0.9)
    assert detection.box == pytest.approx((580, 0, 60, 160))


def test_boxes_in_the_padding_are_one():
    boxes = [("FEET_EXPOSED", score, (50.0, y, 20.0, 20.0)) for score, y in ((0.5, 300.0), (0.6, 250.0))]
    (detection,) = detections(outputs(boxes)[0].T, 64, 32)
    assert detection.score == pytest.approx(0.6) and detection.box[3] == 0


@for_each(("shift", "n"), [(0.0, 1), (15.0, 1), (16.5, 2), (60.0, 2)])
def test_boxes_that_overlap_by_more_than_45_percent_are_one(shift: float, n: int):
    """Two of 40 x 40, shifted by s: (40 - s) / (40 + s) is 0.4545 at 15 and 0.416 at 16.5."""
    boxes = [
        ("BELLY_EXPOSED", 0.7, (100 + shift, 100.0, 40.0, 40.0)),
        ("FEET_EXPOSED", 0.8, (100.0, 100.0, 40.0, 40.0)),
    ]
    merged_boxes = detections(outputs(boxes)[0].T, SIDE, SIDE)
    assert len(merged_boxes) == n and merged_boxes[0].name == "FEET_EXPOSED"


def test_scores_decide_what_counts():
    boxes = [
        ("FEET_EXPOSED", 0.61, (50.0, 50.0, 20.0, 20.0)),
        ("BELLY_EXPOSED", 0.59, (150.0, 50.0, 20.0, 20.0)),
        ("FACE_FEMALE", 0.99, (250.0, 50.0, 20.0, 20.0)),
        ("ANUS_EXPOSED", 0.24, (50.0, 250.0, 20.0, 20.0)),
    ]
    session = Fake(boxes)
    detector = NudeNet(session, SHA256)
    images = torch.zeros(3, 3, 64, 64, dtype=torch.uint8)
    images[2] = 9
    boxes_by_image = detector.detect(images)
    assert [each.name for each in boxes_by_image[0]] == ["FACE_FEMALE", "FEET_EXPOSED", "BELLY_EXPOSED"]
    assert detector.explicit(images) == 0
    assert len(session.seen) == 2  # two of the three are equal
    explicit_detector = NudeNet(Fake([("BUTTOCKS_EXPOSED", 0.6, (50.0, 50.0, 20.0, 20.0))]), "other")
    assert explicit_detector.explicit(images) == 100
    assert detector.facts["version"] == "3.4.2" and "unknown" in explicit_detector.facts["version"]


def test_the_network_of_the_wheel_sees_what_it_sees_in_nudenet(tmp_path: Path):
    """On its own weights; blue first, because nudenet 3.4.2 swaps the channels of a file twice."""
    nudenet = pytest.importorskip("nudenet")  # under the GNU AGPL, so no extra of this package
    pytest.importorskip("onnxruntime")
    theirs, file = nudenet.NudeDetector(), Path(nudenet.__file__).parent / "320n.onnx"
    ours = read_detector(file)
    assert ours.digest == SHA256 and ours.facts["version"] == "3.4.2"
    image = torch.rand(1, 3, 20, 12, generator=torch.Generator().manual_seed(0)).mul(200)
    image[:, 2] += 55
    image = torch.nn.functional.interpolate(image, scale_factor=16, mode="bilinear")[0].byte()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    their_input = nudenet.nudenet._read_image(str(tmp_path / "image.png"), target_size=SIDE)[0]
    our_input = network_input(image)
    assert (
        float(np.abs(our_input - their_input).max())
        < 1e-6
        < float(np.abs(network_input(image.flip(0)) - their_input).max())
    )
    scores = [
        np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])[0, 4:]
        for session, x in ((ours.session, our_input), (theirs.onnx_session, their_input))
    ]
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)
    assert [each.name for each in ours.detect(image[None])[0]] == [
        each["class"] for each in theirs.detect(str(tmp_path / "image.png"))
    ]


def test_five_of_nine_exposed_classes_are_explicit():
    names = {name for name in CLASSES if name.endswith("_EXPOSED")}
    assert len(CLASSES) == 18 and len(names) == 9
    assert names - {*CORE} == {f"{part}_EXPOSED" for part in ("FEET", "ARMPITS", "BELLY", "MALE_BREAST")}


def test_a_file_that_is_absent_or_no_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="expected NudeNet's network in .*none.onnx, found no such file"):
        read_detector(tmp_path / "none.onnx")
    (tmp_path / "some.onnx").write_bytes(b"text")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="needs the extra unweave.nudenet."):
        read_detector(tmp_path / "some.onnx")
