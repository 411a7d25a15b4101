"""Reads the prompts of an audit of a concept from a file in TOML.

    concept = { object = "three" }
    trained = ["a three", "a red three"]
    paraphrased = ["two plus one"]
    combined = ["a three beside a four"]
    neighbours = ["a red two", { text = "twice two", object = "four" }]
    others = ["a blue four"]

`concept` says which values of which factors a recogniser finds in an image of the concept, by name or by
place among the names, from 0. The first of the trained prompts is the one that attacks use. A prompt to keep
shows the values that its words name; a table names them where its words do not. A kind can also be the name
of a table beside the file, such as `paraphrased = "i2p.csv"`, whose rows may bring seeds and guidances (see
`data.prompt_list`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unweave.audits.diffusion.concept_prompts import FORGET_KINDS, KINDS, RETAIN_KINDS, ConceptPrompts, Prompt
from unweave.choices import explain_unknown
from unweave.data.captions import places_of
from unweave.data.prompt_list import read_prompt_rows
from unweave.tables import read_toml, refuse_unknown

CONCEPT, TEXT, TABLE = "concept", "text", ".csv"
OWN = ("seed", "guidance")
"""What a row of a table brings beside its words."""

Values = Mapping[str, Sequence[str]]
"""The values that a recogniser knows, by factor."""


def read_prompts(path: str | Path, values: Values) -> ConceptPrompts:
    """Reads a file of prompts.

    Args:
        path: The file, in TOML.
        values: The values of each factor that the recogniser knows.

    Raises:
        ValueError: If there is no such file, or its content can't be used; the message says where.
    """
    place, table = Path(path), load_table(path)
    try:
        return make_prompts(read_tables(table, place.parent), values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def read_factor(path: str | Path) -> str:
    """The factor of the concept of a file of prompts, for a recogniser that knows one.

    Raises:
        ValueError: If there is no such file, or its concept does not name exactly one factor.
    """
    concept = load_table(path).get(CONCEPT)
    if not isinstance(concept, Mapping) or len(concept) != 1:
        raise ValueError(
            f"{path}: a classifier knows one factor: the concept must name it, such as concept = "
            f'{{ object = "church" }}, found {concept!r}'
        )
    return next(iter(concept))


def load_table(path: str | Path) -> dict[str, Any]:
    """The content of a file of prompts."""
    place = Path(path)
    if not place.is_file():
        raise ValueError(f"expected a file of prompts, found none at {place}")
    if place.suffix.lower() == TABLE:
        raise ValueError(
            f"{place} says neither what an image of the concept shows nor which prompts to keep: name it in "
            f'a file in TOML, as in {FORGET_KINDS[1]} = "{place.name}"'
        )
    return read_toml(place)


def read_tables(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The content of a file, with the rows of the tables that it names in place of their names."""
    return {
        key: [asdict(row) for row in read_prompt_rows(folder / value)]
        if key in KINDS and isinstance(value, str) and value.lower().endswith(TABLE)
        else value
        for key, value in content.items()
    }


def make_prompts(table: Mapping[str, Any], values: Values) -> ConceptPrompts:
    """Makes the prompts from the content of a file; see `read_prompts`."""
    refuse_unknown(table, [CONCEPT, *KINDS], "the prompts")
    for key in (CONCEPT, FORGET_KINDS[0]):
        if key not in table:
            raise ValueError(f"{key} is missing")
    concept = table[CONCEPT]
    if not isinstance(concept, Mapping):
        raise ValueError(f"concept must be a table of factors, such as object, found {concept!r}")
    concept = name_values(concept, values)
    kinds = {kind: tuple(prompts_of(kind, table[kind], values)) for kind in KINDS if kind in table}
    return ConceptPrompts(concept, **kinds)


def prompts_of(kind: str, rows: object, values: Values) -> Iterator[Prompt]:
    """Yields the prompts of a kind."""
    if not isinstance(rows, list):
        raise ValueError(f"{kind} must be a list of prompts, found {rows!r}")
    for row in rows:
        table = {TEXT: row} if isinstance(row, str) else row
        if not isinstance(table, Mapping) or not isinstance(table.get(TEXT), str):
            raise ValueError(f"{kind} must be texts, or tables with text, found {row!r}")
        factor_words = {factor: value for factor, value in table.items() if factor not in (TEXT, *OWN)}
        shows = name_values(factor_words, values)
        if kind in RETAIN_KINDS:
            # paraphrases may name other values: "two plus one"
            shows = values_in(table[TEXT], {f: each for f, each in values.items() if f not in shows}) | shows
        seed, guidance = (table.get(key) for key in OWN)
        if (
            not isinstance(seed, int | None)
            or not isinstance(guidance, int | float | None)
            or bool in (type(seed), type(guidance))  # true is an int
        ):
            raise ValueError(
                f"{table[TEXT]!r} must have a whole number as seed and a number as guidance, found {seed!r} "
                f"and {guidance!r}"
            )
        yield Prompt(table[TEXT], shows, seed, guidance)


def values_in(text: str, values: Values) -> dict[str, str]:
    """The value of each factor that a text names; "chain saw" does not also name "chain".

    Raises:
        ValueError: If it names several values of one factor.
    """
    matches = {factor: keep_own_case(text, names_in(text, each)) for factor, each in values.items()}
    for factor, names in matches.items():
        if len(names) > 1:
            raise ValueError(
                f"{text!r} names several values of {factor}: {' and '.join(names)}; give it as a table, such "
                f'as {{ text = "{text}", {factor} = "{names[0]}" }}'
            )
    return {factor: names[0] for factor, names in matches.items() if names}


def names_in(text: str, names: Sequence[str]) -> list[str]:
    """The names in a text that occur at least once outside of a longer one."""
    places = {name: [set(place) for place in places_of(text, name)] for name in names}
    all_places = [place for name_places in places.values() for place in name_places]
    return [
        name
        for name, name_places in places.items()
        if any(not any(place < other for other in all_places) for place in name_places)
    ]


def keep_own_case(text: str, names: Sequence[str]) -> list[str]:
    """Drops a name where the text holds another, equal but for its case: "Cardigan" is a dog in ImageNet."""
    exact = {name.lower() for name in names if name in text}
    return [name for name in names if name in text or name.lower() not in exact]


def name_values(shows: Mapping[str, Any], values: Values) -> dict[str, str]:
    """The values by name; a whole number is a place among the names.

    Raises:
        ValueError: At a factor or a value that the recogniser does not know.
    """
    return {factor: name_value(factor, value, values) for factor, value in shows.items()}


def name_value(factor: str, value: object, values: Values) -> str:
    """One value by name."""
    if factor not in values:
        raise ValueError(explain_unknown("factor", factor, values))
    names = values[factor]
    if type(value) is int and 0 <= value < len(names):
        return names[value]
    if not isinstance(value, str) or value not in names:
        raise ValueError(explain_unknown(factor, value, names))
    return value
