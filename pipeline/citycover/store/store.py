"""The working store: what a run has finished so far, as Zarr v3 shards with a ledger beside them.

    identity.json          what the run is: format, layout, arrays, hashes of plan, card, scene
    store.zarr/<array>/    one shard a block and array; any Zarr v3 reader opens the group
    store.zarr/1/<array>/, 2, ...    overviews, likewise: as many as `levels` makes of a block
    ledger/<row>_<col>.json   one small object a finished block

They lie in `<out>/.work`, or wherever else there are five verbs (`files/store.py`).

Strategy: a block belongs to one worker, a shard to one block, so workers never meet and need no locks.
Shards and ledger entries are there wholly or not at all, shards first. A ledger entry, never the presence
of a shard, is the proof that a block is finished: `kill -9` at any instant, or a power cut, loses the blocks
in flight and nothing else. The entry holds the seals of the shards (size and CRC): a shard that was damaged
or lost since makes its block an unfinished one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citycover.errors import HeldError, MachineError, ProductError
from citycover.files.plain import parse_json
from citycover.files.store import Store, each, put_text
from citycover.read.reader import Hole
from citycover.store.ledger import BlockRecord, Ledger, Records
from citycover.store.levels import StoredRaster, block_levels, block_statistics, halve_block
from citycover.store.names import LEDGER, SIGN, ZARR
from citycover.store.shard import (
    ArraySpec,
    Layout,
    ShardedArray,
    ShardSeal,
    array_metadata,
    shard_key,
    write_shard,
)
from citycover.store.statistics import Statistics

FORMAT = 3
"""Version of what stands in `.work`; another version is never resumed."""

_WRITERS = 4
"""Arrays of a block that are written at once, at most."""

_LAYOUT = ("shape", "block", "cell")


class WorkingStore:
    """Finished blocks of one run; see the module for what lies where.

    Cheap to open, so every worker opens its own. Not thread-safe for writing: one writer thread a store.
    """

    def __init__(
        self,
        place: Store,
        layout: Layout,
        arrays: Sequence[ArraySpec],
        threads: int = 2,
        ledger: str = LEDGER,
    ):
        self.place = place
        self.layout = layout
        self.arrays = {spec.name: spec for spec in arrays}
        self.levels = block_levels(layout)
        shards = {_path_of(name, level) for name in self.arrays for level in range(len(self.levels))}
        planes = {spec.name: spec.planes for spec in arrays}
        self.ledger = Ledger(place, ledger, layout, frozenset(shards), planes)
        self._threads = max(threads, 1)
        self._pool = ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="compress")
        self._writers = ThreadPoolExecutor(min(self._threads, _WRITERS), thread_name_prefix="shards")

    @classmethod
    def create(
        cls,
        place: Store,
        layout: Layout,
        arrays: Sequence[ArraySpec],
        identity: Mapping[str, str],
        extra: Mapping[str, Any] | None = None,
        threads: int = 2,
        ledger: str = LEDGER,
    ) -> WorkingStore:
        """Begin an empty store.

        Args:
            place: where; leftovers of an earlier store must be gone.
            layout: raster, blocks and cells.
            arrays: what is stored.
            identity: named parts of what decides the pixels (plan, card, scene, ...), each a hash or text.
            extra: anything JSON that whoever opens the store wants to know.
            threads: how many threads compress, and as many write, four at most.
            ledger: name of the ledger.

        Raises:
            HeldError: another run has begun one there meanwhile.
        """
        store = cls(place, layout, arrays, threads, ledger)
        _put_metadata(store)
        told = {"identity": dict(identity), "extra": dict(extra or {}), "ledger": ledger}
        description = _describe(layout, arrays) | told
        # Last, because it is what makes a store of it.
        if not place.put_new(SIGN, json.dumps(description, indent=1).encode()):
            raise HeldError(f"another run has begun in {place}; wait for it, or choose another --out")
        return store

    @classmethod
    def open(cls, place: Store, threads: int = 2) -> WorkingStore:
        """Open the store that lies there.

        Raises:
            ProductError: there is none, or another version of citycover made it.
        """
        data = _read_description(place)
        return cls(place, _layout_of(data), _arrays_of(data), threads, str(data.get("ledger", LEDGER)))

    @staticmethod
    def read_extra(place: Store, identity: Mapping[str, str]) -> Mapping[str, Any]:
        """What `create` was given as `extra`.

        Args:
            place: of the store.
            identity: parts that must be the same as `create` was given.

        Raises:
            ProductError: there is no store, another version of citycover made it, or it belongs to another
                run; the message names the parts that differ.
        """
        found = _read_description(place)
        _refuse_another(place, [key for key in identity if found["identity"].get(key) != identity[key]])
        extra: Mapping[str, Any] = found["extra"]
        return extra

    @classmethod
    def resume(
        cls,
        place: Store,
        layout: Layout,
        arrays: Sequence[ArraySpec],
        identity: Mapping[str, str],
        threads: int = 2,
    ) -> WorkingStore:
        """Open the store that lies there if it belongs to this very run.

        Raises:
            ProductError: it belongs to another one; the message names the parts that differ.
        """
        found = _read_description(place)
        wanted = json.loads(json.dumps(_describe(layout, arrays)))
        before, now = found["identity"], dict(identity)
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        changed += [key for key in ("layout", "arrays") if found[key] != wanted[key]]
        _refuse_another(place, changed)
        return cls(place, layout, arrays, threads, str(found.get("ledger", LEDGER)))

    def array_key(self, name: str, level: int = 0) -> str:
        """What the keys of one array, or of an overview of it, begin with."""
        return f"{ZARR}/{_path_of(name, level)}"

    def array(self, name: str, channel: int = 0, level: int = 0) -> ShardedArray:
        """Reader of one channel of an array: windows, or the compressed cells as they are."""
        key = self.array_key(name, level)
        return ShardedArray(self.place, key, self.arrays[name], self.levels[level], channel)

    def raster(self, name: str, channel: int, blocks: Iterable[BlockRecord]) -> StoredRaster:
        """One channel of an array with its overviews, and its statistics over blocks."""
        levels = tuple(self.array(name, channel, level) for level in range(len(self.levels)))
        return StoredRaster(levels, sum((b.statistics[name][channel] for b in blocks), Statistics()))

    def write_block(
        self,
        index: tuple[int, int],
        arrays: Mapping[str, NDArray[np.uint8]],
        seconds: Mapping[str, float] | None = None,
        holes: Iterable[Hole] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Write a whole block: its shards first, then its entry in the ledger.

        Args:
            index: (row, column) of the block.
            arrays: ([channel,] y, x) of every array; edge blocks are as small as `layout.block_window` says.
            seconds: time by stage, for the ledger.
            holes: what could not be read, for the ledger.
            counts: what adds up over blocks, for the ledger.

        Raises:
            ValueError: arrays, shapes or types are not those of the store; nothing was written.
        """
        window = self.layout.block_window(index)
        _check_arrays(
            index, arrays, {n: a.shape((window.height, window.width)) for n, a in self.arrays.items()}
        )
        statistics, seals = _write_arrays(self, index, arrays, self._writers, self._pool)
        told = dict(seconds or {}), tuple(holes), seals, dict(counts or {}), statistics
        self.ledger.add(BlockRecord(index, window.pixels, *told))

    def finished(self, among: Iterable[tuple[int, int]] | None = None) -> Records:
        """Finished blocks, all or those among some, by (row, column).

        Shards are not looked at: see `drop_damaged`.
        """
        return self.ledger.read(among)

    def drop_damaged(self) -> tuple[Records, tuple[tuple[int, int], ...]]:
        """Strike blocks from the ledger whose shards are not those that were written; reads all of them.

        Returns:
            The blocks that are finished, and (row, column) of those that are it no more.
        """
        records = self.finished()
        whole = each(self.place, partial(_is_whole, self), list(records.values()), self._threads)
        damaged = tuple(index for index, good in zip(records, whole, strict=True) if not good)
        self.ledger.strike(damaged)
        return {index: record for index, record in records.items() if index not in damaged}, damaged

    def close(self) -> None:
        """End the threads that compress and write."""
        self._writers.shutdown()
        self._pool.shutdown()

    def __enter__(self) -> WorkingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _put_metadata(store: WorkingStore) -> None:
    """What makes Zarr groups and arrays of the shards."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    for level, layout in enumerate(store.levels):
        for spec in store.arrays.values():
            text = json.dumps(array_metadata(spec, layout), indent=1)
            put_text(store.place, f"{store.array_key(spec.name, level)}/zarr.json", text)
        put_text(store.place, f"{ZARR}/{_path_of('zarr.json', level)}", json.dumps(group, indent=1))


def _path_of(name: str, level: int) -> str:
    """Where an array or an overview of it lies below the store."""
    return f"{level}/{name}" if level else name


def _write_arrays(
    store: WorkingStore,
    index: tuple[int, int],
    arrays: Mapping[str, NDArray[np.uint8]],
    writers: Executor,
    pool: Executor,
) -> tuple[dict[str, tuple[Statistics, ...]], dict[str, ShardSeal]]:
    """Statistics and shards of a block: while those of one array go to the disk, another's are compressed."""
    levels = {
        name: writers.submit(lambda *given: dict(_write_levels(*given)), store, name, index, values, pool)
        for name, values in arrays.items()
    }
    try:
        statistics = {
            name: block_statistics(values, store.arrays[name], pool) for name, values in arrays.items()
        }
    finally:
        wait(levels.values())  # where one fails, too: none is at work any more
    return statistics, {key: seal for written in levels.values() for key, seal in written.result().items()}


