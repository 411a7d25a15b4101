"""Readers of data set files: idx, and parquet in the Hub's image schema."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


def read_idx(path: Path, *, dimensions: int) -> UInt8[Tensor, "..."]:
    """Read an idx file of unsigned bytes, at `path` or gzipped at `path`.gz: magic number, sizes, values."""
    content = _read_maybe_gzipped(path)
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
        raise ValueError(
            f"{path} must be an idx file of bytes in {dimensions} dimensions, found another format"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != np.prod(shape):
        raise ValueError(
            f"{path} announces {np.prod(shape)} values and holds {len(content) - header}: copy it again"
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy())


def read_parquet(
    folder: Path, part: str
) -> tuple[UInt8[Tensor, "n channel height width"], Int64[Tensor, " n"]]:
    """Read the images and labels of all files `part`*.parquet in a folder or below it, in order of name.

    The Hub's schema: one column is a struct whose field "bytes" is an encoded image; "label" is an integer.
    """
    import pyarrow as pa
    from pyarrow import parquet

    files = sorted(folder.rglob(f"{part}*.parquet"))
    if not files:
        raise ValueError(f"expected {part}*.parquet in {folder}, found none: download it there first")
    try:
        table = pa.concat_tables([parquet.read_table(file) for file in files])
    except pa.ArrowInvalid as error:
        raise ValueError(f"{', '.join(map(str, files))}: {error}; download again") from error
    names = [field.name for field in table.schema if pa.types.is_struct(field.type)]
    if len(names) != 1 or "label" not in table.schema.names:
        raise ValueError(
            f"{files[0]} must have one struct column of images and a column 'label', "
            f"found {', '.join(table.schema.names)}"
        )
    contents = [row["bytes"] for row in table.column(names[0]).to_pylist()]
    labels = torch.from_numpy(table.column("label").to_numpy().astype(np.int64))
    return _decode(contents, str(files[0].parent)), labels


def _decode(contents: list[bytes], place: str) -> UInt8[Tensor, "n channel height width"]:
    # 0.1 ms an image, most of it under the interpreter's lock: threads make it slower
    from PIL import Image

    images = []
    for row, content in enumerate(contents):
        try:
            with Image.open(io.BytesIO(content)) as image:
                images.append(np.asarray(image.convert("RGB")))
        except OSError as error:
            raise ValueError(f"row {row} of the parquet files in {place} is no image: {error}") from error
        if images[row].shape != images[0].shape:
            raise ValueError(
                f"images in {place} must have one size, found {images[0].shape} and, in row {row}, "
                f"{images[row].shape}: resize them"
            )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _read_maybe_gzipped(path: Path) -> bytes:
    zipped = path.with_name(path.name + ".gz")
    if path.is_file():
        return path.read_bytes()
    if not zipped.is_file():
        raise ValueError(f"expected {path.name} or {zipped.name} in {path.parent}, found neither")
    try:
        return gzip.decompress(zipped.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{zipped} is not a whole gzip file ({error}): copy it again") from error
