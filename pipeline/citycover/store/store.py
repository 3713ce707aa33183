"""The working store: what a run has finished so far, as Zarr v3 shards with a ledger beside them.

    <out>/.work/identity.json          what the run is: format, layout, arrays, hashes of plan, card, scene
    <out>/.work/store.zarr/<array>/    one shard a block and array; any Zarr v3 reader opens the group
    <out>/.work/ledger/<row>_<col>.json   one small file a finished block

Strategy: a block belongs to one worker, a shard to one block, so workers never meet and need no locks.
Shards and ledger entries are written under temporary names, synchronised to disk and renamed, shards
first. A ledger entry, never the presence of a shard, is the proof that a block is finished: `kill -9` at
any instant, or a power cut, loses the blocks in flight and nothing else.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.errors import ProductError
from citycover.files.atomic import put_in_place, temporary_path, write_atomic
from citycover.read.reader import Hole
from citycover.store.ledger import BlockRecord
from citycover.store.shard import ArraySpec, Layout, ShardedArray, ShardWriter, array_metadata, shard_path

FORMAT = 1
"""Version of what stands in `.work`; another version is never resumed."""


class BlockWriter:
    """Takes the rows of one block as they become final; leaving the `with` block makes it finished.

    An exception inside drops the block: nothing of it can be seen later.
    """

    def __init__(self, store: WorkingStore, index: tuple[int, int], pool: Executor):
        self._store = store
        self._index = index
        self._window = store.layout.block_window(index)
        self._stack = ExitStack()
        self._writers: dict[str, ShardWriter] = {}
        self._renames: list[tuple[Path, Path]] = []
        self._crc = dict.fromkeys(store.arrays, 0)
        self._pool = pool
        self._record = BlockRecord(index, self._window.pixels)

    def write_rows(self, rows: Mapping[str, NDArray[np.uint8]]) -> None:
        """Take the next rows of some or all arrays: ([channel,] y, x), as wide as the block."""
        for name, values in rows.items():
            if name not in self._writers:
                self._open(name)
            self._writers[name].write_rows(values)
            self._crc[name] = _crc32(values, self._crc[name])

    def describe(
        self,
        seconds: Mapping[str, float] | None = None,
        holes: Iterable[Hole] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Say what the ledger shall remember of the block; call before leaving."""
        self._record = BlockRecord(
            self._index, self._window.pixels, dict(seconds or {}), tuple(holes), counts=dict(counts or {})
        )

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._stack.close()
            for temporary, _ in self._renames:
                temporary.unlink(missing_ok=True)

    def _open(self, name: str) -> None:
        spec = self._store.arrays[name]
        final = shard_path(self._store.array_path(name), spec, self._index)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(final)
        self._renames.append((temporary, final))
        file = self._stack.enter_context(temporary.open("wb"))
        self._writers[name] = ShardWriter(file, spec, self._store.layout, self._window, self._pool)

    def _commit(self) -> None:
        missing = sorted(set(self._store.arrays) - set(self._writers))
        if missing:
            raise ValueError(f"block {self._index} has no rows for the arrays {missing}")
        for writer in self._writers.values():
            writer.finish()
        self._stack.close()
        for temporary, final in self._renames:
            put_in_place(temporary, final)
        record = self._record
        self._store.add_record(
            BlockRecord(record.index, record.pixels, record.seconds, record.holes, self._crc, record.counts)
        )


