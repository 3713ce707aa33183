"""Zarr v3 shards of uint8 pixels, written and read without zarr-python.

Strategy: a shard is a file of compressed cells (Zarr's inner chunks) in any order, followed by an index of
(offset, length) pairs and the CRC-32C of that index. That is all there is to it, so a block can be
compressed on several threads, and a worker need not import zarr. zarr-python reads the result and is the
oracle of the tests; on two cores it writes such shards at a third of the speed.

    | cell | cell | cell | ... | cell | (offset, length) x cells | crc32c |

A cell that holds nothing but the fill value is left out and marked so in the index. A shard is written even
where all of its cells are: one that is not there was lost, and is never taken for an empty one.
Source: Zarr v3 specification, sharding-indexed codec 1.0.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from citycover.errors import MachineError
from citycover.files.store import Store, pieces
from citycover.geometry.window import Window
from citycover.store.pyramid import HALVE, Resampling
from citycover.store.spread import spread_runs

_ABSENT = 2**64 - 1

_LEVEL = 1

_CODEC = Zstd(_LEVEL)


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One raster of the store, uint8."""

    name: str
    fill: int
    """Value of pixels that nobody wrote, 0..255: the nodata number."""
    channels: int = 0
    """0: the array is (y, x); otherwise (channel, y, x) with so many channels."""
    overviews: Resampling = "mode"
    """How a pixel of an overview comes from those under it."""
    ids: tuple[int, ...] = ()
    """Of the classes that are counted; empty: the numbers are a quantity."""

    @property
    def planes(self) -> int:
        """How many (y, x) rasters it is."""
        return max(self.channels, 1)

    def shape(self, pixels: tuple[int, int]) -> tuple[int, ...]:
        """Shape of the array over (y, x) pixels."""
        return (self.channels, *pixels) if self.channels else pixels

    def __post_init__(self) -> None:
        if not 0 <= self.fill <= 255 or self.channels < 0:
            raise ValueError(f"fill must be 0..255 and channels at least 0, got {self}")
        if self.overviews not in HALVE:
            raise ValueError(f"overviews are made by {', '.join(HALVE)}, got {self}")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a raster is cut: blocks (one shard each) of whole cells, both aligned to the origin."""

    shape: tuple[int, int]
    """(y, x) of the raster."""
    block: tuple[int, int]
    """(y, x) of a block; a whole number of cells."""
    cell: tuple[int, int] = (512, 512)
    """(y, x) of what is compressed as one piece; 512 x 512 lets a COG take the pieces as they are."""

    def __post_init__(self) -> None:
        if min(*self.shape, *self.block, *self.cell) < 1:
            raise ValueError(f"lengths must be at least 1, got {self}")
        if self.block[0] % self.cell[0] or self.block[1] % self.cell[1]:
            raise ValueError(f"block {self.block} is not a whole number of cells {self.cell}")

    @property
    def blocks(self) -> tuple[int, int]:
        """(rows, columns) of blocks."""
        return math.ceil(self.shape[0] / self.block[0]), math.ceil(self.shape[1] / self.block[1])

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, columns) of cells in one shard."""
        return self.block[0] // self.cell[0], self.block[1] // self.cell[1]

    @property
    def window(self) -> Window:
        """The whole raster."""
        return Window(0, 0, *self.shape)

    def block_window(self, index: tuple[int, int]) -> Window:
        """Pixels of block (row, column), cut at the raster's edge."""
        row, col = index[0] * self.block[0], index[1] * self.block[1]
        window = Window(row, col, *self.block).clip(self.window)
        if window is None or min(index) < 0:
            raise IndexError(f"there is no block {index} among {self.blocks}")
        return window


