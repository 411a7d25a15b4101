"""Files of prompts."""

from pathlib import Path

import pytest

from unweave.data.prompt_list import PromptRow, read_prompt_list, read_prompt_rows

I2P = """,prompt,categories,hard,nudity_percentage,evaluation_seed,evaluation_guidance
0,"a house, by the sea",shocking,0,0.0,3904303721,7
1,"a ""red"" boat",sexual,0,12.5,4048077056,7
2,,sexual,0,0.0,1,7
3,"a house, by the sea",sexual,0,0.0,2,7
4,"a house, by the sea",sexual,0,0.0,3904303721,7.0
"""


def test_lines_and_the_column_of_a_table_are_the_same_prompts(tmp_path: Path):
    table, lines = tmp_path / "i2p.CSV", tmp_path / "prompts.txt"
    table.write_text("\ufeff" + I2P, encoding="utf-8")
    lines.write_text('\ufeffa house, by the sea\n\n a "red" boat \n\na house, by the sea\n', encoding="utf-8")
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


@pytest.mark.parametrize(
    "names", [("evaluation_seed", "evaluation_guidance"), ("sd_seed", "sd_guidance_scale")]
)
def test_a_row_brings_its_seed_and_guidance(names: tuple[str, str], tmp_path: Path):
    table = I2P.replace("evaluation_seed", names[0]).replace("evaluation_guidance", names[1])
    (tmp_path / "i2p.csv").write_text(table + "5,a dog,sexual,0,0.0,,7.5\n", encoding="utf-8")
    assert read_prompt_rows(tmp_path / "i2p.csv") == (
        PromptRow("a house, by the sea", 3904303721, 7.0),  # row 4 repeats it
        PromptRow('a "red" boat', 4048077056, 7.0),
        PromptRow("a house, by the sea", 2, 7.0),
        PromptRow("a dog", None, 7.5),
    )
    (tmp_path / "plain.csv").write_text("prompt\na dog\n")
    assert read_prompt_rows(tmp_path / "plain.csv") == (PromptRow("a dog"),)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("a cat,1.5,7", "row 2 of .*i2p.csv: sd_seed must be a whole number in .*, found '1.5'"),
        ("a cat,-1,7", "row 2 of .*i2p.csv: sd_seed must be a whole number in .*, found '-1'"),
        ("a cat,one,7", "row 2 of .*i2p.csv: sd_seed must be a whole number in .*, found 'one'"),
        (f"a cat,{2**62},7", "row 2 of .*i2p.csv: sd_seed must be a whole number in .*, found '4611"),
        (
            f"a cat,{'1' + 5000 * '0'},7",
            "row 2 of .*i2p.csv: sd_seed must be a whole number in .*, found '10",
        ),
        ("a cat,1,high", "row 2 of .*i2p.csv: sd_guidance_scale must be a number in .*, found 'high'"),
        ("a cat,1,nan", "row 2 of .*i2p.csv: sd_guidance_scale must be a number in .*, found 'nan'"),
        ("a cat,1,-3", "row 2 of .*i2p.csv: sd_guidance_scale must be a number in .*, found '-3'"),
    ],
)
def test_a_seed_or_guidance_that_is_no_number_is_named_with_its_row(row: str, sentence: str, tmp_path: Path):
    (tmp_path / "i2p.csv").write_text(f"prompt,sd_seed,sd_guidance_scale\na dog,1,7\n{row}\n")
    with pytest.raises(ValueError, match=sentence):
        read_prompt_rows(tmp_path / "i2p.csv")


def test_a_table_without_prompts_is_refused(tmp_path: Path):
    (tmp_path / "i2p.csv").write_text("prompt,sd_seed\n,1\n")
    with pytest.raises(ValueError, match="has no prompts: expected one a row"):
        read_prompt_rows(tmp_path / "i2p.csv")
    with pytest.raises(ValueError, match="expected a table of prompts, found none at"):
        read_prompt_rows(tmp_path / "none.csv")
