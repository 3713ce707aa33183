"""A file whose checksum is taken while it is written, by a thread of its own."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

_WAITING = 4
"""Pieces that are written and not hashed yet, at most."""


class HashedFile:
    """A new file, written from its beginning to its end; one that exists is replaced."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._digest = hashlib.sha256()
        self._waiting: deque[Future[None]] = deque()
        self.size = 0
        """Bytes so far."""

    def write(self, piece: bytes) -> None:
        """Add bytes at the end."""
        self._waiting.append(self._pool.submit(self._digest.update, piece))
        self._file.write(piece)
        self.size += len(piece)
        if len(self._waiting) > _WAITING:
            self._waiting.popleft().result()

    @property
    def sha256(self) -> str:
        """Hexadecimal, of all that was written; once the file is closed."""
        return self._digest.hexdigest()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self._file.close()
