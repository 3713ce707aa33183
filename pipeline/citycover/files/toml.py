"""TOML files of the user: cards, legends, recipes, tables of names."""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from citycover.errors import CitycoverError, ConfigError

_MOST = 1 << 20
"""Bytes; what says more is no configuration."""


def read_toml(path: Path, what: str, error: type[CitycoverError] = ConfigError) -> dict[str, Any]:
    """Read a TOML file as plain values; a byte order mark is no fault.

    Args:
        path: of the file.
        what: it is, for messages ("legend file", "card").
        error: to raise.

    Raises:
        CitycoverError: it cannot be read, is too large, or is no TOML.
    """
    try:
        if path.stat().st_size > _MOST:
            raise error(f"{what} {path} is larger than 1 MiB, so it is none; give another file")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as reason:
        raise error(f"{what} {path} cannot be read: {reason.strerror or reason}; check the path") from None
    except RecursionError:
        raise error(f"{what} {path} is nested too deeply to be one; give another file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise error(f"{what} {path} is not TOML: {reason}; mend it there") from None


_TABLES = {"model_type", "dataclass_type", "dict_type"}
"""Kinds of problems: a value where a table belongs, which Pydantic calls by the names of its own types."""


def problems_of(error: ValidationError, known: Collection[str] = (), whole: str = "") -> str:
    """What is wrong with the values of a file: each key, and why.

    Args:
        error: of the values.
        known: keys, to be named beside one that is none of them.
        whole: what is named where it is no key but all of them together; empty: nothing.
    """
    names, problems = f", known are {', '.join(known)}" if known else "", []
    every = error.errors()
    for found in every:
        # A row that lacks what is wrong in it is not short: that is said of what is wrong.
        inner = (other["loc"] for other in every if len(other["loc"]) > len(found["loc"]))
        if found["type"] == "too_short" and any(loc[: len(found["loc"])] == found["loc"] for loc in inner):
            continue
        place = ".".join(map(str, found["loc"])) or whole
        said = found["msg"].removeprefix("Value error, ")  # what we raise is said as it is
        if found["type"] == "tuple_type":
            said = f"should be a list, [...], got {found['input']!r:.60}"  # TOML knows no tuples
        elif found["type"] in _TABLES and found["loc"]:
            named = ".".join(str(part) for part in found["loc"] if not isinstance(part, int))
            head = f"[[{named}]]" if isinstance(found["loc"][-1], int) else f"[{named}]"
            said = f"should be a table, {head} with keys below it, got {found['input']!r:.60}"
        more = names if found["type"] == "extra_forbidden" else ""
        problems.append(f"{place}: {said}{more}" if place else f"{said}{more}")
    return "; ".join(problems)
