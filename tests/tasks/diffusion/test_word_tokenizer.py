from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from for_each import for_each
from unweave.data.captioned_drawings import HELD_OUT_TEMPLATES, TEMPLATES, Drawings
from unweave.data.captions import words_in
from unweave.tasks.diffusion.word_tokenizer import make_tokenizer

WORDS = ("nine", "three", "the", "there", "one", "stone", "a", "an", "nine-tenths")


@pytest.mark.parametrize("subject", ["digits", "garments"])
def test_every_word_of_the_prompts_is_one_token(subject: str):
    drawings, templates = Drawings(subject), (*TEMPLATES, *HELD_OUT_TEMPLATES)
    rows = [*drawings.prompts(templates), *drawings.prompts(templates, held_out=True)]
    texts = [row["text"] for row in rows]
    tokenizer = make_tokenizer({word for text in texts for word in words_in(text)}, 16)
    for text in texts:
        words = text.replace(",", " ,").split()
        assert [each.removesuffix("</w>") for each in tokenizer.tokenize(text)] == words


def test_words_that_hold_other_words_stay_whole():
    words = [word for word in WORDS if word.isalpha()]
    tokenizer = make_tokenizer(words, 16)
    assert [len(tokenizer.tokenize(word)) for word in words] == [1] * len(words)
    ids = [tokenizer(word)["input_ids"][1] for word in words]
    assert len(set(ids)) == len(words)


def test_unknown_text_is_read_byte_by_byte():
    tokenizer = make_tokenizer(["red"], 77)
    assert tokenizer.tokenize("a red héron") == ["a</w>", "red</w>", "h", "Ã", "©", "r", "o", "n</w>"]
    assert tokenizer.unk_token_id not in tokenizer("rot, wéiß 7!")["input_ids"][1:-1]


def test_a_prompt_begins_and_ends_with_its_own_tokens():
    tokenizer = make_tokenizer(["red"], 16)
    first, word, last = tokenizer("Red")["input_ids"]
    assert (first, last) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.convert_ids_to_tokens(word) == "red</w>"
    # 256 bytes alone and at the end of a word, two merges and two special tokens
    assert len(tokenizer) == 2 * 256 + 2 + 2


def test_a_saved_tokenizer_reads_alike(tmp_path: Path):
    tokenizer = make_tokenizer(["three", "nine"], 16)
    tokenizer.save_pretrained(tmp_path)
    saved_tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("a three", "nine threes", "THREE, nine"):
        assert saved_tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert saved_tokenizer.model_max_length == 16


@for_each("word", ["", "two words", "Three"])
def test_a_word_must_be_one_in_lower_case(word: str):
    with pytest.raises(ValueError, match="in lower case and without spaces"):
        make_tokenizer([word], 16)
