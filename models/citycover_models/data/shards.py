"""Patches decoded once into Zarr shards: twelve small files a patch are slow to open, again and again.

A store has a group for each region, with the arrays b10, b20, b60 and, where there are reference maps, codes.
A chunk is one patch, so that any order can be read, and a shard some hundreds. `names.json` is written last:
a group without it was not finished and is made again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from citycover.errors import ConfigError
from citycover.files.atomic import sync_folder, sync_tree, write_atomic
from citycover.files.failures import machine_errors
from citycover.files.plain import parse_json
from citycover_models.data.patches import GROUPS, SIDES, Groups, Patch

logger = logging.getLogger(__name__)

_SHARD = 256
"""Patches of a shard: 45 MB of pixels, before compression."""

_NAMES = "names.json"

_ARRAYS = ("b10", "b20", "b60")


class PatchReader:
    """Reads patches, from their files or from shards; opens nothing before the first read.

    Args:
        patches: by their numbers.
        store: of shards, see `write_shards`; None: read the patches' own files.
    """

    def __init__(self, patches: Sequence[Patch], store: Path | None = None) -> None:
        self._patches, self._store = tuple(patches), store
        self._open: dict[str, tuple[Any, dict[str, int]]] = {}

    def read(self, number: int) -> Groups:
        """Pixels of a patch."""
        patch = self._patches[number]
        if self._store is None:
            return patch.read()
        group, row = self._place(patch, self._store)
        b10, b20, b60 = (np.asarray(group[name][row]) for name in _ARRAYS)
        return b10, b20, b60

    def read_codes(self, number: int) -> NDArray[np.uint16]:
        """(y, x) CORINE codes of a patch's reference map."""
        patch = self._patches[number]
        if self._store is None:
            return patch.read_codes()
        group, row = self._place(patch, self._store)
        return np.asarray(group["codes"][row])

    def _place(self, patch: Patch, store: Path) -> tuple[Any, int]:
        """The group of a patch, and its row there."""
        if patch.region not in self._open:
            folder = store / _group(patch.region)
            rows = {name: row for row, name in enumerate(_names_of(folder))}
            self._open[patch.region] = zarr.open_group(folder, mode="r"), rows
        group, rows = self._open[patch.region]
        return group, rows[patch.name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def write_shards(patches: Sequence[Patch], store: Path) -> None:
    """Decode patches into a store; regions that it holds already are left as they are.

    Raises:
        ConfigError: a patch cannot be used, or the store is something else.
        MachineError: the store cannot be written.
    """
    by_region: dict[str, list[Patch]] = {}
    for patch in patches:
        by_region.setdefault(patch.region, []).append(patch)
    with machine_errors(store):
        if store.exists() and not _is_store(store):
            raise ConfigError(f"--shards {store} holds other content; give a new folder")
        for region, own in by_region.items():
            folder = store / _group(region)
            if not {patch.name for patch in own} <= set(_names_of(folder)):
                logger.info("decoding %d patches of %s into %s", len(own), region or "all regions", folder)
                _write_group(own, folder)


def _write_group(patches: Sequence[Patch], folder: Path) -> None:
    (folder / _NAMES).unlink(missing_ok=True)
    if folder.is_dir():
        sync_folder(folder)
    maps = all(patch.reference for patch in patches)
    shapes = {
        name: (len(bands), side, side) for name, bands, side in zip(_ARRAYS, GROUPS, SIDES, strict=True)
    }
    group = zarr.open_group(folder, mode="w")
    arrays = [
        group.create_array(
            name, shape=(len(patches), *shape), dtype="uint16", chunks=(1, *shape), shards=(_SHARD, *shape)
        )
        for name, shape in (*shapes.items(), *([("codes", (SIDES[0], SIDES[0]))] if maps else []))
    ]
    for first in range(0, len(patches), _SHARD):
        rows = [
            (*patch.read(), *([patch.read_codes()] if maps else []))
            for patch in patches[first : first + _SHARD]
        ]
        for array, column in zip(arrays, zip(*rows, strict=True), strict=True):
            array[first : first + len(rows)] = np.stack(column)
    sync_tree(folder)
    write_atomic(folder / _NAMES, json.dumps([patch.name for patch in patches]))


def _group(region: str) -> str:
    return region.replace("/", "-") or "all"


def _names_of(folder: Path) -> list[str]:
    """Patches of a finished group, in its order; none of one that is not finished."""
    try:
        names = parse_json((folder / _NAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _is_store(store: Path) -> bool:
    """Whether all that lies there are groups of ours, finished or not."""
    return store.is_dir() and all((path / "zarr.json").is_file() for path in store.iterdir())
