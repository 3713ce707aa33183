"""TOML files of the user: cards, legends, recipes, tables of names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

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
