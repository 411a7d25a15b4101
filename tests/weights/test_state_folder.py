"""The folder of saved states holds the states of one run, and nothing else."""

import copy
from pathlib import Path

import pytest
import torch

from every_family import original, split, task
from unweave import unlearn
from unweave.descent.descend import Descent
from unweave.methods import Method
from unweave.methods.simple import FineTune
from unweave.weights.state_folder import CLAIM, States, read_whole, write_whole


def test_a_folder_with_other_content_is_refused_and_keeps_it(tmp_path: Path) -> None:
    user_file = tmp_path / "000-holiday" / "picture"
    user_file.parent.mkdir()
    user_file.write_text("mine")
    with pytest.raises(ValueError, match="must be empty.*found '000-holiday'"):
        States(tmp_path, 1).claim({"seed": 0})
    assert user_file.read_text() == "mine"
    assert not (tmp_path / CLAIM).exists()


def test_a_draft_of_the_claim_that_a_crash_left_is_no_other_content(tmp_path: Path) -> None:
    (tmp_path / f".{CLAIM}.123").touch()
    States(tmp_path, 1).claim({"seed": 0})
    assert (tmp_path / CLAIM).exists()


def flip_a_bit(path: Path) -> None:
    """Flips a bit of the numbers in a file of tensors."""
    content = bytearray(path.read_bytes())
    place = bytes(content).index(torch.ones(64).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_damaged_file_of_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tensors.pt"
    torch.save({"a": torch.ones(64)}, path)
    assert torch.equal(read_whole(path)["a"], torch.ones(64))
    flip_a_bit(path)
    for spoil in (
        lambda: None,
        lambda: path.write_bytes(path.read_bytes()[:200]),
        lambda: torch.save(torch.ones(3), path),
        lambda: torch.save({"a": 1}, path),
        path.unlink,
    ):
        spoil()
        with pytest.raises(ValueError, match="is no saved state: delete it to start again"):
            read_whole(path)


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_of_the_disk() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(FULL, {"a": torch.ones(100_000)})


def make_method(lr: float) -> Method:
    """A function that says nothing of its settings."""
    return lambda problem: FineTune(how=Descent(lr=lr, steps=2))(problem)


def test_another_function_or_model_of_the_same_name_is_refused(tmp_path: Path) -> None:
    name = "layernorm"
    model, of = copy.deepcopy(original(name)), task(name)

    def run(lr: float) -> object:
        return unlearn(model, split(name), make_method(lr), task=of, state_folder=tmp_path, save_every=1)

    run(0.1)
    run(0.1)
    with pytest.raises(ValueError, match="states of another run, which differs in 'method'"):
        run(0.2)
    model[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="states of another run, which differs in 'model'"):
        run(0.1)
