"""Whether a file is still the one it was."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from citycover.files.remote import tag_of

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What the file system says of a file: cheap to ask, and different as soon as somebody writes into it."""

    size: int
    """Bytes."""
    mtime_ns: int
    """When the content was written; `cp -p`, `touch` and `rsync` set it at will."""
    ctime_ns: int
    """When content, name or rights changed; nobody can set it."""

    @classmethod
    def of(cls, path: str | Path) -> FileStamp | None:
        """The stamp of a plain file, links followed; None of what is none here."""
        try:
            found = Path(path).stat()
        except (OSError, ValueError):
            return None
        plain = stat.S_ISREG(found.st_mode)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns) if plain else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class FileMark:
    """A file as it was at one moment, so that a change of its content is told from a mere `touch`.

    The stamp answers nearly always. Where size is equal and a time is not, content is compared: all of it up
    to `budget` bytes, of larger files pieces of it, the first and the last among them. So much is read when
    the mark is made, and reading a large scene twice for the rare case would not be worth it.
    """

    path: str
    stamp: FileStamp | None
    """None: there was no such file, or it lies across the network."""
    budget: int
    """Bytes of content that are compared."""
    digest: str
    """Of that content, hexadecimal; of an object in a store its tag; empty: the name alone counts."""

    @classmethod
    def of(cls, path: str, budget: int) -> FileMark:
        """Mark a file as it is now.

        Raises:
            OSError: it is there and cannot be read.
        """
        stamp = FileStamp.of(path)
        return cls(path, stamp, budget, "" if stamp is None else _digest(Path(path), stamp.size, budget))

    def holds(self) -> bool:
        """Whether the file is what it was, by content where its times alone differ."""
        if self.stamp is None and self.digest:
            return tag_of(self.path) == self.digest
        now = FileStamp.of(self.path)
        if now is None or self.stamp is None or now.size != self.stamp.size:
            return now == self.stamp
        try:
            return now == self.stamp or _digest(Path(self.path), now.size, self.budget) == self.digest
        except OSError:
            return False


def _digest(path: Path, size: int, budget: int) -> str:
    """SHA-256 of a file, or of evenly spread pieces of a large one."""
    if size <= budget:
        return sha256_of(path)
    pieces = max(2, budget // _PIECE)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(pieces):
            file.seek((size - _PIECE) * number // (pieces - 1))
            digest.update(file.read(_PIECE))
    return digest.hexdigest()
