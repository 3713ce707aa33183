"""Signals: the first SIGINT or SIGTERM asks a long verb to stop, a second one kills as usual."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer


@contextmanager
def catch_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """The event that a signal sets, and the signals that came."""
    stop, caught = threading.Event(), list[int]()

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        stop.set()
        for kind, handler in before.items():
            signal.signal(kind, handler)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {kind: signal.signal(kind, note) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, caught
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def stopped(
    caught: list[int], kept: str, *more: str, without: tuple[str, ...] = ("--restart",)
) -> typer.Exit:
    """Say what is kept and how to go on; the exit to raise has 128 + the signal's number.

    Args:
        caught: signals that came.
        kept: what is not lost.
        more: arguments that the same command needs to go on.
        without: arguments that would begin anew.
    """
    number = caught[0] if caught else signal.SIGINT
    words = [a for a in sys.argv[1:] if a not in {*without, *more}]
    typer.echo(
        f"citycover: stopped by {signal.Signals(number).name}; {kept}; to go on, run the same "
        f"command again:\n"
        f"  {shlex.join(['citycover', *words, *more])}",
        err=True,
    )
    return typer.Exit(128 + number)
