"""How verbs talk: log lines, progress, tables, JSON. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import typer

logger = logging.getLogger("citycover")

_EVERY = 10.0
"""Seconds between progress lines in a log."""


def set_up_logging(verbose: int, quiet: bool, log_file: Path | None) -> None:
    """Send the library's events to stderr, and all of them to a file if one is named."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setLevel(level)
    handlers[0].setFormatter(logging.Formatter("citycover: %(levelname)s: %(message)s"))
    if log_file is not None:
        from citycover.io.folder import machine_errors

        with machine_errors(log_file):
            log_file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        handlers[1].setLevel(logging.DEBUG)
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("citycover", "citycover_models"):
        parent = logging.getLogger(name)
        for old in parent.handlers[:]:
            parent.removeHandler(old)
            old.close()
        parent.setLevel(logging.DEBUG)
        parent.propagate = False
        for handler in handlers:
            parent.addHandler(handler)


def print_json(data: Any) -> None:
    """Print plain values for machines."""
    from citycover.facts import to_json

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


class Progress(Protocol):
    """Shows how far something is."""

    def update(self, done: float, note: str = "") -> None:
        """`done` in the unit of the total."""
        ...


@contextmanager
def show_progress(label: str, total: float, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal, plain lines in a log, nothing when quiet."""
    if quiet:
        yield _Silent()
    elif sys.stderr.isatty():
        with _bar(label, total) as bar:
            yield bar
    else:
        yield _Lines(label, total)


class _Silent:
    def update(self, done: float, note: str = "") -> None:
        """Say nothing."""


class _Lines:
    """A line now and then."""

    def __init__(self, label: str, total: float) -> None:
        self.label, self.total, self.begin, self.last = label, total, time.monotonic(), time.monotonic()

    def update(self, done: float, note: str = "") -> None:
        """Say how far it is, if enough time has passed or it is done."""
        now = time.monotonic()
        if done < self.total and now - self.last < _EVERY:
            return
        self.last = now
        share = done / self.total if self.total else 1.0
        typer.echo(f"{self.label}: {share:4.0%} after {now - self.begin:.1f} s {note}".rstrip(), err=True)


@contextmanager
def _bar(label: str, total: float) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, note="")

        class _Bar:
            def update(self, done: float, note: str = "") -> None:
                progress.update(task, completed=done, note=note)

        yield _Bar()


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
