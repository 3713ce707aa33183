"""Patches decoded once into Zarr shards: twelve small files a patch are slow to open, again and again.

    store/shards.json               says that the folder is a store
    store/.lock                     held by who decodes
    store/Austria/bands-1, bands-2  parts: Zarr groups with the arrays b10, b20, b60
    store/Austria/codes-1           the same of reference maps, with the array codes

A chunk is one patch, so that any order can be read, and a shard some hundreds. `names.json` of a part, its
patches with the marks of the files that they were decoded from, is written last: a part without it was not
finished, and is removed. A part that was is never written to again, so that those who read it need not be
asked: patches that are new, or whose files are not what they were, go into another part.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from citycover.errors import ConfigError, HeldError, StoppedError
from citycover.files.atomic import make_folder, passing_names, sync_folder, sync_tree, write_atomic
from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock
from citycover.files.plain import parse_json
from citycover_models.data.patch_marks import Marks
from citycover_models.data.patches import GROUPS, SIDES, Groups, Patch

logger = logging.getLogger(__name__)

_SHARD = 256
"""Patches of a shard: 45 MB of pixels, before compression."""

_PART = 64 * _SHARD
"""Patches of a part at most: what a kill costs."""

_NAMES = "names.json"

_SIGN = "shards.json"

_LOCK = ".lock"

_AGAIN = 1.0
"""Seconds after which a store that another training writes into is asked for again."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is decoded of a patch, and kept in parts of its own."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    """Of a patch in each array."""
    read: Callable[[Patch], tuple[NDArray[np.uint16], ...]]
    """What goes into each array."""


_BANDS = _Kind(
    "bands",
    {
        name: (len(bands), side, side)
        for name, bands, side in zip(("b10", "b20", "b60"), GROUPS, SIDES, strict=True)
    },
    Patch.read,
)

_CODES = _Kind("codes", {"codes": (SIDES[0],) * 2}, lambda patch: (patch.read_codes(),))


Places = Mapping[str, tuple[Path, int]]
"""Part and row there, by the name of a patch."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Where patches lie in a store."""

    bands: Places
    codes: Places
    """Of the reference maps; empty: none were asked for."""


class PatchReader:
    """Reads patches, from their files or from shards; opens nothing before the first read.

    Args:
        patches: by their numbers.
        shards: that hold them, see `write_shards`; None: read the patches' own files.
    """

    def __init__(self, patches: Sequence[Patch], shards: Shards | None = None) -> None:
        self._patches = tuple(patches)
        self._bands = _Rows(_BANDS, patches, shards.bands) if shards else None
        self._codes = _Rows(_CODES, patches, shards.codes) if shards and shards.codes else None

    def read(self, number: int) -> Groups:
        """Pixels of a patch."""
        if self._bands is None:
            return self._patches[number].read()
        b10, b20, b60 = self._bands.read(number)
        return b10, b20, b60

    def read_codes(self, number: int) -> NDArray[np.uint16]:
        """(y, x) CORINE codes of a patch's reference map."""
        if self._codes is None:
            return self._patches[number].read_codes()
        (codes,) = self._codes.read(number)
        return codes


class _Rows:
    """What is kept of patches, by their numbers; small enough to go to every process that reads."""

    def __init__(self, kind: _Kind, patches: Sequence[Patch], places: Places) -> None:
        self._names = tuple(kind.shapes)
        found = [places[patch.name] for patch in patches]
        self._parts = tuple({part: None for part, _ in found})
        numbers = {part: number for number, part in enumerate(self._parts)}
        self._places = np.array([(numbers[part], row) for part, row in found], np.int32)  # (patch, 2)
        self._open: dict[int, Any] = {}

    def read(self, number: int) -> list[NDArray[np.uint16]]:
        """A patch, from every array."""
        part, row = self._places[number].tolist()
        if part not in self._open:
            self._open[part] = zarr.open_group(self._parts[part], mode="r")
        return [np.asarray(self._open[part][name][row]) for name in self._names]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def write_shards(
    patches: Sequence[Patch], store: Path, marks: Marks, stop: threading.Event | None = None
) -> Shards:
    """Decode into a store what it does not hold of patches as their files are; say where each lies.

    A store that holds all is only read. Else waits while another training decodes into it.

    Args:
        patches: of different names.
        store: made if it is missing.
        marks: of their files, see `mark_patches`; reference maps are decoded where they have marks.
        stop: ends waiting and decoding; finished parts stay.

    Raises:
        ConfigError: a patch cannot be used, or the store is something else.
        MachineError: the store cannot be written.
        StoppedError: `stop` was set.
    """
    stop = stop or threading.Event()
    wanted = [(_BANDS, marks.bands), *([(_CODES, marks.codes)] if marks.codes else [])]
    with machine_errors(store):
        _check_store(store)
        found = [_found(kind, patches, own, store) for kind, own in wanted]
        if any(len(places) < len(patches) for places in found):
            make_folder(store)
            with _held(store, stop):
                write_atomic(store / _SIGN, json.dumps({"format": 2}))
                found = [_decoded(kind, patches, own, store, stop) for kind, own in wanted]
    return Shards(found[0], found[1] if marks.codes else {})


# --- the store -------------------------------------------------------------------------------------------