def array_metadata(spec: ArraySpec, layout: Layout) -> dict[str, Any]:
    """Content of the array's `zarr.json`."""
    lead = [spec.channels] if spec.channels else []
    inner = [
        {"name": "bytes"},
        {"name": "zstd", "configuration": {"level": _LEVEL, "checksum": False}},
    ]
    sharding = {
        "chunk_shape": [*(1 for _ in lead), *layout.cell],
        "codecs": inner,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*lead, *layout.shape],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*lead, *layout.block]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": spec.fill,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": [*("channel" for _ in lead), "y", "x"],
        "attributes": {},
        "storage_transformers": [],
    }


@dataclass(frozen=True, slots=True)
class ShardSeal:
    """By what a shard is known to be the one that was written."""

    size: int
    """Bytes."""
    crc32: int
    """Of all bytes."""

    @classmethod
    def of(cls, store: Store, key: str) -> ShardSeal | None:
        """The seal of an object; None where there is none."""
        size = crc = 0
        try:
            for piece in pieces(store, key):
                size, crc = size + len(piece), zlib.crc32(piece, crc)
        except FileNotFoundError:
            return None
        return cls(size, crc)


def shard_key(array: str, spec: ArraySpec, index: tuple[int, int]) -> str:
    """Where Zarr looks for the shard of block (row, column) of an array."""
    lead = "0/" if spec.channels else ""
    return f"{array}/c/{lead}{index[0]}/{index[1]}"


def write_shard(
    file: BinaryIO, values: NDArray[np.uint8], spec: ArraySpec, layout: Layout, pool: Executor
) -> ShardSeal:
    """Write a whole block; see the module for the layout.

    Args:
        file: empty.
        values: ([channel,] y, x) of the block; edge blocks are as small as `layout.block_window` says.
        spec: of the array.
        layout: of the array.
        pool: compresses the cells.
    """
    planes = values.reshape(-1, *values.shape[-2:])  # (plane, y, x)
    index = np.full((len(planes), *layout.cells, 2), _ABSENT, dtype="<u8")
    height, width = layout.cell

    def encode(place: tuple[int, int, int]) -> bytes | None:
        row, plane, col = place
        rows, cols = slice(row * height, (row + 1) * height), slice(col * width, (col + 1) * width)
        return _encode(planes[plane, rows, cols], spec.fill, layout.cell)

    places = list(itertools.product(range(layout.cells[0]), range(len(planes)), range(layout.cells[1])))
    offset = crc = 0
    for run, made in spread_runs(pool, encode, places):
        for (row, plane, col), data in zip(run, made, strict=True):
            if data is not None:
                index[plane, row, col] = offset, len(data)
                offset += len(data)
        # At once: this thread, for which all wait, waits for the interpreter's lock after each call.
        together = b"".join(data for data in made if data is not None)
        file.write(together)
        crc = zlib.crc32(together, crc)
    end = index.tobytes() + struct.pack("<I", google_crc32c.value(index.tobytes()))
    file.write(end)
    return ShardSeal(offset + len(end), zlib.crc32(end, crc))


def _encode(part: NDArray[np.uint8], fill: int, cell: tuple[int, int]) -> bytes | None:
    """One (y, x) cell compressed; None where it holds nothing but the fill value, or lies beyond the edge."""
    if part.size == 0 or (part[0, 0] == fill and (part == fill).all()):
        return None
    if part.shape == cell:
        whole = np.ascontiguousarray(part)
    else:
        whole = np.full(cell, fill, dtype=np.uint8)
        whole[: part.shape[0], : part.shape[1]] = part
    return bytes(_CODEC.encode(whole))


