"""The ledger: a small file for each finished block, with the seals of its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from citycover.geometry.window import Window
from citycover.read.reader import Hole
from citycover.store.shard import ShardSeal


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
    """By array; a block is finished only as long as its shards are those."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Whatever else adds up over blocks: windows run, windows skipped, ..."""

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
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> BlockRecord:
        """Read an entry back.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: the text is not an entry.
        """
        data = json.loads(text)
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
        )


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
