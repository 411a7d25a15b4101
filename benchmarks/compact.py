"""Writes a record in its compact form: a summary, and beside it tables and pictures (decision 28).

    python benchmarks/compact.py unweave-bench/record.json records/digits.json

The first file is the record of a run or a record in any form; the second may be the same. No number is
rounded. A picture becomes WebP without loss, or of quality 60 where that halves its size.
"""

import argparse
import base64
import copy
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image
from pyarrow import parquet
from rows import write_json

from unweave.record import record
from unweave.record.compact import FILES, Keys, as_uri, read_record
from unweave.record.digest import seal

METHOD = "stages/{stage}/methods/{method}"
PLACES: Mapping[str, str] = {
    f"{METHOD}/per_seed//{{metric}}/[seed]": "values",
    f"{METHOD}/scores//{{metric}}/{{figure}}/[end]": "scores",
    f"{METHOD}/trace//{{curve}}/[point]/[column]": "traces",
    f"{METHOD}/repr//": "methods",
    f"{METHOD}/points/[point]/gaps//[seed]": "values",
    f"{METHOD}/points/[point]/settings//{{setting}}": "settings",
    f"{METHOD}/points//[point]/{{figure}}/{{part}}": "points",
    "stages/{stage}/recipe/methods//{method}/{setting}": "recipe",
    "stages/{stage}/histograms//{method}/{part}/[bin]": "histograms",
    "stages/{stage}/descriptions//{method}/{figure}/{class}": "descriptions",
    "stages/{stage}/comparisons//[row]/{figure}": "comparisons",
    "stages/{stage}/search//{method}/[trial]/{part}/{setting}": "search",
    "stages/{stage}/runs//[run]/{figure}": "runs",
    "runs//[run]/{figure}/{part}/[look]": "runs",
    "searches/{factor}/{method}/trials//[trial]/{part}/{setting}": "search",
    "runs/{factor}/{concept}/{seed}/{method}/values//{metric}": "values",
    "rows//{row}/{part}/{attack}/{figure}": "rows",
    "search//{method}/[trial]/{part}/{setting}": "search",
    "summary/{stage}//[row]/{figure}/{statistic}": "summary",
    "summary/{setting}/runs//{run}/{figure}/{statistic}": "summary",
    "summary/alone/{stage}/factors//{factor}/[level]/{figure}": "summary",
    "stages/{stage}/summary/methods//{method}/{figure}/{statistic}": "summary",
    "{part}/rows/{stage}/methods/{method}/gaps//[seed]": "values",
    "{part}/rows/{stage}/methods/{method}/repr//": "methods",
}
"""The table for each large part of a record: where it lies // the further columns of its values.

A table within another one comes before it, and is read back after it."""
PICTURES = "stages/{stage}/sheets/{method}"
QUALITY = 60


def write_compact(made: Mapping[str, Any], path: Path) -> None:
    """Writes a record in its compact form; one without large parts is a single file.

    Args:
        made: The record.
        path: The summary. The tables and pictures lie in the folder of the same name without its ending,
            whose earlier tables and pictures are deleted.

    Raises:
        RuntimeError: If another record would be read back.
    """
    whole = encode_pictures(made)
    rest, folder = copy.deepcopy(whole), path.with_suffix("")
    parts = [*take_pictures(rest), *take_tables(rest)]
    for old in (*folder.glob("*.parquet"), *folder.glob("*.webp")):
        old.unlink()
    for name, _, content in parts:
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "place": place}
        for name, place, content in reversed(parts)
    }
    write_json(path, {**rest, FILES: files} if files else rest)
    if json.dumps(read_record(path)) != json.dumps(whole):
        raise RuntimeError(f"{path} is not read back as it was written")


