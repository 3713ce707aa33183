"""Whether a file is still the one it was."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from citycover.files.folders import files_below, is_zarr
from citycover.files.remote import tag_of
from citycover.files.sidecars import is_gdals_own, meaning_of

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
        """The stamp of a plain file, links followed, or of all files of a Zarr store; None of others."""
        try:
            found = Path(path).stat()
            if stat.S_ISDIR(found.st_mode) and is_zarr(path):
                return cls._of_folder(path)
        except (OSError, ValueError):
            return None
        plain = stat.S_ISREG(found.st_mode)
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns) if plain else None

    @classmethod
    def _of_folder(cls, folder: str | Path) -> FileStamp:
        """Bytes of all files, and the latest times."""
        found = [state for _, state in files_below(folder)]
        return cls(
            sum(state.st_size for state in found),
            max((state.st_mtime_ns for state in found), default=0),
            max((state.st_ctime_ns for state in found), default=0),
        )


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

    Of what GDAL keeps beside an image (`.aux.xml`) what it says of the image counts, not the file: viewers
    write statistics into it, or make one for them.
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
        if is_gdals_own(path):
            return cls(path, stamp, budget, meaning_of(Path(path)))
        return cls(path, stamp, budget, "" if stamp is None else _digest(Path(path), stamp.size, budget))

    def holds(self) -> bool:
        """Whether the file is what it was, by content where its times alone differ."""
        if self.stamp is None and self.digest:
            return tag_of(self.path) == self.digest
        now = FileStamp.of(self.path)
        if is_gdals_own(self.path):
            return now == self.stamp or self._says_the_same()
        if now is None or self.stamp is None or now.size != self.stamp.size:
            return now == self.stamp
        try:
            return now == self.stamp or _digest(Path(self.path), now.size, self.budget) == self.digest
        except OSError:
            return False

    def _says_the_same(self) -> bool:
        try:
            return meaning_of(Path(self.path)) == self.digest
        except OSError:
            return False


def _digest(path: Path, size: int, budget: int) -> str:
    """SHA-256 of a file, or of evenly spread pieces of a large one; of all files of a Zarr store likewise."""
    if path.is_dir():
        return _digest_of_folder(path, size, budget)
    if size <= budget:
        return sha256_of(path)
    pieces = max(2, budget // _PIECE)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(pieces):
            file.seek((size - _PIECE) * number // (pieces - 1))
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _digest_of_folder(folder: Path, size: int, budget: int) -> str:
    """SHA-256 of names and sizes of all files in a folder, and of content: of some where it is too much."""
    files = list(files_below(folder))
    share = budget if size <= budget else max(_PIECE, budget // len(files))
    looked = 1 if size <= budget else -(-len(files) * share // budget)
    digest = hashlib.sha256()
    for number, (name, state) in enumerate(files):
        digest.update(f"{name} {state.st_size}\n".encode(errors="surrogateescape"))
        if number % looked == 0:
            digest.update(_digest(folder / name, state.st_size, share).encode())
    return digest.hexdigest()