def _write_levels(
    store: WorkingStore, name: str, index: tuple[int, int], values: NDArray[np.uint8], pool: Executor
) -> Iterator[tuple[str, ShardSeal]]:
    """One array of a block and its overviews, each shard wholly or not at all."""
    spec = store.arrays[name]
    for level, layout in enumerate(store.levels):
        if level:
            values = halve_block(values, spec, pool)
        key = shard_key(store.array_key(name, level), spec, index)
        write = partial(write_shard, values=values, spec=spec, layout=layout, pool=pool)
        yield _path_of(name, level), store.place.put(key, write)


def _is_whole(store: WorkingStore, record: BlockRecord) -> bool:
    return all(
        ShardSeal.of(store.place, shard_key(store.array_key(name, level), spec, record.index))
        == record.shards[_path_of(name, level)]
        for name, spec in store.arrays.items()
        for level in range(len(store.levels))
    )


def whole_blocks(store: WorkingStore) -> tuple[BlockRecord, ...]:
    """What the ledger says of every block: all are finished, and their shards are those that were written.

    Raises:
        MachineError: some are not; the damaged are struck from the ledger.
    """
    records, damaged = store.drop_damaged()
    wanted = store.layout.blocks[0] * store.layout.blocks[1]
    if missing := wanted - len(records):
        named = f" ({damaged[0]} among them)" if damaged else ""
        raise MachineError(
            f"{missing} of {wanted} blocks in {store.place} were damaged or lost{named}; "
            "nothing was published; look at what they lie on, and run the same command again: they are "
            "computed anew"
        )
    return tuple(records.values())


