"""Databases of features (GeoPackage, SQLite, SpatiaLite): do they hold their rows themselves?

A virtual table of SQLite is code that gives rows: of an index, or of any file on the machine (VirtualOGR,
VirtualText). It is told from the text of the schema, which runs nothing.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from citycover.errors import ConfigError

MAGIC = b"SQLite format 3\0"
"""First bytes of such a file."""

_INDEX = re.compile(
    r"CREATE VIRTUAL TABLE (?:IF NOT EXISTS )?"
    r"""(?:\w+|"(?:[^"]|"")*"|'(?:[^']|'')*'|\[[^\]]*\])\s+USING """
    r"(?:rtree|rtree_i32|fts[345]|VirtualSpatialIndex|VirtualElementary|VirtualKNN2?)\b.*",
    re.IGNORECASE | re.DOTALL,
)
"""Virtual tables over rows of the same file, as GDAL and SpatiaLite write them."""

_VIRTUAL = re.compile(r"\bVIRTUAL\b.*\bUSING\b", re.IGNORECASE | re.DOTALL)


def refuse_reaching(path: Path, what: str) -> None:
    """Refuse a database whose tables give rows of other files.

    Args:
        path: SQLite file.
        what: is read, for messages.

    Raises:
        ConfigError: it has such a table, or its schema cannot be read.
    """
    for name, sql in _tables(path, what):
        if _VIRTUAL.search(sql) and not _INDEX.fullmatch(sql):
            raise ConfigError(
                f"{what} {path}: its table {name!r} is a virtual one, whose rows may lie in other files; "
                "nothing was read of them; copy the features into a file of their own (ogr2ogr out.gpkg "
                "in.sqlite LAYER)"
            )


def _tables(path: Path, what: str) -> Iterator[tuple[str, str]]:
    """Name and definition of each table; nothing is written beside the file."""
    still = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{still}", uri=True)) as database:
            yield from database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    except sqlite3.Error as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}; check that the file is whole") from None
