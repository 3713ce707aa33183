"""How verbs talk: log lines, progress, tables, JSON. Results go to stdout, everything else to stderr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer


def print_json(data: Any) -> None:
    """Print plain values for machines."""
    from citycover.files.plain import to_json

    typer.echo(to_json(data))


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    typer.echo(title)
    for name, value in rows:
        first, *more = value.splitlines() or [""]
        typer.echo(f"  {name:<{width}}  {first}")
        for line in more:
            typer.echo(f"  {'':<{width}}  {line}")


def mebibytes(count: float) -> str:
    """Bytes for people.

    >>> mebibytes(5 * 2**30)
    '5.0 GiB'
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(3725)
    '1 h 02 min'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
