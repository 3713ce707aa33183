"""The ledger: a small file for each finished block, with its statistics and the seals of its shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from citycover.files.atomic import sync_folder, write_atomic
from citycover.files.plain import parse_json
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


@dataclass(frozen=True, slots=True)
class Ledger:
    """The folder of entries; a file that is no whole entry of a block of the layout counts as nothing."""

    folder: Path
    layout: Layout
    shards: frozenset[str]
    """What an entry must have seals of."""
    planes: Mapping[str, int]
    """Of how many channels an entry must have statistics, by array."""

    def path(self, index: tuple[int, int]) -> Path:
        """The entry of a block (row, column)."""
        return self.folder / f"{index[0]}_{index[1]}.json"

    def add(self, record: BlockRecord) -> None:
        """Enter a block, once its shards are on the disk."""
        write_atomic(self.path(record.index), record.to_json())

    def read(self, among: Iterable[tuple[int, int]] | None = None) -> dict[tuple[int, int], BlockRecord]:
        """Entries, all or those of some blocks, by (row, column)."""
        records = {}
        # Half written ones begin with a dot.
        paths = sorted(self.folder.glob("[0-9]*.json")) if among is None else map(self.path, among)
        for path in paths:
            try:
                record = BlockRecord.from_json(path.read_text(encoding="utf-8"))
                pixels = self.layout.block_window(record.index).pixels
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError):
                continue
            except (FileNotFoundError, IsADirectoryError):
                continue
            known = (self.path(record.index), pixels, self.shards, self.planes)
            planes = {name: len(channels) for name, channels in record.statistics.items()}
            if (path, record.pixels, frozenset(record.shards), planes) == known:
                records[record.index] = record
        return records

    def strike(self, indices: Iterable[tuple[int, int]]) -> None:
        """Take blocks out again."""
        struck = [self.path(index) for index in indices]
        for path in struck:
            path.unlink(missing_ok=True)
        if struck:
            sync_folder(self.folder)


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
