"""The folder that a verb writes into."""

import pytest


@pytest.mark.parametrize("flag", [".", "..", "down/.."])
def test_the_sibling_of_a_folder_in_use_bears_its_name(run, here, flag):
    (here / "down").mkdir()
    result = run("methods", "--out", flag)
    folder = here.parent if flag == ".." else here
    assert result.code == 0 and [each.name for each in here.iterdir()] == ["down"]
    assert (folder.with_name(f"{folder.name}-2") / "methods.json").is_file()
