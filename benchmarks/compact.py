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
from tempfile import TemporaryDirectory
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
    "stages/{stage}/reference/per_seed//{metric}/[seed]": "references",
    f"{METHOD}/scores//{{metric}}/{{figure}}/[end]": "scores",
    "stages/{stage}/reference/scores//{metric}/{figure}/[end]": "reference-scores",
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
    "recipes/{recipe}/methods//{method}/{part}/{figure}/{statistic}": "attacks",
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


def write_compact(results: Mapping[str, Any], path: Path) -> None:
    """Writes a record in its compact form; one without large parts is a single file.

    Args:
        results: The record.
        path: The summary. The tables and pictures lie in the folder of the same name without its ending,
            whose earlier tables and pictures are deleted.

    Raises:
        RuntimeError: If another record would be read back.
    """
    encoded_results = encode_pictures(results)
    remainder = copy.deepcopy(encoded_results)
    parts = [*take_pictures(remainder), *take_tables(remainder)]
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "place": place}
        for name, place, content in reversed(parts)
    }
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as workplace:
        draft = Path(workplace) / path.name
        write_parts(draft.with_suffix(""), parts)
        write_json(draft, {**remainder, FILES: files} if files else remainder)
        if json.dumps(read_record(draft)) != json.dumps(encoded_results):
            raise RuntimeError(f"{path} would not be read back as it was written")
        write_parts(path.with_suffix(""), parts)
        draft.replace(path)


def write_parts(folder: Path, parts: Sequence[tuple[str, Keys, bytes]]) -> None:
    """Writes the tables and pictures of a record in the place of earlier ones."""
    for old in (*folder.glob("*.parquet"), *folder.glob("*.webp")):
        old.unlink()
    for name, _, content in parts:
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def encode_pictures(results: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON values with its pictures in WebP; with its digest, if its schema has one."""
    content = json.loads(json.dumps(results))
    for _, sheets, name in find(content, PICTURES.split("/")):
        sheets[name] = as_uri(webp(sheets[name]))
    return seal(content) if content.get("schema") == record.SCHEMA else content


def drop_pictures(results: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its pictures: those of runs that only change one setting show little."""
    content = json.loads(json.dumps(results))
    for _, stage, name in find(content, PICTURES.split("/")[:-1]):
        stage[name] = {}
    return content


def webp(uri: str) -> bytes:
    """The picture of a data URI in WebP: without loss, unless some loss halves its bytes."""
    content = base64.b64decode(uri.partition(",")[2])
    if uri.startswith("data:image/webp"):
        return content
    picture = Image.open(io.BytesIO(content))
    lossy, exact = (
        encode(picture, lossless=False, quality=QUALITY),
        encode(picture, lossless=True, quality=50),
    )
    return lossy if 2 * len(lossy) <= len(exact) else encode(picture, lossless=True, quality=100)


def encode(picture: Image.Image, *, lossless: bool, quality: int) -> bytes:
    """A picture in WebP.

    Args:
        picture: The picture.
        lossless: Whether every pixel stays, transparent ones too.
        quality: The quality of a picture with loss; without loss, how long a smaller file is searched for.
    """
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=lossless, quality=quality, method=6, exact=lossless)
    return file.getvalue()


def take_pictures(remainder: Any) -> Iterator[tuple[str, Keys, bytes]]:
    """Yields the file name, place and content of every picture, and leaves its place empty."""
    for (stage, method), sheets, name in find(remainder, PICTURES.split("/")):
        content, sheets[name] = webp(sheets[name]), ""
        yield re.sub(r"[^\w.+-]", "-", f"{stage}-{method}.webp"), ["stages", stage, "sheets", method], content


def take_tables(remainder: Any) -> Iterator[tuple[str, Keys, bytes]]:
    """Yields the file name, place and content of every table, and leaves its places empty."""
    for place, name in PLACES.items():
        outer, inner = ([part for part in half.split("/") if part] for half in place.split("//"))
        rows = list(take(remainder, outer, inner))
        if rows:
            yield f"{name}.parquet", [*outer, *inner], as_parquet([*outer, *inner], rows)


def take(remainder: Any, outer: Sequence[str], inner: Sequence[str]) -> Iterator[tuple[Keys, Any]]:
    """Yields the values of a table with their keys, and leaves their place empty."""
    for keys, parent, key in find(remainder, outer):
        if not inner or keys_of(parent[key], inner[0]):
            value, parent[key] = parent[key], type(parent[key])()
            yield from (((*keys, *tail), leaf) for tail, leaf in leaves(value, inner))


def find(value: Any, place: Sequence[str]) -> Iterator[tuple[Keys, Any, Any]]:
    """Yields the keys in the columns of a place, what holds its content, and under which key."""
    part, *inner = place
    for key in keys_of(value, part):
        head = [key] if is_column(part) else []
        if not inner:
            yield head, value, key
        else:
            yield from (([*head, *keys], parent, last) for keys, parent, last in find(value[key], inner))


def leaves(value: Any, place: Sequence[str]) -> Iterator[tuple[Keys, Any]]:
    """Yields what lies below a value with its keys, as far as they fit the place."""
    keys = keys_of(value, place[0]) if place else []
    if not keys:
        yield (), value
    for key in keys:
        yield from (((key, *tail), leaf) for tail, leaf in leaves(value[key], place[1:]))


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
    arrays = {
        part[1:-1]: pyarrow.array(
            [keys[i] if i < len(keys) else None for keys, _ in rows],
            pyarrow.int32() if part[0] == "[" else pyarrow.string(),
        )
        for i, part in enumerate(columns)
    }
    values = [value for _, value in rows]
    arrays["value"] = pyarrow.array([float(each) if is_number(each) else None for each in values], "float64")
    arrays["text"] = pyarrow.array(
        [None if each is None or isinstance(each, float) else json.dumps(each) for each in values], "string"
    )
    file = io.BytesIO()
    names = [name for name in arrays if name != "value"]  # numbers hardly repeat
    parquet.write_table(
        pyarrow.table(arrays),
        file,
        compression="brotli",
        compression_level=11,
        use_dictionary=names,
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
    arguments = parser.parse_args()
    content = read_record(arguments.record)
    write_compact(record.load(arguments.record) if "schema" in content else content, arguments.summary)


if __name__ == "__main__":
    main()