def encode_pictures(made: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON values with its pictures in WebP; with its digest, if its schema has one."""
    copied = json.loads(json.dumps(made))
    for _, sheets, name in find(copied, PICTURES.split("/")):
        sheets[name] = as_uri(webp(sheets[name]))
    return seal(copied) if copied.get("schema") == record.SCHEMA else copied


def webp(uri: str) -> bytes:
    """The picture of a data URI in WebP: without loss, unless some loss halves its bytes."""
    content = base64.b64decode(uri.partition(",")[2])
    if uri.startswith("data:image/webp"):
        return content
    picture = Image.open(io.BytesIO(content))
    near, exact = encode(picture, lossless=False, effort=QUALITY), encode(picture, lossless=True, effort=50)
    return near if 2 * len(near) <= len(exact) else encode(picture, lossless=True, effort=100)


def encode(picture: Image.Image, *, lossless: bool, effort: int) -> bytes:
    """A picture in WebP.

    Args:
        picture: The picture.
        lossless: Whether every pixel stays, transparent ones too.
        effort: The quality of a picture with loss; without loss, how long a smaller file is searched for.
    """
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=lossless, quality=effort, method=6, exact=lossless)
    return file.getvalue()


def take_pictures(rest: Any) -> Iterator[tuple[str, Keys, bytes]]:
    """Yields the file name, place and content of every picture, and leaves its place empty."""
    for (stage, method), sheets, name in find(rest, PICTURES.split("/")):
        content, sheets[name] = webp(sheets[name]), ""
        yield re.sub(r"[^\w.+-]", "-", f"{stage}-{method}.webp"), ["stages", stage, "sheets", method], content


def take_tables(rest: Any) -> Iterator[tuple[str, Keys, bytes]]:
    """Yields the file name, place and content of every table, and leaves its places empty."""
    for place, name in PLACES.items():
        above, below = ([part for part in half.split("/") if part] for half in place.split("//"))
        rows = list(take(rest, above, below))
        if rows:
            yield f"{name}.parquet", [*above, *below], as_parquet([*above, *below], rows)


def take(rest: Any, above: Sequence[str], below: Sequence[str]) -> Iterator[tuple[Keys, Any]]:
    """Yields the values of a table with their keys, and leaves their place empty."""
    for keys, parent, key in find(rest, above):
        if not below or keys_of(parent[key], below[0]):
            value, parent[key] = parent[key], type(parent[key])()
            yield from (((*keys, *more), leaf) for more, leaf in leaves(value, below))


def find(value: Any, place: Sequence[str]) -> Iterator[tuple[Keys, Any, Any]]:
    """Yields the keys in the columns of a place, what holds its content, and under which key."""
    part, *below = place
    for key in keys_of(value, part):
        own = [key] if is_column(part) else []
        if not below:
            yield own, value, key
        else:
            yield from (([*own, *keys], parent, last) for keys, parent, last in find(value[key], below))


def leaves(value: Any, place: Sequence[str]) -> Iterator[tuple[Keys, Any]]:
    """Yields what lies below a value with its keys, as far as they fit the place."""
    keys = keys_of(value, place[0]) if place else []
    if not keys:
        yield (), value
    for key in keys:
        yield from (((key, *more), leaf) for more, leaf in leaves(value[key], place[1:]))


def keys_of(value: Any, part: str) -> list[Any]:
    """The keys or positions in a value that fit a part of a place."""
    if isinstance(value, list):
        return list(range(len(value))) if part[0] == "[" else []
    if not isinstance(value, dict) or part[0] == "[":
        return []
    return list(value) if part[0] == "{" else [part] if part in value else []


def is_column(part: str) -> bool:
    """Whether a part of a place is a column."""
    return part[0] in "{["


def as_parquet(place: Sequence[str], rows: Sequence[tuple[Keys, Any]]) -> bytes:
    """A table with a row per value: its keys, the number, and the JSON of all but floats and null."""
    columns = [part for part in place if is_column(part)]
    made = {
        part[1:-1]: pyarrow.array(
            [keys[i] if i < len(keys) else None for keys, _ in rows],
            pyarrow.int32() if part[0] == "[" else pyarrow.string(),
        )
        for i, part in enumerate(columns)
    }
    values = [value for _, value in rows]
    made["value"] = pyarrow.array([float(each) if is_number(each) else None for each in values], "float64")
    made["text"] = pyarrow.array(
        [None if each is None or isinstance(each, float) else json.dumps(each) for each in values], "string"
    )
    file = io.BytesIO()
    keyed = [name for name in made if name != "value"]  # numbers hardly repeat
    parquet.write_table(
        pyarrow.table(made),
        file,
        compression="brotli",
        compression_level=11,
        use_dictionary=keyed,
        write_statistics=False,  # without these two all tables take 8 % less
        store_schema=False,
    )
    return file.getvalue()


def is_number(value: object) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("record", type=Path, help="what to read")
    parser.add_argument("summary", type=Path, help="where to write")
    given = parser.parse_args()
    found = read_record(given.record)
    write_compact(record.load(given.record) if "schema" in found else found, given.summary)


if __name__ == "__main__":
    main()
