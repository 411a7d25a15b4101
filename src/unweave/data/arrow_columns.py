"""Columns of Arrow: what they hold, as tensors and as bytes for a digest."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pyarrow as pa


def as_tensor(column: "pa.ChunkedArray") -> Tensor:
    """A column of numbers of one shape as `datasets` formats it: integers of 64 bits, floats of 32."""
    import pyarrow as pa

    values, shape = column.combine_chunks(), [len(column)]
    while is_nested(values):
        inner = values.flatten()
        shape.append(len(inner) // max(1, len(values)))
        values = inner
    integers, floats = pa.types.is_integer(values.type), pa.types.is_floating(values.type)
    kind = np.int64 if integers else np.float32 if floats else np.bool_
    return torch.from_numpy(values.to_numpy(zero_copy_only=False).astype(kind)).reshape(shape)


def is_nested(column: "pa.Array | pa.ChunkedArray") -> bool:
    """Whether a column holds lists."""
    import pyarrow as pa

    return pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)


def is_integer(column: "pa.ChunkedArray") -> bool:
    """Whether a column has an integer in every row."""
    import pyarrow as pa

    return pa.types.is_integer(column.type) and not column.null_count


def is_text(column: "pa.ChunkedArray") -> bool:
    """Whether a column has a string in every row."""
    import pyarrow as pa

    return pa.types.is_string(column.type) and not column.null_count


def has_one_shape(column: "pa.ChunkedArray") -> bool:
    """Whether every row of a column has a number, or numbers of one shape in nested lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        return False
    if is_nested(column):
        lengths = pc.call_function("min_max", [pc.call_function("list_value_length", [column])]).as_py()
        inner = pa.chunked_array([chunk.flatten() for chunk in column.chunks])
        return lengths["min"] == lengths["max"] and has_one_shape(inner)
    kind = column.type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def content(column: "pa.Array") -> Iterator[bytes | memoryview]:
    """The type, the shape and the values of a block, for a digest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    yield str(column.type).encode()
    while is_nested(column):
        column = column.flatten()
        yield f":{len(column)}".encode()
    if not pa.types.is_string(column.type):
        yield np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).data
        return
    yield pc.call_function("binary_length", [column]).to_numpy().data
    list_array = pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), column)
    yield memoryview(pc.call_function("binary_join", [list_array, pa.scalar("")])[0].as_buffer())
