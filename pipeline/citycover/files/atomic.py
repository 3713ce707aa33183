"""Files that are whole or not there, also after a power cut.

A rename is atomic, but says nothing of what it renames: the file's bytes must be on the disk before it, and
the folder's entry after it, or a power cut leaves the new name on an empty file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
"""What file systems answer that cannot synchronise a folder (some network mounts)."""


def write_atomic(path: Path, content: str | Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is there wholly or not at all.

    Args:
        path: the file; one that exists is replaced.
        content: text, or a function that writes into the file it is given.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if isinstance(content, str):
            file.write(content.encode())
        else:
            content(file)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, of the same ending, that becomes `path` when the block succeeds."""
    temporary = temporary_path(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path`, of this process alone: processes of several hosts may share the folder."""
    return path.with_name(f".{path.stem}.{socket.gethostname()}.{os.getpid()}.tmp{path.suffix}")


def passing_names(name: str) -> str:
    """The glob pattern of what a kill may leave of writing `name`, which may be a pattern itself."""
    path = Path(name)
    return f".{path.stem}.*.tmp{path.suffix}"


def put_in_place(file: Path, path: Path) -> None:
    """Rename a file of the same file system to `path`: its bytes to disk first, the folder's entry after."""
    sync_file(file)
    file.replace(path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each on the disk before what it will hold; one that is there stays.

    Raises:
        OSError: it cannot be made, or a file has its name.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Push a folder with all that it holds to disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def sync_file(path: Path) -> None:
    """Push a file's bytes to disk."""
    _sync(path)


def sync_folder(path: Path) -> None:
    """Push a folder's entries to disk, where its file system can."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
