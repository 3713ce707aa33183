"""Members: the files of a folder or an archive, by name, whichever of both it is."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from citycover.errors import SceneError
from citycover.files.zipped import DAMAGED

_MOST = 200_000
"""Files of one archive."""

_LARGEST = 64 << 20
"""Bytes of metadata."""

_DEPTH = 6
"""Folders in folders of a product."""

_TARS = (".tar", ".tar.gz", ".tgz")

_DAMAGED = (*DAMAGED, tarfile.TarError)


@dataclass(frozen=True, slots=True)
class Members:
    """What lies in a folder or an archive."""

    place: Path
    kind: str
    """`folder`, `zip` or `tar`."""
    names: tuple[str, ...]
    """Relative, with `/`, in the order of the alphabet."""

    def path(self, name: str) -> str:
        """As GDAL opens a member."""
        whole = str(self.place.absolute())
        return f"{whole}/{name}" if self.kind == "folder" else f"/vsi{self.kind}/{whole}/{name}"

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            SceneError: it is too large for what tells of imagery, or cannot be read.
        """
        try:
            content = self._read(name)
        except _DAMAGED as error:
            raise SceneError(f"{name} in {self.place} cannot be read ({error}); fetch it again") from None
        if len(content) > _LARGEST:
            raise SceneError(
                f"{name} in {self.place} is more than {_LARGEST >> 20} MiB; it tells of no product"
            )
        return content

    def _read(self, name: str) -> bytes:
        if self.kind == "folder":
            with (self.place / name).open("rb") as file:
                return file.read(_LARGEST + 1)
        if self.kind == "zip":
            with zipfile.ZipFile(self.place) as archive:
                own = next(info for info in archive.infolist() if _plain(info.filename) == name)
                with archive.open(own) as member:
                    return member.read(_LARGEST + 1)
        with tarfile.open(self.place) as tar:
            found = tar.extractfile(next(info for info in tar if _plain(info.name) == name))
            return found.read(_LARGEST + 1) if found else b""


def is_archive(path: Path) -> bool:
    """Whether a file is called as an archive is."""
    return path.name.lower().endswith((".zip", *_TARS))


def members_of(path: Path) -> Members:
    """The files of a folder or an archive; hidden ones and links out of an archive are none.

    Raises:
        SceneError: the archive is damaged, or holds too many.
    """
    if path.is_dir():
        return Members(path, "folder", tuple(sorted(_below(path, _DEPTH))))
    kind = "zip" if path.name.lower().endswith(".zip") else "tar"
    try:
        if kind == "zip":
            with zipfile.ZipFile(path) as archive:
                files = [info for info in archive.infolist() if info.filename and not info.is_dir()]
                names = [_plain(info.filename) for info in files]
        else:
            with tarfile.open(path) as tar:
                names = [_plain(info.name) for info in tar if info.isfile()]
    except _DAMAGED as error:
        raise SceneError(f"{path} is no whole archive ({error}); fetch it again") from None
    if len(names) > _MOST:
        raise SceneError(f"{path} holds {len(names):,} files; a scene has fewer than {_MOST:,}; unpack it")
    return Members(path, kind, tuple(sorted(n for n in names if not _is_hidden(n))))


def _below(folder: Path, depth: int, before: str = "") -> Iterator[str]:
    for entry in folder.iterdir():
        if _is_hidden(entry.name):
            continue
        if entry.is_dir() and depth and not entry.is_symlink():
            yield from _below(entry, depth - 1, f"{before}{entry.name}/")
        elif entry.is_file():
            yield before + entry.name


def _plain(name: str) -> str:
    """As GDAL calls a member; `tar -c .` writes `./` before each."""
    return name.removeprefix("./")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/")) or name.startswith("__MACOSX/")
