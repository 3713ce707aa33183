"""Folders that count as one file: Zarr stores, their groups and arrays; on a disk, zipped, or far away."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from citycover.errors import SceneError
from citycover.files.plain import parse_json
from citycover.files.remote import RemotePath, address_of
from citycover.files.zipped import ZippedPath, zipped

Node: TypeAlias = Path | RemotePath | ZippedPath
"""Where a store, or a group or an array in one, lies."""

_STORES = (".zarr", ".zip")

_STORE = re.compile(r"\.(?:zarr|zip)(?=/|$)")

_DATED = re.compile(r"(?:(?<=\.zarr)|(?<=\.zip))@\d{1,6}(?=/|$)")

_METADATA = ("zarr.json", ".zarray", ".zgroup")

STORED = "citycover:chunks"
"""Attribute of the root of a store: what `chunks_in` found once all was written."""


def at_date(path: str, number: int) -> str:
    """The name of an array of several dates as it is at one of them, from 0: after that of its store.

    As it is where no part of it is called as stores are.

    >>> at_date("cubes/a.zarr/red", 3), undated("cubes/a.zarr@3/red"), date_of("cubes/a.zarr@3/red")
    ('cubes/a.zarr@3/red', 'cubes/a.zarr/red', 3)
    """
    return _STORE.sub(rf"\g<0>@{number}", path, count=1)


def undated(path: str) -> str:
    """The name of an array without the date that is meant of it."""
    return _DATED.sub("", path)


def date_of(path: str) -> int | None:
    """Which date of an array is meant, from 0; None: all, or it has none."""
    found = _DATED.search(path)
    return int(found[0][1:]) if found else None


def folder_of(path: str | Node) -> Node:
    """What a name means: on this machine, in a zip, or across the network."""
    if isinstance(path, RemotePath | ZippedPath):
        return path
    plain = undated(str(path))
    return address_of(plain) or zipped(plain) or Path(plain).absolute()


def is_zarr(path: str | Node) -> bool:
    """Whether a folder is a Zarr store, or a group or an array in one; see `zarr_format`."""
    return zarr_format(path) is not None


def zarr_format(path: str | Node) -> Literal[2, 3] | None:
    """The version of a Zarr store, group or array; None: it is none.

    Across the network, where each look is a request, a store is called `.zarr`.

    Raises:
        CitycoverError: an object store does not say.
    """
    where = undated(str(path))  # what may not be looked at is none
    place = address_of(where) if "://" in where else zipped(where)
    if place is not None:
        asked = isinstance(place, ZippedPath) or ".zarr" in place.key
        there = (name for name in _METADATA if asked and (place / name).is_file())
    else:
        names = _METADATA if os.path.isdir(where) else ()  # noqa: PTH112 - likewise
        there = (name for name in names if os.path.isfile(f"{where}/{name}"))  # noqa: PTH113 - likewise
    found = next(there, None)
    return None if found is None else 3 if found == "zarr.json" else 2


def files_below(folder: str | Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Name below the folder and state of each file in it at any depth, in order; links to folders are none.

    A file that vanishes meanwhile is left out. There may be a hundred thousand, asked for again and again.
    """
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(entry.path, f"{prefix}{entry.name}/")
        else:
            with contextlib.suppress(OSError):
                yield f"{prefix}{entry.name}", entry.stat()


def groups_above(path: str | Node) -> Iterator[Node]:
    """Those that a group or an array lies in, the nearest first, up to the store."""
    place = folder_of(path)
    while not place.name.endswith(_STORES) and is_zarr(place.parent):
        place = place.parent
        yield place


def root_of(path: str | Node) -> Node:
    """The store that a group or an array lies in."""
    return [folder_of(path), *groups_above(path)][-1]


def _content(path: Node) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def chunks_in(path: Node) -> dict[str, int]:
    """How many files with pixels or coordinates lie in a store, and their bytes."""
    if isinstance(path, Path):
        files = (file for file in path.rglob("*") if "c" in file.relative_to(path).parts[:-1])
        sizes = [file.stat().st_size for file in files if file.is_file()]
    else:
        sizes = [there.size for name, there in path.below().items() if "c" in name.split("/")[:-1]]
    return {"files": len(sizes), "bytes": sum(sizes)}


def refuse_partial(path: Node, *, counted: bool = True) -> None:
    """Refuse a store that is not as it was written: for readers, a chunk that is lost is one without a value.

    Args:
        path: of its root.
        counted: it is one of citycover; else it may be anybody's, who did not count its chunks.

    Raises:
        SceneError: its root cannot be read, or chunks are lost or cut; stores of before 0.2 do not say.
    """
    if not counted and STORED.encode() not in _content(path / "zarr.json"):
        return
    what = "copy it again, or remove it: the COGs beside it hold the same; or map again"
    try:
        stored = parse_json((path / "zarr.json").read_text(encoding="utf-8"))["attributes"].get(STORED)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise SceneError(f"{path} has no zarr.json that can be read; {what}") from None
    if isinstance(path, RemotePath) and not path.listed:
        return  # what lies there cannot be counted; what is lost is a hole
    if stored is not None and (found := chunks_in(path)) != stored:
        written = f"{stored.get('files')} of {stored.get('bytes')}" if isinstance(stored, dict) else "others"
        raise SceneError(
            f"{path} holds {found['files']} chunks of {found['bytes']} bytes, and was written with "
            f"{written}; {what}"
        )
