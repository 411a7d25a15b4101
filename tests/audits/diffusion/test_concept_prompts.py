from pathlib import Path

import pytest

from for_each import for_each
from unweave.audits.diffusion.concept_prompts import ConceptPrompts, Draw, Prompt
from unweave.audits.diffusion.prompt_file import read_factor, read_prompts

VALUES = {"object": ("two", "three", "four"), "colour": ("red", "blue")}
LINES = {
    "concept": '{ object = "three" }',
    "trained": '["a three", "a red three"]',
    "paraphrased": '["two plus one"]',
    "combined": '["a three beside a four"]',
    "neighbours": '["a red two", { text = "twice two", object = "four" }]',
    "others": '["a blue four"]',
}


def write_prompts(folder: Path, **lines: str | None) -> Path:
    path = folder / "prompts.toml"
    path.write_text("".join(f"{key} = {line}\n" for key, line in (LINES | lines).items() if line))
    return path


def test_a_file_has_prompts_by_kind_and_what_they_show(tmp_path):
    prompts = read_prompts(write_prompts(tmp_path), VALUES)
    assert prompts.concept == {"object": "three"}
    assert [each.text for each in prompts.forget_prompts] == [
        "a three",
        "a red three",
        "two plus one",
        "a three beside a four",
    ]
    assert prompts.neighbours == (
        Prompt("a red two", {"object": "two", "colour": "red"}),
        Prompt("twice two", {"object": "four"}),
    )
    assert prompts.kinds == {
        "trained": (0, 1),
        "paraphrased": (2,),
        "combined": (3,),
        "neighbours": (4, 5),
        "others": (6,),
    }
    assert prompts.conditions.forgotten == (0, 1, 2, 3) and prompts.conditions.concepts == (0,)
    assert prompts.conditions.texts[6] == "a blue four"


def test_a_kind_may_be_left_out(tmp_path):
    prompts = read_prompts(write_prompts(tmp_path, paraphrased=None, others=None), VALUES)
    assert prompts.kinds.keys() == {"trained", "combined", "neighbours"}


@for_each(
    ("lines", "expected"),
    [
        ({"concept": None}, "concept is missing"),
        ({"concept": "{}"}, "concept must name what an image of it shows, such as object, found nothing"),
        ({"concept": '{ shape = "three" }'}, "unknown factor 'shape'; known: object, colour"),
        ({"concept": '{ object = "thre" }'}, "unknown object 'thre' .did you mean 'three'.*; known: two"),
        ({"trained": None}, "trained is missing"),
        ({"trained": "[]"}, "trained must have a prompt"),
        ({"neighbours": None, "others": None}, "a prompt to keep, in neighbours or others, found none"),
        ({"others": '["a red three"]'}, "'a red three' is both to be forgotten .trained. and kept .others."),
        ({"others": '["a blue three"]'}, "'a blue three', to be kept, shows the concept object = three"),
        (
            {"others": '["a picture"]'},
            "'a picture', to be kept, must name a value of object: give it",
        ),
        ({"others": '["two and four"]'}, "'two and four' names several values of object: two and four"),
        ({"others": '[{ text = "a two", objet = "two" }]'}, "unknown factor 'objet' .did you mean 'object'"),
        ({"others": '["a two", "a two"]'}, "'a two' is given twice"),
        ({"others": '[""]'}, "a prompt must not be empty"),
        ({"others": "[3]"}, "others must be texts, or tables with text, found 3"),
        ({"others": '"a two"'}, "others must be a list of prompts, found 'a two'"),
        ({"other": '["a two"]'}, "unknown key 'other' in the prompts .did you mean 'others'"),
        ({"others": "["}, "is not TOML"),
    ],
)
def test_prompts_that_cannot_be_audited_are_refused(tmp_path, lines, expected):
    with pytest.raises(ValueError, match=expected):
        read_prompts(write_prompts(tmp_path, **lines), VALUES)


def test_a_kind_may_be_a_table_whose_rows_bring_seeds_and_guidances(tmp_path):
    table = "prompt,sd_seed,sd_guidance_scale\ntwo plus one,7,7.5\nnine divided by itself thrice,,\n"
    (tmp_path / "i2p.csv").write_text(table)
    prompts = read_prompts(write_prompts(tmp_path, paraphrased='"i2p.csv"'), VALUES)
    assert prompts.paraphrased == (
        Prompt("two plus one", {}, 7, 7.5),
        Prompt("nine divided by itself thrice"),
    )
    assert prompts.paraphrased[0].own_draw == {"seed": 7, "guidance": 7.5}
    with pytest.raises(ValueError, match="expected a table of prompts, found none at .*none.csv"):
        read_prompts(write_prompts(tmp_path, paraphrased='"none.csv"'), VALUES)
    with pytest.raises(ValueError, match='name it in a file in TOML, as in paraphrased = "i2p.csv"'):
        read_prompts(tmp_path / "i2p.csv", VALUES)


@for_each(
    ("own", "found"),
    [('seed = "x"', "'x' and None"), ("seed = true", "True and None"), ("guidance = true", "None and True")],
)
def test_a_seed_or_guidance_that_is_no_number_is_refused(tmp_path, own, found):
    with pytest.raises(ValueError, match=f"'two plus one' must have a whole number as seed .*found {found}$"):
        read_prompts(write_prompts(tmp_path, paraphrased=f'[{{ text = "two plus one", {own} }}]'), VALUES)


def draws(prompts: ConceptPrompts) -> list[Draw]:
    """The draws of an audit with guidance 7.5 whose own seeds start at a thousand."""
    return [
        (1000 + 100 * i if each.seed is None else each.seed, 7.5 if each.guidance is None else each.guidance)
        for i, each in enumerate(prompts.all_prompts)
    ]


