"""What is kept on disk is read again, made anew where it is out of date, and refused where it is no more."""

from itertools import count

import pytest

from unweave.bench.cache import read_or_make


def test_what_is_kept_is_made_once_for_each_key(tmp_path) -> None:
    counter = count()
    contents = [
        read_or_make(tmp_path / "a", key, lambda: {"number": next(counter)}) for key in ("x", "x", "y", "y")
    ]
    assert [each["number"] for each in contents] == [0, 0, 1, 1]


@pytest.mark.parametrize("text", ['{"key": "x', "[]", "", "null"])
def test_a_file_that_was_damaged_is_named(tmp_path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json .*: delete it, and it is made again"):
        read_or_make(tmp_path / "a", "x", dict)