def _check_store(store: Path) -> None:
    """Refuse what is no store of ours, before anything is written into it."""
    there = [path.name for path in store.iterdir()] if store.is_dir() else []
    passing = [name for name in there if name == _LOCK or fnmatch.fnmatch(name, passing_names(_SIGN))]
    if (store.exists() and not store.is_dir()) or (set(there) - {*passing} and _SIGN not in there):
        if there and all((store / name / "zarr.json").is_file() for name in there):
            raise ConfigError(
                f"--shards {store} is of an earlier version, which did not write down what files its patches "
                "were made of; remove it, or give a new folder"
            )
        raise ConfigError(f"--shards {store} holds other content; give a new folder")


@contextmanager
def _held(store: Path, stop: threading.Event) -> Iterator[None]:
    """Hold a store alone; wait for who holds it."""
    lock, told = RunLock(store / _LOCK), False
    while True:
        try:
            lock.acquire()
            break
        except HeldError:
            if not told:
                process, host = lock.holder or ("another", "this host")
                logger.warning("waiting for process %s on %s, which decodes into %s", process, host, store)
            told = True
            if stop.wait(_AGAIN):
                raise StoppedError from None
    try:
        yield
    finally:
        lock.release()


def _found(
    kind: _Kind, patches: Sequence[Patch], marks: Mapping[str, str], store: Path
) -> dict[str, tuple[Path, int]]:
    """Where patches lie that a store holds."""
    places: dict[str, tuple[Path, int]] = {}
    for region, own in _by_region(patches).items():
        there = _there(kind, store / _folder_of(region))
        keys = ((patch.name, marks[patch.name]) for patch in own)
        places.update((key[0], there[key]) for key in keys if key in there)
    return places


def _decoded(
    kind: _Kind, patches: Sequence[Patch], marks: Mapping[str, str], store: Path, stop: threading.Event
) -> dict[str, tuple[Path, int]]:
    """Where patches lie, after those that were missing are decoded; the store is held."""
    for region, own in _by_region(patches).items():
        folder = store / _folder_of(region)
        for part in _parts(kind, folder):
            if _rows_of(kind, part) is None:
                shutil.rmtree(part)  # of a kill: who wrote it is gone
        there, named = _there(kind, folder), region or "all regions"
        missing = [patch for patch in own if (patch.name, marks[patch.name]) not in there]
        names = {name for name, _ in there}
        if changed := sum(patch.name in names for patch in missing):
            logger.warning(
                "files of %d patch(es) of %s are not those that were decoded into %s: they are decoded anew",
                changed, named, folder,
            )  # fmt: skip
        last = max((_number(part) for part in _parts(kind, folder)), default=0)
        for number, first in enumerate(range(0, len(missing), _PART), start=last + 1):
            part, some = folder / f"{kind.name}-{number}", missing[first : first + _PART]
            logger.info("decoding %d patches of %s into %s", len(some), named, part)
            _write_part(kind, some, marks, part, stop)
    return _found(kind, patches, marks, store)


def _by_region(patches: Sequence[Patch]) -> dict[str, list[Patch]]:
    regions: dict[str, list[Patch]] = {}
    for patch in patches:
        regions.setdefault(patch.region, []).append(patch)
    return regions


def _folder_of(region: str) -> str:
    return re.sub(r"[/\\\0]|^\.", "-", region) or "all"


# --- parts -----------------------------------------------------------------------------------------------


def _parts(kind: _Kind, folder: Path) -> list[Path]:
    """Ascending by number, finished or not."""
    there = folder.glob(f"{kind.name}-*")
    return sorted((part for part in there if part.name[len(kind.name) + 1 :].isdecimal()), key=_number)


def _number(part: Path) -> int:
    return int(part.name.rpartition("-")[2])


def _there(kind: _Kind, folder: Path) -> dict[tuple[str, str], tuple[Path, int]]:
    """Part and row of what the finished parts hold, by name and mark."""
    rows = {part: _rows_of(kind, part) or [] for part in _parts(kind, folder)}
    return {key: (part, row) for part, own in rows.items() for row, key in enumerate(own)}


def _rows_of(kind: _Kind, part: Path) -> list[tuple[str, str]] | None:
    """Names and marks of a part, in its order; None: it is not finished, or has lost a shard."""
    try:
        rows = [(name, mark) for name, mark in parse_json((part / _NAMES).read_text(encoding="utf-8"))]
        shards = {sum(1 for _ in (part / name / "c").iterdir()) for name in kind.shapes}
    except (OSError, ValueError, TypeError):
        return None
    plain = all(isinstance(name, str) and isinstance(mark, str) for name, mark in rows)
    return rows if plain and rows and shards == {-(-len(rows) // _SHARD)} else None


def _write_part(
    kind: _Kind, patches: Sequence[Patch], marks: Mapping[str, str], part: Path, stop: threading.Event
) -> None:
    make_folder(part.parent)
    group = zarr.open_group(part, mode="w-")
    arrays = [
        group.create_array(
            name, shape=(len(patches), *shape), dtype="uint16", chunks=(1, *shape), shards=(_SHARD, *shape),
            config={"write_empty_chunks": True},  # a shard that is not there was lost
        )
        for name, shape in kind.shapes.items()
    ]  # fmt: skip
    for first in range(0, len(patches), _SHARD):
        if stop.is_set():
            raise StoppedError
        rows = [kind.read(patch) for patch in patches[first : first + _SHARD]]
        for array, column in zip(arrays, zip(*rows, strict=True), strict=True):
            array[first : first + len(rows)] = np.stack(column)
    sync_tree(part)
    sync_folder(part.parent)
    write_atomic(part / _NAMES, json.dumps([(patch.name, marks[patch.name]) for patch in patches]))
