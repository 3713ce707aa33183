"""How far a long command is: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from citycover_cli.output import note

_EVERY = 10.0
"""Seconds between progress lines in a log."""


class Progress(Protocol):
    """Shows how far something is."""

    def update(self, done: float, note: str = "") -> None:
        """`done` in the unit of the total."""
        ...


class Part:
    """A part of something longer, told as if it were all.

    Args:
        whole: shows how far all of it is.
        first: `done` of the whole where the part begins.
        last: likewise, where it ends.
    """

    def __init__(self, whole: Progress, first: float, last: float) -> None:
        self.whole, self.first, self.last = whole, first, last

    def update(self, done: float, note: str = "") -> None:
        """`done` from 0 to 1."""
        self.whole.update(self.first + done * (self.last - self.first), note)


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

    def update(self, done: float, said: str = "") -> None:
        """Say how far it is, if enough time has passed or it is done."""
        now = time.monotonic()
        if done < self.total and now - self.last < _EVERY:
            return
        self.last = now
        share = done / self.total if self.total else 1.0
        note(f"{self.label}: {share:4.0%} after {now - self.begin:.1f} s {said}".rstrip())


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
