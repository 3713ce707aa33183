"""That files are not read: what proves that states which differ in them alone are one.

The kernel tells (inotify), whoever opens them: Python, GDAL or torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

_IN_ACCESS, _IN_OPEN = 0x01, 0x20

_EVENT = struct.Struct("iIII")
"""Of inotify: number of the watch, what happened, cookie, length of a name (none of a file's own watch)."""

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def unread(unopened: Iterable[Path], locks: Iterable[Path] = ()) -> Iterator[None]:
    """Files may be renamed or removed as long as the context, but not opened; locks opened, but not read.

    Raises:
        AssertionError: one was, at the end of the context.
    """
    notes = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert notes >= 0, f"no inotify: {os.strerror(ctypes.get_errno())}"
    wanted = [*((path, _IN_OPEN) for path in unopened), *((path, _IN_ACCESS) for path in locks)]
    try:
        watched = {_libc.inotify_add_watch(notes, os.fsencode(path), kind): path for path, kind in wanted}
        assert -1 not in watched, f"cannot watch: {os.strerror(ctypes.get_errno())}"
        yield
        read = {watched[number].name for number, kind in _events(notes) if kind & (_IN_ACCESS | _IN_OPEN)}
        assert not read, f"read, though nobody should: {', '.join(sorted(read))}"
    finally:
        os.close(notes)


def _events(notes: int) -> Iterator[tuple[int, int]]:
    while True:
        try:
            told = os.read(notes, 1 << 16)
        except BlockingIOError:
            return
        for number, kind, _, _ in _EVENT.iter_unpack(told):
            yield number, kind
