import hashlib
import importlib.util
import os
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch

from unweave.audits.diffusion import fid as module
from unweave.audits.diffusion.fid import fid, rgb

IMAGES = torch.randint(0, 256, (2049, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A stub of the weights, which counts as torch-fidelity's."""
    place = tmp_path / "weights.pth"
    place.write_bytes(b"weights")
    monkeypatch.setattr(module, "BEGINNING", hashlib.sha256(b"weights").hexdigest()[:8])
    return place


def test_a_distance_in_the_features_of_other_weights_is_no_fid(tmp_path):
    place = tmp_path / module.INCEPTION
    place.write_bytes(b"other weights")
    start = hashlib.sha256(b"other weights").hexdigest()[:8]
    expected = f"weights-inception-2015-12-05-6726825d.pth, whose SHA-256 begins with 6726825d, found {start}"
    with pytest.raises(ValueError, match=expected):
        fid(IMAGES, IMAGES, weights=place)


def test_an_fid_without_its_weights_names_the_file_before_anything_else(tmp_path):
    expected = "needs the file weights-inception-2015-12-05-6726825d.pth, found none at .*missing.pth"
    with pytest.raises(ValueError, match=expected):
        fid(IMAGES.float(), IMAGES, weights=tmp_path / "missing.pth")


def test_the_file_of_the_weights_is_hashed_once_until_it_changes(weights, monkeypatch):
    paths = []
    monkeypatch.setattr(module, "sha256", lambda path: paths.append(path) or path.read_bytes().hex())
    first = [module.inception_digest(weights), module.inception_digest(str(weights))]
    assert len(paths) == 1 and first == [b"weights".hex()] * 2
    weights.write_bytes(b"other weights")
    assert module.inception_digest(weights) == b"other weights".hex() and len(paths) == 2


@pytest.fixture
def packages(monkeypatch):
    """Empty modules in the place of torchmetrics and torch-fidelity."""
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.fid", "torch_fidelity"):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules


def test_a_file_replaced_within_its_size_and_time_is_hashed_again(weights):
    module.inception_digest(weights)
    status, other = weights.stat(), weights.with_name("other.pth")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(weights)
    assert module.inception_digest(weights) == hashlib.sha256(b"WEIGHTS").hexdigest()


def test_an_fid_without_its_packages_says_which(weights, packages, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch_fidelity" else 1)
    with pytest.raises(ValueError, match="needs torchmetrics and torch-fidelity, found no torch_fidelity"):
        fid(IMAGES, IMAGES, weights=weights)


def test_an_fid_refuses_floats_few_images_and_other_resolutions(weights, packages):
    with pytest.raises(ValueError, match="found torch.float32"):
        fid(IMAGES.float(), IMAGES, weights=weights)
    with pytest.raises(ValueError, match="at least 2049 images of each kind, found 2048"):
        fid(IMAGES[1:], IMAGES, weights=weights)
    with pytest.raises(ValueError, match="must have shape .n, 1, 4, 4., found .2049, 1, 2, 2."):
        fid(IMAGES, IMAGES[:, :, :2, :2], weights=weights)


def test_an_fid_hands_torchmetrics_rgb_bytes_and_the_file(weights, packages, monkeypatch):
    """SalUn's code computes an "FID" of 64 features; the FID is of 2,048."""
    calls = []

    class Stub:
        def __init__(self, feature, *, normalize, feature_extractor_weights_path):
            calls.append((feature, normalize, feature_extractor_weights_path))

        def update(self, batch, *, real):
            calls.append((batch.dtype, tuple(batch.shape[1:]), real))

        def compute(self):
            return torch.tensor(12.5)

    monkeypatch.setattr(packages["torchmetrics.image.fid"], "FrechetInceptionDistance", Stub, raising=False)
    assert fid(IMAGES, IMAGES, weights=weights) == 12.5
    assert calls[0] == (2048, False, str(weights))
    assert set(calls[1:]) == {(torch.uint8, (3, 4, 4), False), (torch.uint8, (3, 4, 4), True)}


def test_grey_becomes_three_equal_channels_and_others_are_refused():
    assert (rgb(IMAGES[:2]) == IMAGES[:2]).all() and rgb(IMAGES[:2]).shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="grey or RGB, found 2 channels"):
        rgb(IMAGES[:2].expand(2, 2, 4, 4))
