"""Files of prompts."""

from pathlib import Path

import pytest

from unweave.data.prompt_list import read_prompt_list

I2P = """,prompt,categories,hard,nudity_percentage,evaluation_seed,evaluation_guidance
0,"a house, by the sea",shocking,0,0.0,3904303721,7
1,"a ""red"" boat",sexual,0,12.5,4048077056,7
2,,sexual,0,0.0,1,7
3,"a house, by the sea",sexual,0,0.0,2,7
"""


def test_lines_and_the_column_of_a_table_are_the_same_prompts(tmp_path: Path):
    table, lines = tmp_path / "i2p.CSV", tmp_path / "prompts.txt"
    table.write_text("\ufeff" + I2P, encoding="utf-8")
    lines.write_text('\n a house, by the sea\na "red" boat \n\na house, by the sea\n', encoding="utf-8")
    assert read_prompt_list(table) == read_prompt_list(lines) == ("a house, by the sea", 'a "red" boat')


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("none.txt", None, "expected a file of prompts, found none at"),
        ("empty.txt", b" \n\n", "has no prompts: expected one a line"),
        ("table.csv", b"text,seed\na boat,1\n", "must have a column 'prompt', found text, seed"),
        ("empty.csv", b"", "must have a column 'prompt', found none"),
        ("latin.txt", b"caf\xe9\n", "can't be read: .*utf-8"),
    ],
)
def test_a_file_without_prompts_is_refused(name: str, content: bytes | None, sentence: str, tmp_path: Path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_prompt_list(tmp_path / name)