class WorkingStore:
    """Finished blocks of one run; see the module for what lies where.

    Cheap to open, so every worker opens its own. Not thread-safe for writing: one writer thread a store.
    """

    def __init__(self, folder: Path, layout: Layout, arrays: Sequence[ArraySpec], threads: int = 2):
        self.folder = folder
        self.layout = layout
        self.arrays = {spec.name: spec for spec in arrays}
        self._pool = ThreadPoolExecutor(max_workers=max(threads, 1), thread_name_prefix="compress")

    @classmethod
    def create(
        cls,
        folder: Path,
        layout: Layout,
        arrays: Sequence[ArraySpec],
        identity: Mapping[str, str],
        extra: Mapping[str, Any] | None = None,
        threads: int = 2,
    ) -> WorkingStore:
        """Begin an empty store in `folder`, which exists (`WorkFolder.work`).

        Args:
            folder: where; leftovers of an earlier store must be gone.
            layout: raster, blocks and cells.
            arrays: what is stored.
            identity: named parts of what decides the pixels (plan, card, scene, ...), each a hash or text.
            extra: anything JSON that whoever opens the store wants to know.
            threads: how many threads compress.
        """
        store = cls(folder, layout, arrays, threads)
        for spec in arrays:
            path = store.array_path(spec.name)
            path.mkdir(parents=True)
            write_atomic(path / "zarr.json", json.dumps(array_metadata(spec, layout), indent=1))
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        write_atomic(folder / "store.zarr" / "zarr.json", json.dumps(group, indent=1))
        (folder / "ledger").mkdir()
        description = _describe(layout, arrays) | {"identity": dict(identity), "extra": dict(extra or {})}
        # Last, because it is what makes a folder a store.
        write_atomic(folder / "identity.json", json.dumps(description, indent=1))
        return store

    @classmethod
    def open(cls, folder: Path, threads: int = 2) -> WorkingStore:
        """Open the store in `folder`.

        Raises:
            ProductError: there is none, or another version of citycover made it.
        """
        data = _read_description(folder)
        layout = Layout(*(tuple(data["layout"][key]) for key in ("shape", "block", "cell")))
        return cls(folder, layout, [ArraySpec(**spec) for spec in data["arrays"]], threads)

    @staticmethod
    def read_extra(folder: Path, identity: Mapping[str, str]) -> Mapping[str, Any]:
        """What `create` was given as `extra`.

        Args:
            folder: of the store.
            identity: parts that must be the same as `create` was given.

        Raises:
            ProductError: there is no store, another version of citycover made it, or it belongs to another
                run; the message names the parts that differ.
        """
        found = _read_description(folder)
        _refuse_another(folder, [key for key in identity if found["identity"].get(key) != identity[key]])
        extra: Mapping[str, Any] = found["extra"]
        return extra

    @classmethod
    def resume(
        cls,
        folder: Path,
        layout: Layout,
        arrays: Sequence[ArraySpec],
        identity: Mapping[str, str],
        threads: int = 2,
    ) -> WorkingStore:
        """Open the store in `folder` if it belongs to this very run.

        Raises:
            ProductError: it belongs to another one; the message names the parts that differ.
        """
        found = _read_description(folder)
        wanted = json.loads(json.dumps(_describe(layout, arrays)))
        before, now = found["identity"], dict(identity)
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        changed += [key for key in ("layout", "arrays") if found[key] != wanted[key]]
        _refuse_another(folder, changed)
        return cls(folder, layout, arrays, threads)

    def array_path(self, name: str) -> Path:
        """Folder of one array."""
        return self.folder / "store.zarr" / name

    def array(self, name: str) -> ShardedArray:
        """Reader of one array: windows, or the compressed cells as they are."""
        return ShardedArray(self.array_path(name), self.arrays[name], self.layout)

    def block(self, index: tuple[int, int]) -> BlockWriter:
        """Write a block row by row, as a context manager; other blocks are not touched."""
        return BlockWriter(self, index, self._pool)

    def write_block(
        self,
        index: tuple[int, int],
        arrays: Mapping[str, NDArray[np.uint8]],
        seconds: Mapping[str, float] | None = None,
        holes: Iterable[Hole] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Write a whole block at once; edge blocks are as small as `layout.block_window` says."""
        with self.block(index) as writer:
            writer.write_rows(arrays)
            writer.describe(seconds, holes, counts)

    def add_record(self, record: BlockRecord) -> None:
        """Enter a block into the ledger; its shards are on disk already."""
        name = f"{record.index[0]}_{record.index[1]}.json"
        write_atomic(self.folder / "ledger" / name, record.to_json())

    def finished(self) -> dict[tuple[int, int], BlockRecord]:
        """Finished blocks by (row, column); files that are no whole entry count as nothing."""
        records = {}
        for path in sorted((self.folder / "ledger").glob("*.json")):
            try:
                record = BlockRecord.from_json(path.read_text(encoding="utf-8"))
            except (ValueError, KeyError, TypeError):
                continue
            if path.stem == f"{record.index[0]}_{record.index[1]}":
                records[record.index] = record
        return records

    def close(self) -> None:
        """End the compressing threads."""
        self._pool.shutdown()

    def __enter__(self) -> WorkingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _crc32(values: NDArray[np.uint8], crc: int) -> int:
    """Continue a CRC over rows: plane by plane of each row, so that it does not depend on the cuts."""
    planes = values[None] if values.ndim == 2 else values
    return zlib.crc32(np.ascontiguousarray(planes.transpose(1, 0, 2)).data, crc)


def _describe(layout: Layout, arrays: Sequence[ArraySpec]) -> dict[str, Any]:
    return {"format": FORMAT, "layout": asdict(layout), "arrays": [asdict(spec) for spec in arrays]}


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / "identity.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        version = data["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ProductError(
            f"{folder.parent} holds no run that could be resumed ({path.name} is missing or not readable); "
            "give --restart to begin anew, or choose another --out"
        ) from None
    if version != FORMAT:
        raise ProductError(
            f"{folder.parent} holds an unfinished run of format {version}, this citycover writes {FORMAT}; "
            "finish it with the version that began it, or give --restart to begin anew"
        )
    assert isinstance(data, dict)
    return data


def _refuse_another(folder: Path, changed: Sequence[str]) -> None:
    """Raise where parts of the identity differ."""
    if changed:
        raise ProductError(
            f"{folder.parent} holds an unfinished run that differs from this one in: {', '.join(changed)}; "
            "a resumed run must be the same; give the same input and options, or --restart to drop what "
            "is there, or choose another --out"
        )
