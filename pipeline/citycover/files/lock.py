"""A lock on a folder that a dead process does not hold."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
import time
from pathlib import Path
from types import TracebackType

from citycover.errors import HeldError

_log = logging.getLogger(__name__)

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


_INSTANT = 0.05
"""Seconds; who asks whether a lock is `taken` holds it for less."""

_HOLDER = re.compile(r"process (\d+) on (.+)")


class RunLock:
    """Excludes two runs from one folder, by `flock` on a file in it.

    The kernel lets go of the lock when the process ends, however it ends. On file systems without `flock`
    (some network mounts) the run goes on without a lock and says so in the log.
    """

    def __init__(self, path: Path):
        self.path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock at once.

        Raises:
            HeldError: another run holds it.
        """
        while self._fd is None:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._lock(fd)
                # The holder before us may have removed the file between our open and our lock; a lock on
                # a file that nobody else can open excludes nobody.
                current = self.path.exists() and self.path.stat().st_ino == os.fstat(fd).st_ino
            except BaseException:
                os.close(fd)
                raise
            if current:
                self._fd = fd
            else:
                os.close(fd)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    @property
    def holder(self) -> tuple[int, str] | None:
        """Process and host of who holds the lock, or held it last, as it wrote them down; None: not known."""
        try:
            found = _HOLDER.fullmatch(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return (int(found[1]), found[2]) if found else None

    def taken(self) -> bool:
        """Whether a run holds the lock now; True where the file system cannot tell."""
        try:
            fd = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def held(self) -> bool:
        """Whether the lock was taken and its file is still the one that others would lock."""
        if self._fd is None:
            return False
        try:
            there, ours = self.path.stat(), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        """Let go; the file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _lock(self, fd: int) -> None:
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_INSTANT)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode(errors="replace") or "another process"
            raise HeldError(
                f"another run is writing into {self.path.parent.parent} ({holder}); one run per folder is "
                "possible; wait for it, stop it, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            _log.warning("no lock on %s: its file system has none (%s)", self.path, error.strerror)