def test_rows_with_one_prompt_are_draws_of_one_condition(tmp_path):
    (tmp_path / "i2p.csv").write_text("prompt,sd_seed\ntwo plus one,7\nmore,9\ntwo plus one,40\na three,8\n")
    prompts = read_prompts(write_prompts(tmp_path, paraphrased='"i2p.csv"'), VALUES)
    assert [each.seed for each in prompts.paraphrased] == [7, 9, 40, 8]
    assert prompts.conditions.texts[:4] == ("a three", "a red three", "two plus one", "more")
    assert [prompts.condition_of(number) for number in prompts.forget_numbers] == [0, 1, 2, 3, 2, 0, 4]
    assert prompts.forget_conditions == (0, 1, 2, 3, 4) and prompts.retain_conditions == (5, 6, 7)
    prompts.refuse_overlap(draws(prompts), 33)
    with pytest.raises(ValueError, match="'two plus one' has the seeds 7 and 40, and 34 images from each"):
        prompts.refuse_overlap(draws(prompts), 34)


def test_an_overlap_is_found_between_rows_of_another_guidance(tmp_path):
    rows = "two plus one,7,\ntwo plus one,8,0\ntwo plus one,9,\n"
    (tmp_path / "i2p.csv").write_text(f"prompt,sd_seed,sd_guidance_scale\n{rows}")
    prompts = read_prompts(write_prompts(tmp_path, paraphrased='"i2p.csv"'), VALUES)
    prompts.refuse_overlap(draws(prompts), 2)
    with pytest.raises(ValueError, match="'two plus one' has the seeds 7 and 9, and 3 images from each"):
        prompts.refuse_overlap(draws(prompts), 3)


def test_a_value_may_be_named_by_its_place(tmp_path):
    neighbours = '[{ text = "twice two", object = 2 }]'
    prompts = read_prompts(write_prompts(tmp_path, concept="{ object = 1 }", neighbours=neighbours), VALUES)
    assert prompts.concept == {"object": "three"} and prompts.neighbours[0].shows == {"object": "four"}
    for place in ("3", "-1", "true", "1.0"):
        with pytest.raises(ValueError, match=f"unknown object {place.title()}; known: two, three, four"):
            read_prompts(write_prompts(tmp_path, concept=f"{{ object = {place} }}"), VALUES)


def test_a_name_within_a_longer_one_is_not_named(tmp_path):
    values = {"object": ("chain", "chain saw", "three")}
    neighbours = '["an image of a chain saw"]'
    prompts = read_prompts(write_prompts(tmp_path, neighbours=neighbours, others='["a chain"]'), values)
    assert [each.shows["object"] for each in prompts.retain_prompts] == ["chain saw", "chain"]


def test_a_name_beside_a_longer_one_that_holds_it_is_named(tmp_path):
    values = {"object": ("chain", "chain saw", "three")}
    neighbours = '["a chain saw beside a chain"]'
    path = write_prompts(tmp_path, concept='{ object = "chain" }', neighbours=neighbours, others=None)
    with pytest.raises(ValueError, match="names several values of object: chain and chain saw"):
        read_prompts(path, values)


def test_names_that_differ_in_case_are_told_apart_by_it(tmp_path):
    values = {"object": ("Cardigan", "cardigan", "three")}
    neighbours = '["a cardigan", "a Cardigan"]'
    prompts = read_prompts(write_prompts(tmp_path, neighbours=neighbours, others=None), values)
    assert [each.shows["object"] for each in prompts.retain_prompts] == ["cardigan", "Cardigan"]
    for text in ("A CARDIGAN", "a Cardigan in a cardigan"):
        with pytest.raises(ValueError, match="names several values of object: Cardigan and cardigan"):
            read_prompts(write_prompts(tmp_path, neighbours=f'["{text}"]', others=None), values)


def test_of_many_values_an_error_lists_the_first(tmp_path):
    values = {**VALUES, "object": tuple(f"class {number}" for number in range(1000))}
    with pytest.raises(
        ValueError, match=r"unknown object 'three'.*known: class 0, .*class 19 and 980 others$"
    ):
        read_prompts(write_prompts(tmp_path), values)


def test_the_only_factor_of_the_concept_is_found_without_its_values(tmp_path):
    assert read_factor(write_prompts(tmp_path)) == "object"
    for concept in (None, "{}", '{ object = "three", colour = "red" }', '"three"'):
        with pytest.raises(ValueError, match="prompts.toml: a classifier knows one factor"):
            read_factor(write_prompts(tmp_path, concept=concept))


def test_a_file_must_be_there(tmp_path):
    with pytest.raises(ValueError, match="expected a file of prompts, found none at .*none.toml"):
        read_prompts(tmp_path / "none.toml", VALUES)


def test_prompts_can_be_made_in_code():
    values = {"object": "four"}
    prompts = ConceptPrompts(
        {"object": "three"}, (Prompt("a three"),), neighbours=(Prompt("a four", values),)
    )
    assert prompts.conditions.texts == ("a three", "a four")


@pytest.mark.parametrize("setting", ["seed = -1", f"seed = {2**62}", "guidance = nan", "guidance = -0.5"])
def test_a_seed_or_guidance_out_of_range_is_refused_before_anything_is_drawn(tmp_path, setting):
    with pytest.raises(ValueError, match=f"the {setting.split()[0]} of 'two plus one' must be in .*, found"):
        read_prompts(write_prompts(tmp_path, paraphrased=f'[{{ text = "two plus one", {setting} }}]'), VALUES)
