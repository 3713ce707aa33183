"""Whether a file is still the one it was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


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
            stat = Path(path).stat()
        except (OSError, ValueError):
            return None
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) if Path(path).is_file() else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