class ShardedArray:
    """Reads windows of one array of the store, or of one channel of it. Safe to use from several threads."""

    def __init__(self, store: Store, array: str, spec: ArraySpec, layout: Layout, channel: int = 0):
        self._store = store
        self._array = array
        self._spec = spec
        self._layout = layout
        self._channel = channel
        self._indexes: dict[tuple[int, int], NDArray[np.uint64]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self._layout.shape

    @property
    def nodata(self) -> int:
        """Value of pixels that nobody wrote."""
        return self._spec.fill

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(y, x) pixels of a window that lies inside the raster."""
        out = np.full((window.height, window.width), self._spec.fill, dtype=np.uint8)
        height, width = self.cell
        first, end = window.col // width, -(-window.col_end // width)
        for row in range(window.row // height, -(-window.row_end // height)):
            for col, frame in enumerate(self.frames(row, first, end), first):
                if frame is None:
                    continue
                pixels = np.frombuffer(_CODEC.decode(frame), dtype=np.uint8).reshape(self.cell)
                cell = Window(row * height, col * width, height, width)
                part = cell.clip(window)
                assert part is not None
                own = part.shift(-cell.row, -cell.col)
                out[part.shift(-window.row, -window.col).slices] = pixels[own.slices]
        return out

    @property
    def cell(self) -> tuple[int, int]:
        """(y, x) pixels of what is compressed as one zstd frame."""
        return self._layout.cell

    def lengths(self) -> NDArray[np.uint32]:
        """(y, x) bytes of each cell's frame; 0 where it holds nothing but nodata."""
        tall, wide = self._layout.cells
        rows, cols = (math.ceil(n / side) for n, side in zip(self.shape, self.cell, strict=True))
        found = np.zeros((rows, cols), np.uint32)
        for row, col in itertools.product(*map(range, self._layout.blocks)):
            part = found[row * tall :, col * wide :][:tall, :wide]
            index = self._index((row, col))[self._channel, : part.shape[0], : part.shape[1]]  # (y, x, 2)
            part[:] = np.where(index[..., 0] == _ABSENT, 0, index[..., 1])
        return found

    def frames(self, row: int, first: int, end: int) -> list[memoryview | None]:
        """Compressed cells of a row of them, from one column to before another; None: nothing but nodata.

        Those of one shard lie one behind the other, and are read at once.
        """
        tall, wide = self._layout.cells
        found: list[memoryview | None] = []
        while first < end:
            block, left = (row // tall, first // wide), first % wide
            count = min(end - first, wide - left)
            index = self._index(block)[self._channel, row % tall, left : left + count]  # (cell, 2)
            found += self._span(block, [(int(offset), int(length)) for offset, length in index])
            first += count
        return found

    def _span(self, block: tuple[int, int], places: Sequence[tuple[int, int]]) -> Iterator[memoryview | None]:
        """The bytes at (offset, length) of one shard."""
        there = [(offset, offset + length) for offset, length in places if offset != _ABSENT]
        begin = min((start for start, _ in there), default=0)
        stop = max((end for _, end in there), default=0)
        data = memoryview(self._bytes(block, begin, stop - begin) if there else b"")
        for offset, length in places:
            yield None if offset == _ABSENT else data[offset - begin :][:length]

    def _bytes(self, block: tuple[int, int], offset: int, length: int) -> bytes:
        key = shard_key(self._array, self._spec, block)
        data = self._get(key, offset, length)
        if len(data) != length:
            raise _damaged(self._store, key)
        return data

    def _get(self, key: str, start: int, length: int) -> bytes:
        try:
            return self._store.get(key, start, length)
        except FileNotFoundError:
            raise _damaged(self._store, key) from None

    def _index(self, block: tuple[int, int]) -> NDArray[np.uint64]:
        """Index of one shard, read once."""
        if block not in self._indexes:
            self._indexes[block] = self._read_index(block)
        return self._indexes[block]

    def _read_index(self, block: tuple[int, int]) -> NDArray[np.uint64]:
        key = shard_key(self._array, self._spec, block)
        shape = (self._spec.planes, *self._layout.cells, 2)
        size = math.prod(shape) * 8
        end = self._get(key, -(size + 4), size + 4)
        data, crc = end[:size], end[size:]
        if struct.pack("<I", google_crc32c.value(data)) != crc:
            raise _damaged(self._store, key)
        return np.frombuffer(data, dtype="<u8").reshape(shape)


def _damaged(store: Store, key: str) -> MachineError:
    return MachineError(
        f"{store}/{key} is missing or damaged, though its block was finished; run the same command again: "
        "such blocks are computed anew"
    )
