"""The folder of saved states holds the states of one run, and nothing else."""

from pathlib import Path

import pytest

from unweave.weights.state_folder import CLAIM, States


def test_a_folder_with_other_content_is_refused_and_keeps_it(tmp_path: Path) -> None:
    own = tmp_path / "000-holiday" / "picture"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(ValueError, match="must be empty.*found '000-holiday'"):
        States(tmp_path, 1).claim({"seed": 0})
    assert own.read_text() == "mine"
    assert not (tmp_path / CLAIM).exists()


def test_a_draft_of_the_claim_that_a_crash_left_is_no_other_content(tmp_path: Path) -> None:
    (tmp_path / f".{CLAIM}.123").touch()
    States(tmp_path, 1).claim({"seed": 0})
    assert (tmp_path / CLAIM).exists()
