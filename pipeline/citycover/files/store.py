"""Where a run keeps what it has finished: five verbs over objects by name, on a disk or elsewhere.

Whoever writes needs no rename and no lock of a file system: an object is there wholly or not at all, and
`put_new` tells two writers apart.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, TypeVar, cast

from citycover.files.atomic import atomic_path, make_folder, sync_file, sync_folder, temporary_path
from citycover.files.remote import RemotePath, remove_all

K = TypeVar("K")
T = TypeVar("T")

PIECE = 1 << 23
"""Bytes of an object that are read at once where all of it is."""

_HELD = 1 << 25
"""Bytes on their way to a bucket that are held in memory; more go through a temporary file."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems answer that have no hard links."""


class Store(Protocol):
    """Objects by key, parts of it with `/` between them; picklable. As text it is what messages call it."""

    @property
    def at_once(self) -> int:
        """Requests that pay to be made at the same time."""
        ...

    def put(self, key: str, write: Callable[[BinaryIO], T]) -> T:
        """Put an object there, in the place of another one if there is; what `write` returns."""
        ...

    def put_new(self, key: str, content: bytes) -> bool:
        """Put an object there, unless there is one; whether it was put."""
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object: fewer, or none, where it ends before.

        Args:
            key: of the object.
            start: of the first; negative: counted from the end.
            length: how many; None: all that follow.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def list(self, prefix: str) -> tuple[str, ...]:
        """Keys of the objects below a prefix (`ledger/`; empty: all), in order."""
        ...

    def delete(self, *keys: str) -> None:
        """Remove objects, those of them that are there."""
        ...


@dataclass(frozen=True, slots=True)
class PosixStore:
    """A folder of this machine, or one that several share. Its objects survive a power cut."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def at_once(self) -> int:
        """Disks answer faster than threads begin."""
        return 1

    def put(self, key: str, write: Callable[[BinaryIO], T]) -> T:
        """Put an object there; the folders above it are made."""
        path = self.folder / key
        make_folder(path.parent)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            return write(file)

    def put_new(self, key: str, content: bytes) -> bool:
        """Put an object there, unless there is one.

        Where the file system has no links, two writers that come at once may both think that they were first.
        """
        path = self.folder / key
        make_folder(path.parent)
        temporary = temporary_path(path.with_stem(f"{path.stem}.{threading.get_ident()}"))
        try:
            temporary.write_bytes(content)
            sync_file(temporary)
            if not _link(temporary, path):
                return False
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        with _absent_as_one(), _opened(self.folder / key) as fd:
            if start < 0 or length is None:
                size = os.fstat(fd).st_size
                start = max(0, size + start) if start < 0 else start
                length = size - start if length is None else length
            data = os.pread(fd, max(0, length), start)
            while 0 < len(data) < length:  # a read may be cut, by its size or a signal
                if not (more := os.pread(fd, length - len(data), start + len(data))):
                    break
                data += more
        return data

    def list(self, prefix: str) -> tuple[str, ...]:
        """Keys below a prefix. What a kill left of writing begins with a dot, and is none."""
        found = []
        for at, _, names in os.walk(self.folder / prefix, onerror=_unless_absent):
            found += [Path(at, name).relative_to(self.folder).as_posix() for name in names if name[0] != "."]
        return tuple(sorted(found))

    def delete(self, *keys: str) -> None:
        """Remove objects."""
        paths = [self.folder / key for key in keys]
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            if folder.is_dir():
                sync_folder(folder)


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A prefix of a bucket. Who opens it elsewhere asks with the credentials of that machine."""

    place: RemotePath

    def __str__(self) -> str:
        return str(self.place)

    @property
    def at_once(self) -> int:
        """Each request takes some 10 ms, however many there are."""
        return 16

    def put(self, key: str, write: Callable[[BinaryIO], T]) -> T:
        """Put an object there, once it is whole here; what is large waits on the disk."""
        with SpooledTemporaryFile(max_size=_HELD) as file:
            told = write(cast("BinaryIO", file))
            file.seek(0)
            (self.place / key).write(cast("BinaryIO", file))
        return told

    def put_new(self, key: str, content: bytes) -> bool:
        """Put an object there, unless there is one; no two writers may put the same."""
        return (self.place / key).swap(content, None) is not None

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        return b"" if length == 0 else (self.place / key).read_bytes(start, length)

    def list(self, prefix: str) -> tuple[str, ...]:
        """Keys below a prefix."""
        at = self.place / prefix.rstrip("/") if prefix else self.place
        return tuple(sorted(prefix + name for name in at.below()))

    def delete(self, *keys: str) -> None:
        """Remove objects, a thousand by a request."""
        remove_all(self.place, keys)


_: tuple[type[Store], ...] = (PosixStore, ObjectStore)


def put_text(store: Store, key: str, text: str) -> None:
    """Put text there."""
    store.put(key, lambda file: file.write(text.encode()))


def each(store: Store, do: Callable[[K], T], items: Sequence[K], threads: int = 1) -> list[T]:
    """What a function of objects gives for each of them, in order.

    Args:
        store: of the objects; says how many requests pay at a time.
        do: reads an object.
        items: what it is called with.
        threads: at least so many.
    """
    threads = min(max(threads, store.at_once), len(items))
    if threads <= 1:
        return [do(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="store") as pool:
        return list(pool.map(do, items))


def pieces(store: Store, key: str) -> Iterator[bytes]:
    """All bytes of an object, some at a time.

    Raises:
        FileNotFoundError: there is none.
    """
    start, piece = 0, store.get(key, 0, PIECE)
    while piece:
        yield piece
        start += len(piece)
        piece = store.get(key, start, PIECE) if len(piece) == PIECE else b""


def _link(temporary: Path, path: Path) -> bool:
    """Give a file its name, unless another one has it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        temporary.replace(path)
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _absent_as_one() -> Iterator[None]:
    """A folder, or what lies below a file, is no object either."""
    try:
        yield
    except (IsADirectoryError, NotADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, "there is no such object", error.filename) from None


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
