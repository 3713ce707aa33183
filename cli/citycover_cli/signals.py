"""Signals: the first SIGINT or SIGTERM stops a command, softly where it can; a second one ends it at once.

Python hears a signal between two of its own instructions. A network call that hangs in C++ has none, so a
thread listens beside the main one: the C handler writes each signal into a pipe, and the second to come out
of it ends the process.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from citycover_cli.output import note

_KINDS = (signal.SIGINT, signal.SIGTERM)

_ELASTIC = "TORCHELASTIC_RUN_ID"
"""A variable that torchrun sets for its processes."""

_TWICE = 0.3
"""Seconds in which a second signal is the first once more: `timeout` sends to a process and to its group."""


class Stopped(BaseException):
    """A signal ended the command; the message says what is kept and how to go on.

    Args:
        number: of the signal; None: it came to another process of the same work.
        what_next: the rest of the message.
    """

    def __init__(self, number: int | None, what_next: str = ""):
        self.exit_code = 128 + (number or signal.SIGINT)
        how = f"by {signal.Signals(number).name}" if number else "since another process was"
        super().__init__(f"stopped {how}{what_next}")


@dataclass
class _Heard:
    """What the main thread heard."""

    caught: list[int] = field(default_factory=list)
    soft: threading.Event | None = None
    """Set where a verb ends by itself; None: the signal breaks in."""

    def handle(self, number: int, _frame: object) -> None:
        self.caught.append(number)
        if self.soft is not None:
            self.soft.set()
        elif len(self.caught) == 1:  # a second one must not break into what the first one ends
            raise Stopped(number)


_heard = _Heard()


@contextmanager
def hear_signals() -> Iterator[list[int]]:
    """Listen as long as the context; gives the signals that came."""
    global _heard  # noqa: PLW0603 - signals belong to the process
    _heard = heard = _Heard()
    if threading.current_thread() is not threading.main_thread():
        yield heard.caught
        return
    out, into = os.pipe()
    os.set_blocking(into, False)
    before = {kind: signal.signal(kind, heard.handle) for kind in _KINDS}
    old = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(out,), name="second signal", daemon=True).start()
    try:
        yield heard.caught
    finally:
        signal.set_wakeup_fd(old)
        for kind, handler in before.items():
            if signal.getsignal(kind) is not signal.SIG_IGN:
                signal.signal(kind, handler)
        os.close(into)  # which ends the thread


def _watch(out: int) -> None:
    first = None
    while number := os.read(out, 1):
        if number[0] not in _KINDS:
            continue
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > _TWICE:
            name = signal.Signals(number[0]).name
            note(f"citycover: a second signal, {name}: ended at once; what was finished is kept")
            os._exit(128 + number[0])
    os.close(out)


def _forget() -> None:
    """In a child: its signals are no news for the parent, whose pipe it has."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget)


@contextmanager
def catch_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """The event that a signal sets instead of breaking in, and the signals that came."""
    heard = _heard
    heard.soft = stop = threading.Event()
    try:
        yield stop, heard.caught
    finally:
        heard.soft = None


def stopped(caught: list[int], kept: str, *more: str, without: tuple[str, ...] = ("--restart",)) -> Stopped:
    """What to raise: it says what is kept and how to go on.

    Args:
        caught: signals that came.
        kept: what is not lost.
        more: arguments that the same command needs to go on.
        without: arguments that would begin anew.
    """
    words = [a for a in sys.argv[1:] if a not in {*without, *more}]
    if _ELASTIC in os.environ:  # it sends a signal to those that are still ending when the first has ended
        for kind in _KINDS:
            signal.signal(kind, signal.SIG_IGN)
    return Stopped(
        caught[0] if caught else None,
        f"; {kept}; to go on, run the same command again:\n  {shlex.join([*_program(), *words, *more])}",
    )


def what_is_kept(blocks: int, what: str = "blocks") -> str:
    """Of a map that is stopped, in words for `stopped`, by how many blocks were finished."""
    return f"finished {what} are kept" if blocks else "this run had finished no block"


def _program() -> list[str]:
    """How the command is called."""
    if _ELASTIC not in os.environ:
        return ["citycover"]
    return ["torchrun", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1"), "-m", "citycover_cli"]
