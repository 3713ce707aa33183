"""Files that are whole or not there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, content: str | Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there wholly or not at all, even after a power cut.

    Args:
        path: the file; one that exists is replaced.
        content: text, or a function that writes into the file it is given.
    """
    temporary = path.with_name(f".{path.name}.{writer_name()}.tmp")
    try:
        with temporary.open("wb") as file:
            if isinstance(content, str):
                file.write(content.encode())
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Push a file or a folder's entries to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def writer_name() -> str:
    """Who writes: processes of several hosts may share the folder."""
    return f"{socket.gethostname()}.{os.getpid()}"