def _check_arrays(
    index: tuple[int, int], arrays: Mapping[str, NDArray[np.uint8]], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    found = {name: (values.dtype, values.shape) for name, values in arrays.items()}
    wanted = {name: (np.dtype(np.uint8), shape) for name, shape in shapes.items()}
    if found != wanted:
        raise ValueError(f"block {index} takes {wanted}, got {found}")


def _describe(layout: Layout, arrays: Sequence[ArraySpec]) -> dict[str, Any]:
    return {"format": FORMAT, "layout": asdict(layout), "arrays": [asdict(spec) for spec in arrays]}


def _read_description(place: Store) -> dict[str, Any]:
    try:
        data = parse_json(place.get(SIGN).decode())
        version = data["format"]
        if version == FORMAT:
            _ = _layout_of(data), _arrays_of(data), data["identity"].keys(), data["extra"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise ProductError(
            f"{place} holds no run that could be resumed ({SIGN} is missing or not readable); "
            "give --restart to begin anew, or choose another --out"
        ) from None
    if version != FORMAT:
        raise ProductError(
            f"{place} holds an unfinished run of format {version}, this citycover writes {FORMAT}; "
            "finish it with the version that began it, or give --restart to begin anew"
        )
    assert isinstance(data, dict)
    return data


def _layout_of(data: Mapping[str, Any]) -> Layout:
    return Layout(*((int(height), int(width)) for height, width in map(data["layout"].get, _LAYOUT)))


def _arrays_of(data: Mapping[str, Any]) -> list[ArraySpec]:
    return [
        ArraySpec(
            str(one["name"]),
            int(one["fill"]),
            int(one["channels"]),
            one["overviews"],
            tuple(map(int, one["ids"])),
        )
        for one in data["arrays"]
    ]


def _refuse_another(place: Store, changed: Sequence[str]) -> None:
    """Raise where parts of the identity differ."""
    if changed:
        raise ProductError(
            f"{place} holds an unfinished run that differs from this one in: {', '.join(changed)}; "
            "a resumed run must be the same; give the same input and options, or --restart to drop what "
            "is there, or choose another --out"
        )
