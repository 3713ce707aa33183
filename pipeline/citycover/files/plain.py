"""Facts about a run as JSON that strict parsers take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(facts: Any) -> str:
    r"""Plain values as JSON; numbers that JSON does not know, and all else, become text.

    >>> to_json({"nodata": float("nan"), "shape": (2, 3)})
    '{\n "nodata": "nan",\n "shape": [\n  2,\n  3\n ]\n}'
    """
    return json.dumps(_finite(facts), indent=1, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def parse_json(text: str | bytes) -> Any:
    """What a text says as JSON.

    Raises:
        ValueError: it is none, or nested too deeply to be read.

    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
