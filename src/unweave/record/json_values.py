"""Conversion to JSON values."""

import math
from collections.abc import Mapping
from typing import Any


def to_json_values(value: Any) -> Any:
    """Converts to JSON values: tuples become lists, numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {key: to_json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_values(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
