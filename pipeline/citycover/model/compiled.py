"""What was made of a model for this machine, kept in the user's cache: it may be made again at any time.

A folder an artefact, beside it a record of what it was made of and of the hash of each file. What lies there
is as good as code, so nothing is taken from a folder that others can write to, and no file that is not the
one that was written; such a thing is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from citycover.files.cache import cache_folder
from citycover.files.identity import sha256_of

logger = logging.getLogger(__name__)

MOST_BYTES = 4 << 30
"""Of all artefacts together; those that were not used for longest go first."""

_RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Artefact:
    """What decides an artefact."""

    facts: str
    """As JSON."""

    @classmethod
    def of(cls, **facts: Any) -> Artefact:
        """An artefact by the names and values of all that decides it."""
        return cls(json.dumps(facts, sort_keys=True))

    @property
    def name(self) -> str:
        """Of its folder."""
        return hashlib.sha256(self.facts.encode()).hexdigest()[:32]


def private_folder(name: str) -> Path | None:
    """A folder in the user's cache that nobody else can write to; None: there is none, and cannot be."""
    folder = cache_folder() / name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.lstat()
        if found.st_uid != os.geteuid() or folder.is_symlink():
            raise PermissionError(f"{folder} is another's")
        if found.st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        logger.info("nothing is kept between runs: %s", error)
        return None
    return folder


@contextlib.contextmanager
def kept(artefact: Artefact, make: Callable[[Path], None]) -> Iterator[Path]:
    """The folder of an artefact: the one that is kept, or one made now and kept for other runs.

    Args:
        artefact: which.
        make: writes its files into the empty folder that it is given.
    """
    root = private_folder("forms")
    if root is None:
        with tempfile.TemporaryDirectory(prefix="citycover-form-") as passing:
            make(Path(passing))
            yield Path(passing)
        return
    folder = root / artefact.name
    if _is_whole(folder, artefact):
        os.utime(folder)
        yield folder
        return
    if folder.exists():
        logger.info("what is kept in %s is damaged or another's; it is made anew", folder)
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=root, ignore_cleanup_errors=True) as passing:
        made = Path(passing) / artefact.name
        _make(artefact, make, made)
        try:
            made = made.rename(folder)
        except OSError:  # another process was faster
            logger.debug("%s is there by now", folder)
        yield made
    _make_room(root, folder)


def is_kept(artefact: Artefact) -> bool:
    """Whether an artefact is there, so that it need not be made; its files are looked at when it is taken."""
    root = private_folder("forms")
    try:
        return root is not None and _read(root / artefact.name)["of"] == artefact.facts
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(artefact: Artefact, make: Callable[[Path], None], folder: Path) -> None:
    folder.mkdir(mode=0o700)
    make(folder)
    files = {name: sha256_of(folder / name) for name in sorted(_files(folder))}
    (folder / _RECORD).write_text(json.dumps({"of": artefact.facts, "files": files}))


def _read(folder: Path) -> Any:
    return json.loads((folder / _RECORD).read_text())


def _is_whole(folder: Path, artefact: Artefact) -> bool:
    """Whether a folder holds the artefact, its files as they were written, and nothing else."""
    try:
        if folder.is_symlink():
            return False
        record = _read(folder)
        names = _files(folder) - {_RECORD}
        return (
            record["of"] == artefact.facts
            and record["files"].keys() == names
            and all(sha256_of(folder / name) == digest for name, digest in record["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _files(folder: Path) -> set[str]:
    """Names of all files in a folder and those within, from there.

    Raises:
        OSError: one of them is a link.
    """
    inside = list(folder.rglob("*"))
    if any(path.is_symlink() for path in inside):
        raise OSError(f"{folder} has links in it")
    return {path.relative_to(folder).as_posix() for path in inside if not path.is_dir()}


def _make_room(root: Path, keep: Path) -> None:
    """Remove what was not used for longest until the rest is small enough, and what a kill has left."""
    with contextlib.suppress(OSError):  # other processes make room, too
        found = sorted(
            (f for f in root.iterdir() if f.is_dir() and f != keep), key=lambda f: f.stat().st_mtime
        )
        total = _size(keep) + sum(map(_size, found))
        for folder in found:
            left = folder.name.startswith(".") and folder.stat().st_mtime < time.time() - 86400
            if left or (total > MOST_BYTES and not folder.name.startswith(".")):
                total -= _size(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
