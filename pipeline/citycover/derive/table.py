"""Rows into a file: CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from citycover.errors import ConfigError
from citycover.files.output import write_output
from citycover.files.plain import to_json

ENDINGS = (".csv", ".json", ".parquet")


def check_table(path: Path) -> None:
    """Raise ConfigError unless rows can be written into such a file, here: before the work."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"a table is written as {', '.join(ENDINGS)}; {path} ends in {path.suffix!r}")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                ".parquet needs pyarrow, of the vector extra: pip install 'citycover[vector]'; or write .csv"
            ) from None


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same columns; what is None is empty.

    Raises:
        ConfigError: see `check_table`.
        MachineError: the file cannot be written.
    """
    check_table(path)
    ending = path.suffix.lower()
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(list(rows))
        write_output(path, lambda file: pq.write_table(table, file))
    elif ending == ".json":
        write_output(path, to_json(list(rows)) + "\n")
    else:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        write_output(path, text.getvalue())
