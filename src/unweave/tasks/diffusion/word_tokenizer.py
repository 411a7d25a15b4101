"""A tokenizer of CLIP with a small vocabulary of its own: each known word is one token.

All other text is read byte by byte, so no prompt is refused. Needs the extra `unweave[diffusion]`.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

END = "</w>"
"""The end of a word."""

SPECIAL = ("<|startoftext|>", "<|endoftext|>")

Merge = tuple[str, str]
"""Two neighbouring pieces that become one."""


def make_tokenizer(words: Iterable[str], length: int) -> CLIPTokenizer:
    """Makes a tokenizer that knows some words.

    Args:
        words: The words, in lower case, without spaces.
        length: The largest number of tokens of a prompt, with the first and the last, which each prompt has.

    Raises:
        ValueError: If a word is empty, has a space or a capital.
    """
    distinct_words = sorted(set(words))
    for word in distinct_words:
        if not word or word != word.lower() or len(word.split()) != 1:
            raise ValueError(f"a word must be in lower case and without spaces, found {word!r}")
    alphabet = sorted(ByteLevel.alphabet())
    merges = merges_of(distinct_words)
    pieces = [*alphabet, *(f"{each}{END}" for each in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {piece: number for number, piece in enumerate([*dict.fromkeys(pieces), *SPECIAL])}
    settings: dict[str, Any] = {"vocab": vocabulary, "merges": merges, "model_max_length": length}
    return CLIPTokenizer(**settings)


def merges_of(words: Iterable[str]) -> list[Merge]:
    """The merges that make one token of each word.

    Merges of earlier words also apply to later ones, in their order: what is left of a later word after them
    decides which merges it still needs.
    """
    merges: list[Merge] = []
    for word in words:
        while len(pieces := pieces_of(word, merges)) > 1:
            merges.append((pieces[0], pieces[1]))
    return merges


def pieces_of(word: str, merges: Sequence[Merge]) -> list[str]:
    """The pieces of a word after byte pair encoding."""
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    pieces = [*word[:-1], word[-1] + END]
    while True:
        candidates = [merge for merge in pairwise(pieces) if merge in ranks]
        if not candidates:
            return pieces
        pieces = join(pieces, min(candidates, key=ranks.__getitem__))


def join(pieces: Sequence[str], merge: Merge) -> list[str]:
    """Joins every occurrence of two neighbours."""
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == merge:
            result[-1] += piece
        else:
            result.append(piece)
    return result
