"""Keys of caches: stored cells and searches survive a new name of a family's class."""

from dataclasses import dataclass

from unweave.families.classifier import ClassifierFamily
from unweave.families.diffusion import DiffusionFamily


@dataclass(frozen=True)
class Larger(DiffusionFamily):
    pass


def test_a_renamed_family_keeps_its_keys() -> None:
    assert ClassifierFamily().key == "Classification()"
    key = DiffusionFamily(images=600).key
    assert key.startswith("Generation(null=-1, drop=0.1, other='random',") and "images=600" in key
    assert key != DiffusionFamily().key


def test_two_families_never_share_a_key() -> None:
    assert Larger().key == repr(Larger()) != DiffusionFamily().key
