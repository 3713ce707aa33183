"""Names in a zip file, `a.zarr.zip/red`, as far as Zarr stores need them: a store that is one file."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citycover.files.local import is_path
from citycover.files.remote import Stored

if TYPE_CHECKING:
    from zarr.storage import ZipStore

_ENDS = re.compile(r"\.zip(?=/|$)", re.IGNORECASE)

_OPEN = 8
"""Archives that are kept open: their names are read once, of which there may be a hundred thousand."""

DAMAGED = (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What bytes that are no whole archive raise; ValueError: names that are no text."""


@dataclass(frozen=True, slots=True)
class ZippedPath:
    """A file of a zip, or what the names of several begin with."""

    archive: Path
    key: str
    """Parts with `/` between them; empty: all of it."""

    def __str__(self) -> str:
        return f"{self.archive}/{self.key}" if self.key else str(self.archive)

    def __truediv__(self, name: str) -> ZippedPath:
        return ZippedPath(self.archive, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part."""
        return Path(str(self)).name

    @property
    def parent(self) -> Path | ZippedPath:
        """What it lies in; the archive itself in a folder."""
        above = self.key.rpartition("/")[0]
        return ZippedPath(self.archive, above) if self.key else self.archive.parent

    def is_file(self) -> bool:
        """Whether there is such a file; in what is no whole archive there is none."""
        try:
            return self.key in _names(*_state(self.archive))
        except DAMAGED:
            return False

    def read_bytes(self) -> bytes:
        """The file.

        Raises:
            OSError: there is none, or it cannot be read.
        """
        try:
            with zipfile.ZipFile(self.archive) as archive:
                return archive.read(self.key)
        except DAMAGED as error:
            raise OSError(f"{self} cannot be read ({error})") from None

    def read_text(self, encoding: str = "utf-8") -> str:
        """The file, as `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def below(self) -> dict[str, Stored]:
        """All files below, by what follows this name."""
        before = f"{self.key}/" if self.key else ""
        names = _names(*_state(self.archive))
        return {
            name.removeprefix(before): Stored(size, None)
            for name, size in names.items()
            if name.startswith(before)
        }

    def folders(self) -> list[str]:
        """What follows this name up to the next `/`, of all files below that have one there; in order."""
        return sorted({name.partition("/")[0] for name in self.below() if "/" in name})

    def store(self) -> ZipStore:
        """The whole archive, for zarr-python."""
        return _store(*_state(self.archive))


def zipped(path: str) -> ZippedPath | None:
    """What a path means that leads to a zip file or into one; None: it does not."""
    if ".zip" not in path.lower() or not is_path(path):
        return None
    for found in _ENDS.finditer(path):
        if os.path.isfile(path[: found.end()]):  # noqa: PTH113 - what may not be looked at is none
            return ZippedPath(Path(path[: found.end()]).absolute(), path[found.end() :].strip("/"))
    return None


def _state(archive: Path) -> tuple[str, Any]:
    """What tells an archive from what it was: another one may have taken its place."""
    found = archive.stat()
    return str(archive), (found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@lru_cache(_OPEN)
def _names(archive: str, _: Any) -> dict[str, int]:
    """Bytes of each file, by name."""
    with zipfile.ZipFile(archive) as opened:
        files = [info for info in opened.infolist() if info.filename and not info.is_dir()]
        return {info.filename: info.file_size for info in files}


@lru_cache(_OPEN)
def _store(archive: str, _: Any) -> ZipStore:
    from zarr.storage import ZipStore

    return ZipStore(archive, mode="r")
