import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from audit.generators.test_kid import pinned
from unweave.audit.generators.fid import fid, frechet, rgb


def drawn(seed: int, n: int = 90, d: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ np.random.default_rng(7).normal(size=(d, d))


def test_a_set_is_at_zero_from_itself_and_a_shift_costs_its_square():
    one, shift = drawn(0), np.array([1.0, 0.0, -2.0, 0.0, 0.5])
    assert frechet(one, one, space="s").value == pytest.approx(0, abs=1e-9)
    assert frechet(one, one + shift, space="s").value == pytest.approx(5.25, abs=1e-9)
    assert frechet(one, 2 * one, space="s").value == pytest.approx(
        np.square(one.mean(axis=0)).sum() + np.trace(np.cov(one.T)), abs=1e-9
    )


def test_it_equals_the_formula_with_scipys_root_and_torchmetrics():
    one, other = drawn(0), drawn(1, 70) * 1.3
    s, t = np.cov(one.T), np.cov(other.T)
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet(one, other, space="s").value == pytest.approx(expected, rel=1e-9)
    assert frechet(other, one, space="s").value == pytest.approx(expected, rel=1e-9)
    # torchmetrics 1.9.0, _compute_fid
    assert frechet(*pinned(), space="s").value == pytest.approx(1.7321186154653887, abs=1e-10)


def test_its_name_says_what_it_may_be_compared_with():
    name = frechet(drawn(0), drawn(1, 70), space="0123456789ab").name
    assert name == "frechet@0123456789ab/d5/n90x70"
    assert "fid" not in name


def test_too_few_images_or_two_spaces_are_refused():
    with pytest.raises(ValueError, match="in 5 dimensions needs more than 5 images, found 90 and 5"):
        frechet(drawn(0), drawn(1, 5), space="s")
    with pytest.raises(ValueError, match="one space, found 5 and 3 numbers"):
        frechet(drawn(0), drawn(1)[:, :3], space="s")


IMAGES = torch.randint(0, 256, (2049, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights(tmp_path):
    place = tmp_path / "weights.pth"
    place.write_bytes(b"weights")
    return place


def test_an_fid_without_its_weights_names_the_file_before_anything_else(tmp_path):
    expected = "needs the file weights-inception-2015-12-05-6726825d.pth, found none at .*missing.pth"
    with pytest.raises(ValueError, match=expected):
        fid(IMAGES.float(), IMAGES, weights=tmp_path / "missing.pth")


@pytest.fixture
def packages(monkeypatch):
    """Empty modules in the place of torchmetrics and torch-fidelity."""
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.fid", "torch_fidelity"):
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules


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
    given = []

    class Stub:
        def __init__(self, feature, *, normalize, feature_extractor_weights_path):
            given.append((feature, normalize, feature_extractor_weights_path))

        def update(self, batch, *, real):
            given.append((batch.dtype, tuple(batch.shape[1:]), real))

        def compute(self):
            return torch.tensor(12.5)

    monkeypatch.setattr(packages["torchmetrics.image.fid"], "FrechetInceptionDistance", Stub, raising=False)
    assert fid(IMAGES, IMAGES, weights=weights) == 12.5
    assert given[0] == (2048, False, str(weights))
    assert set(given[1:]) == {(torch.uint8, (3, 4, 4), False), (torch.uint8, (3, 4, 4), True)}


def test_grey_becomes_three_equal_channels_and_others_are_refused():
    assert (rgb(IMAGES[:2]) == IMAGES[:2]).all() and rgb(IMAGES[:2]).shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="grey or RGB, found 2 channels"):
        rgb(IMAGES[:2].expand(2, 2, 4, 4))
