"""The ledger: a small object for each finished block, with its statistics and the seals of its shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from citycover.files.plain import parse_json
from citycover.files.store import Store, each, put_text
from citycover.geometry.window import Window
from citycover.read.reader import Hole
from citycover.store.shard import Layout, ShardSeal
from citycover.store.statistics import Statistics


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """Ledger entry: what is known of a finished block."""

    index: tuple[int, int]
    """(row, column) of the block."""
    pixels: int
    """Pixels of output."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage."""
    holes: tuple[Hole, ...] = ()
    """What could not be read; pixels of the scene, not of the block."""
    shards: Mapping[str, ShardSeal] = field(default_factory=dict)
    """By path below the store; a block is finished only as long as its shards are those."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Whatever else adds up over blocks: windows run, windows skipped, ..."""
    statistics: Mapping[str, tuple[Statistics, ...]] = field(default_factory=dict)
    """Of each channel, by array."""

    def to_json(self) -> str:
        """The entry as text."""
        return json.dumps(
            {
                "index": self.index,
                "pixels": self.pixels,
                "seconds": dict(self.seconds),
                "holes": [hole_facts(hole) for hole in self.holes],
                "shards": {name: asdict(seal) for name, seal in self.shards.items()},
                "counts": dict(self.counts),
                "statistics": {
                    name: [one.facts() for one in channels] for name, channels in self.statistics.items()
                },
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> BlockRecord:
        """Read an entry back.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: the text is not an entry.
        """
        data = parse_json(text)
        row, col = data["index"]
        return cls(
            index=(int(row), int(col)),
            pixels=int(data["pixels"]),
            seconds={str(name): float(value) for name, value in data["seconds"].items()},
            holes=tuple(hole_of(hole) for hole in data["holes"]),
            shards={
                str(name): ShardSeal(int(seal["size"]), int(seal["crc32"]))
                for name, seal in data["shards"].items()
            },
            counts={str(name): int(value) for name, value in data["counts"].items()},
            statistics={
                str(name): tuple(map(Statistics.of, channels))
                for name, channels in data["statistics"].items()
            },
        )


Records = dict[tuple[int, int], BlockRecord]
"""Entries by (row, column) of their blocks."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The entries of a store; an object that is no whole entry of a block of the layout counts as nothing."""

    store: Store
    name: str
    """What keys of entries begin with."""
    layout: Layout
    shards: frozenset[str]
    """What an entry must have seals of."""
    planes: Mapping[str, int]
    """Of how many channels an entry must have statistics, by array."""

    def key(self, index: tuple[int, int]) -> str:
        """The entry of a block (row, column)."""
        return f"{self.name}/{index[0]}_{index[1]}.json"

    def add(self, record: BlockRecord) -> None:
        """Enter a block, once its shards are safe.

        Where two workers computed it the last one counts, whose shards are those that lie there.
        """
        put_text(self.store, self.key(record.index), record.to_json())

    def read(self, among: Iterable[tuple[int, int]] | None = None) -> Records:
        """Entries, all or those of some blocks."""
        keys = self.store.list(f"{self.name}/") if among is None else map(self.key, among)
        records = each(self.store, self._read, [key for key in keys if key.endswith(".json")])
        return {record.index: record for record in records if record is not None}

    def _read(self, key: str) -> BlockRecord | None:
        try:
            record = BlockRecord.from_json(self.store.get(key).decode())
            pixels = self.layout.block_window(record.index).pixels
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
            return None
        except FileNotFoundError:
            return None
        known = (self.key(record.index), pixels, self.shards, self.planes)
        planes = {name: len(channels) for name, channels in record.statistics.items()}
        return record if (key, record.pixels, frozenset(record.shards), planes) == known else None

    def strike(self, indices: Iterable[tuple[int, int]]) -> None:
        """Take blocks out again."""
        self.store.delete(*map(self.key, indices))


def hole_facts(hole: Hole) -> dict[str, Any]:
    """A hole as plain values."""
    return {**asdict(hole.window), "path": hole.path, "reason": hole.reason}


def hole_of(facts: Mapping[str, Any]) -> Hole:
    """The hole of plain values.

    Raises:
        ValueError, KeyError, TypeError: they are none.
    """
    window = Window(*(int(facts[name]) for name in ("row", "col", "height", "width")))
    return Hole(window, str(facts["path"]), str(facts["reason"]))
