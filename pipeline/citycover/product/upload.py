"""A finished product of this machine into an object store, so that no reader sees half of one.

A store has no rename. As in a folder, `item.json` is the sign that a product is whole:

1.  `.uploading.json` says that a product is on its way here, and which names are citycover's;
2.  the `item.json` of a product that is replaced goes, and the first step is done once more: whoever fell
    asleep between the two may have taken the sign of another run, which has finished meanwhile;
3.  every other file is put there, several at a time; then what only the old product had goes;
4.  `item.json` is put there;
5.  `.uploading.json` goes.

What was put there is noted on this machine with the tag that the store gave it. An upload that was
interrupted skips files whose tag is still the one that was noted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from citycover.errors import ProductError, StoppedError
from citycover.files.plain import to_json
from citycover.files.remote import RemotePath, Stored
from citycover.product.folder import listed_files
from citycover.product.names import PRODUCT_FILES, SIGN
from citycover.product.product import Product

MARK = ".uploading.json"

_AT_ONCE = 6
"""Files on their way at a time: many of a Zarr are small."""


@dataclass(frozen=True)
class RemoteFolder:
    """What lies where a product is to go."""

    place: RemotePath
    objects: Mapping[str, Stored]
    """By name below the place."""

    @classmethod
    def look(cls, place: RemotePath) -> RemoteFolder:
        """See what is there.

        Raises:
            ProductError: other content than products of citycover.
            CitycoverError: the store does not let us look.
        """
        found = cls(place, place.below())
        if found.objects and not found.finished and MARK not in found.objects:
            names = sorted(found.objects)
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ProductError(
                f"{place} holds other content: {', '.join(names[:5])}{more}; a product needs a prefix of its "
                "own; choose another --out"
            )
        return found

    @property
    def finished(self) -> bool:
        """Whether a product of citycover is there, whole."""
        return SIGN in self.objects and listed_files(self.place / SIGN) is not None

    @property
    def ours(self) -> frozenset[str]:
        """Names there that are citycover's to replace: files that a product may have."""
        return frozenset(name for name in self.objects if name.partition("/")[0] in {*PRODUCT_FILES, MARK})


def upload(product: Product, folder: RemoteFolder, notes: Path, stop: threading.Event) -> Product:
    """Put a product there; goes on where an earlier upload of it stopped.

    Args:
        product: finished, on this machine.
        folder: where to; what it holds of products is replaced.
        notes: file on this machine that keeps what was put there.
        stop: asks to stop.

    Raises:
        StoppedError: it was asked to stop.
        CitycoverError: the store refuses; run again, it goes on.
    """
    place = folder.place
    assert isinstance(product.folder, Path), "it was mapped here"
    files = {
        path.relative_to(product.folder).as_posix(): path
        for path in sorted(product.folder.rglob("*"))
        if path.is_file()
    }
    sign = files.pop(SIGN)
    mark = to_json({"citycover": product.run.given.versions.get("citycover")}).encode()
    (place / MARK).write(mark)
    (place / SIGN).remove()
    (place / MARK).write(mark)
    _put_all(place, _missing(files, folder, notes), notes, stop)
    for name in sorted(folder.ours - {*files, SIGN, MARK}):
        (place / name).remove()
    (place / SIGN).write(sign)
    (place / MARK).remove()
    names = tuple(place / name for name in sorted({path.name for path in product.files} - {SIGN}))
    return Product(place, (*names, place / SIGN), product.run)


def drop_remote(place: RemotePath) -> None:
    """Remove a product from a store, its `item.json` first; goes on where that was ended.

    Raises:
        ProductError: it is none.
        CitycoverError: the store refuses.
    """
    folder = RemoteFolder.look(place)
    (place / MARK).write(b"{}")
    for name in (SIGN, *sorted(folder.ours - {SIGN, MARK}), MARK):
        (place / name).remove()


def _put_all(place: RemotePath, files: Mapping[str, Path], notes: Path, stop: threading.Event) -> None:
    """Put files there, and note each."""
    lock = threading.Lock()

    def put(name: str) -> None:
        if stop.is_set():
            return
        stat = files[name].stat()
        tag = (place / name).write(files[name])
        with lock, notes.open("a", encoding="utf-8") as out:
            out.write(json.dumps([name, stat.st_size, stat.st_mtime_ns, tag]) + "\n")

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upload") as pool:
        for done in [pool.submit(put, name) for name in files]:
            try:
                done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    if stop.is_set():
        raise StoppedError


def _missing(files: Mapping[str, Path], folder: RemoteFolder, notes: Path) -> dict[str, Path]:
    """Files that are not there yet as they are here."""
    noted = _noted(notes)
    missing = {}
    for name, path in files.items():
        stat, there = path.stat(), folder.objects.get(name)
        same = there is not None and (stat.st_size, stat.st_mtime_ns, there.e_tag) == noted.get(name)
        if not same or there is None or there.e_tag is None or there.size != stat.st_size:
            missing[name] = path
    return missing


def _noted(notes: Path) -> dict[str, tuple[int, int, str | None]]:
    """What was put there, as far as whole lines say so: a kill may leave half of the last one."""
    found = {}
    for line in notes.read_text(encoding="utf-8").splitlines() if notes.exists() else ():
        try:
            name, size, time, tag = json.loads(line)
        except ValueError:
            continue
        found[name] = (size, time, tag)
    return found
