"""The sources of a mosaic (VRT), looked at when a scene is described: which are lost, and where.

GDAL opens sources only when it reads them, and believes what the VRT says of their size and place. A source
that is missing, empty, unreadable or another than the VRT means is a loss: its place is nodata and listed,
the rest of the mosaic is mapped.
"""

from __future__ import annotations

import math
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from citycover.errors import SceneError
from citycover.files.gdal import READ_OPTIONS, brief_reason
from citycover.files.remote import is_remote
from citycover.geometry.window import Window
from citycover.scene.scene import Loss
from citycover.scene.trust import PIXEL_DRIVERS, Trust
from citycover.scene.vrt import Rect, Source, read_sources

Fingerprint = tuple[str, int, int]
"""Path, size in bytes, modification time in ns; zeros where the file is not there or not on a disk."""

Named = Mapping[str, Sequence[Source]]
"""Path of each local mosaic that was read, to the sources that it names; other files are not in it."""

BandLoss = tuple[int | None, Loss]
"""The band of the mosaic that lost it, from 1 (None: all bands), and what."""

_DEEPEST = 8
"""Mosaics of mosaics."""

_TYPES = {"byte": "uint8"} | {
    name: name
    for name in ("int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
}


def check_sources(path: str, trust: Trust, sources: Sequence[Source] | None = None) -> Named:
    """Refuse a mosaic that names what it has no right to, at any depth. Reads nothing but the text of VRTs.

    Each text is read once, here: what looks further takes what this gives.

    Args:
        path: what the user named.
        trust: what the user allows.
        sources: what it names, where it is no plain file; it is then not among what is given back.

    Raises:
        SceneError: a source may not be read.
    """
    texts: dict[str, Sequence[Source] | None] = {} if sources is not None else {path: read_sources(path)}
    waiting = list(sources if sources is not None else texts[path] or ())
    for depth in range(_DEEPEST + 1):
        inner: list[Source] = []
        for source in {(s.path, s.raw): s for s in waiting}.values():
            trust.check(source.path, path, raw=source.raw)
            if not is_remote(source.path):
                if source.path not in texts:
                    texts[source.path] = _readable_text(source.path)
                inner += texts[source.path] or ()
        waiting = inner
        if not waiting:
            break
        if depth == _DEEPEST:
            raise SceneError(
                f"{path} is a mosaic of mosaics, more than {_DEEPEST} deep or in a circle; "
                f"make one of the tiles"
            )
    return {mosaic: named for mosaic, named in texts.items() if named is not None}


def _readable_text(path: str) -> Sequence[Source] | None:
    try:
        return read_sources(path)
    except OSError:
        return None  # it is a loss, told of later


@dataclass(frozen=True, slots=True)
class _Facts:
    """A source as it is."""

    driver: str
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    crs: str
    """WKT; empty: none."""
    transform: Any


@dataclass
class SourceLook:
    """Looks at each source once, however often it is named."""

    named: Named
    """What mosaics among the sources name: of `check_sources`."""
    looked: dict[str, _Facts | str] = field(default_factory=dict)
    """What a source is, or why it is lost."""

    def losses(self, sources: Sequence[Source], shape: tuple[int, int]) -> list[BandLoss]:
        """What a mosaic of this (y, x) shape has lost."""
        return list(dict.fromkeys(self._losses(sources, shape)))

    def _losses(self, sources: Sequence[Source], shape: tuple[int, int]) -> Iterator[BandLoss]:
        whole = Window(0, 0, *shape)
        odd = self._misplaced(sources)
        for source in sources:
            if not source.needed or is_remote(source.path):
                continue  # what lies across the network is looked at when it is read: each look is a request
            facts = self._look(source.path)
            reason = facts if isinstance(facts, str) else _mismatch(source, facts) or odd.get(source.path)
            where = _window(source.target, whole)
            if reason is not None:
                if where is not None:
                    yield source.band, Loss(where, source.path, reason)
            elif isinstance(facts, _Facts) and facts.driver == "VRT":
                inner = self.named.get(source.path, ())
                yield from _carried(source, facts.shape, shape, self._losses(inner, facts.shape))

    def _look(self, path: str) -> _Facts | str:
        if path not in self.looked:
            self.looked[path] = _read_facts(path)
        return self.looked[path]

    def _misplaced(self, sources: Sequence[Source]) -> dict[str, str]:
        """Sources that lie elsewhere than most others of the mosaic say: one tile copied over another.

        A single source may be moved on purpose (`gdal_translate -a_ullr`), and all of them may.
        """
        origins: dict[str, tuple[str, tuple[int, int]]] = {}
        for source in sources:
            if source.path in origins or not source.placed or is_remote(source.path):
                continue
            facts = self._look(source.path)
            if isinstance(facts, _Facts) and facts.crs and (origin := _origin(source, facts)):
                origins[source.path] = (facts.crs, origin)
        if len(origins) < 3:
            return {}
        crs, _ = Counter(crs for crs, _ in origins.values()).most_common(1)[0]
        odd = {p: "its CRS is not that of most others" for p, (own, _) in origins.items() if own != crs}
        same = {p: origin for p, (own, origin) in origins.items() if own == crs}
        common, count = Counter(same.values()).most_common(1)[0]
        if 2 * count > len(same):
            far = (p for p, origin in same.items() if math.dist(origin, common) > 2)
            odd |= dict.fromkeys(far, "it lies elsewhere than the mosaic says")
        return odd


def _origin(source: Source, facts: _Facts) -> tuple[int, int] | None:
    """Where the mosaic's corner must lie for this source to lie right, in pixels from the CRS's origin."""
    if source.target is None or facts.transform.is_identity or facts.transform.determinant == 0:
        return None
    scale_x, scale_y = _scales(source, facts.shape)
    first = source.source or (0.0, 0.0, float(facts.shape[1]), float(facts.shape[0]))
    x, y = facts.transform * (first[0] - source.target[0] / scale_x, first[1] - source.target[1] / scale_y)
    pixel_x, pixel_y = facts.transform.a / scale_x, facts.transform.e / scale_y
    return round(x / pixel_x), round(y / pixel_y)


def _scales(source: Source, shape: tuple[int, int]) -> tuple[float, float]:
    """Pixels of the mosaic for one of the source, along x and y."""
    if source.target is None:
        return 1.0, 1.0
    rect = source.source or (0.0, 0.0, float(shape[1]), float(shape[0]))
    return max(source.target[2], 1e-9) / max(rect[2], 1e-9), max(source.target[3], 1e-9) / max(rect[3], 1e-9)


def _carried(
    source: Source, shape: tuple[int, int], outer: tuple[int, int], losses: Iterator[BandLoss]
) -> Iterator[BandLoss]:
    """Losses of a mosaic inside another one, in pixels of the outer one."""
    scale_x, scale_y = _scales(source, shape)
    rect = source.source or (0.0, 0.0, float(shape[1]), float(shape[0]))
    target = source.target or (0.0, 0.0, float(outer[1]), float(outer[0]))
    inside = _window(source.target, Window(0, 0, *outer))
    for band, loss in losses:
        if source.placed and band not in {None, source.from_band}:
            continue
        there = loss.window
        moved = (
            target[0] + (there.col - rect[0]) * scale_x,
            target[1] + (there.row - rect[1]) * scale_y,
            there.width * scale_x,
            there.height * scale_y,
        )
        window = inside and _window(moved if source.placed else None, inside)
        if window:
            yield source.band, Loss(window, loss.path, loss.reason)


def _window(rect: Rect | None, whole: Window) -> Window | None:
    """All pixels that a rectangle touches."""
    if rect is None:
        return whole
    row, col = math.floor(rect[1]), math.floor(rect[0])
    row_end, col_end = math.ceil(rect[1] + rect[3]), math.ceil(rect[0] + rect[2])
    return Window(row, col, max(1, row_end - row), max(1, col_end - col)).clip(whole)


def _read_facts(path: str) -> _Facts | str:
    local = Path(path)
    try:
        status = local.stat() if path.startswith("/") and not path.startswith("/vsi") else None
    except OSError as error:
        return (error.strerror or str(error)).lower()
    if status is not None and not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status is not None and status.st_size == 0:
        return "the file is empty (0 bytes)"
    try:
        with rasterio.Env(**READ_OPTIONS), DatasetReader(path, driver=_known_drivers()) as dataset:
            crs = dataset.crs.to_wkt() if dataset.crs else ""
            return _Facts(dataset.driver, dataset.shape, tuple(dataset.dtypes), crs, dataset.transform)
    except (RasterioError, UnicodeDecodeError) as error:  # GDAL quotes a broken file byte by byte
        return f"it cannot be opened ({brief_reason(error)})"


def _known_drivers() -> list[str]:
    with rasterio.Env() as env:
        built = env.drivers()
    return [name for name in PIXEL_DRIVERS if name in built]


def _mismatch(source: Source, facts: _Facts) -> str | None:
    """How a source differs from what the mosaic says of it."""
    if source.size is not None and source.size != facts.shape:
        got, wanted = (f"{cols} x {rows}" for rows, cols in (facts.shape, source.size))
        return f"it has {got} pixels, the mosaic expects {wanted}"
    if not source.placed:
        return None
    if source.from_band > len(facts.dtypes):
        return f"it has {len(facts.dtypes)} bands, the mosaic expects band {source.from_band}"
    wanted_type = _TYPES.get((source.dtype or "").lower())
    got_type = facts.dtypes[source.from_band - 1]
    if wanted_type and not source.of_mask and got_type != wanted_type:
        return f"its pixels are {got_type}, the mosaic expects {wanted_type}"
    if source.size is None and source.source is not None:
        x, y, width, height = source.source
        if x + width > facts.shape[1] + 1 or y + height > facts.shape[0] + 1:
            return f"it has {facts.shape[1]} x {facts.shape[0]} pixels, fewer than the mosaic takes from it"
    return None


def fingerprints(paths: Sequence[str]) -> tuple[Fingerprint, ...]:
    """Size and time of files, each once."""
    found = []
    for path in dict.fromkeys(paths):
        try:
            status = Path(path).stat()
            found.append((path, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((path, 0, 0))
    return tuple(found)


def nested_paths(sources: Sequence[Source], named: Named) -> Iterator[str]:
    """Files that a mosaic is made of, at any depth (`check_sources` has bounded it).

    Args:
        sources: of the mosaic.
        named: what mosaics among them name: of `check_sources`.
    """
    for source in {s.path: s for s in sources}.values():
        yield source.path
        if not is_remote(source.path):
            yield from nested_paths(named.get(source.path, ()), named)
