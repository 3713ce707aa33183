"""Scene: what lies where. A value; it opens nothing (`assemble.py` makes one of files).

    Scene  = band groups, the finest first, whose grids nest
    Group  = one grid + the sheets that lie on it, in the order in which they count
    Sheet  = one raster: its bands (in one file or several), its own grid, the window that it reaches into

Sheets of several dates lie in the group date by date, the latest first (`composite`). Who asks a group for
pixels (`read/raster.py`) does not know how many sheets and dates there are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from odc.geo.geobox import GeoBox

from citycover.geometry.window import Window
from citycover.model.kernel import Kernel
from citycover.scene.laying import Composite, Overlap
from citycover.scene.when import day_of

Validity = Literal["none", "nodata", "mask", "alpha"]


@dataclass(frozen=True, slots=True)
class Loss:
    """A part of a file that is known to be lost before it is read: a source of a mosaic is not there."""

    window: Window
    """In pixels of the file."""
    path: str
    """What is missing or wrong."""
    reason: str


@dataclass(frozen=True, slots=True)
class Promise:
    """What an item says of a file that nobody opened yet: it is looked at when it is read."""

    by: str
    """The item, or the collection that holds it."""
    grid: GeoBox
    scaled: tuple[bool, ...]
    """Of each band of the file, whether the item says what numbers mean."""
    settled: bool = False
    """Whether the user says which number is nodata."""


@dataclass(frozen=True, slots=True)
class BandSource:
    """One band and the file it lies in."""

    path: str
    """Path or GDAL connection string."""
    index: int
    """Band number in the file, from 1."""
    name: str
    """Canonical name of the card's band that this one serves (or its own name where no card is known)."""
    dtype: str
    """numpy name of the pixel type in the file."""
    nodata: float | None
    """Digital number of invalid pixels (tag or `--nodata`); NaN is a number here, None: there is none."""
    validity: Validity
    """Where validity comes from, beside NaN in float bands, which is always invalid."""
    losses: tuple[Loss, ...] = ()
    """Parts that are known to be lost."""
    gain: float = 1.0
    """What is read is `gain * number + bias`: see `measure.py`."""
    bias: float = 0.0
    told: bool = False
    """Whether its file or the user says what its numbers mean, in the unit of the model."""
    lies: GeoBox | None = None
    """Grid of its file, where it is warped onto that of its sheet; None: it is of that grid."""
    kernel: Kernel | None = None
    """How it is warped."""
    promise: Promise | None = None
    """What its file must be; None: it was looked at."""

    @property
    def plain(self) -> bool:
        """Whether numbers are read as they stand in the file."""
        return (self.gain, self.bias) == (1.0, 0.0)


@dataclass(frozen=True, slots=True)
class MaskSource:
    """A band whose numbers say where the ground is hidden: see `masking.py`."""

    source: BandSource
    grid: GeoBox
    """That of its file; it covers the sheet, to a pixel."""
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    grow: tuple[float, float] = (0.0, 0.0)
    """(y, x) pixels of its own around what is hidden that are hidden too."""
    numbers: range = range(0)
    """All that stand in such a mask; empty: any may."""

    @property
    def words(self) -> str:
        """Which numbers of which file hide the ground."""
        numbers = ", ".join(map(str, self.values or self.bits))
        return f"{self.source.name} ({'bits ' * bool(self.bits)}{numbers})"


@dataclass(frozen=True, slots=True)
class Sheet:
    """One raster among those that a band group is made of."""

    bands: tuple[BandSource, ...]
    """In the order of the network."""
    grid: GeoBox
    """That of its files."""
    window: Window
    """Pixels of the group's lattice that it reaches into."""
    kernel: Kernel | None = None
    """How it is warped; None: its pixels are pixels of the lattice, and are taken as they are."""
    masks: tuple[MaskSource, ...] = ()
    """What hides the ground."""
    time: str | None = None
    """When it was taken, ISO 8601; None: nothing says so."""

    @property
    def day(self) -> str:
        """Of its time; empty where that is not known."""
        return day_of(self.time)

    @property
    def native(self) -> tuple[BandSource, ...]:
        """Bands whose files are of its grid."""
        return tuple(band for band in self.bands if band.lies is None)

    @property
    def files(self) -> dict[str, list[int]]:
        """Path of each file of its grid to the numbers of its bands that are used."""
        found: dict[str, list[int]] = {}
        for band in self.native:
            found.setdefault(band.path, []).append(band.index)
        return found


@dataclass(frozen=True, slots=True)
class SceneGroup:
    """Bands on one grid."""

    name: str
    grid: GeoBox
    """crs, transform and (y, x) shape."""
    sheets: tuple[Sheet, ...]
    """The first counts most; none where the scene does not have the group."""
    dtype: str
    """The one type that pixels of the group are read as: uint8, uint16, int16 or float32."""
    block: tuple[int, int]
    """(y, x) shape of the blocks in which the files are compressed: the largest over the files."""
    ratio: int = 1
    """Pixel size as a multiple of the finest group's."""
    lattice: GeoBox | None = None
    """The grid that sheets are laid out on, where the group is read at another GSD; None: `grid`."""
    overlap: Overlap = "first"
    """What counts where sheets of one date overlap."""
    composite: Composite | None = None
    """What becomes of several dates; None: there is one."""
    filled: tuple[float, ...] = ()
    """Digital number of each band, where the scene does not have the group; empty: it has."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        height, width = self.grid.shape
        return int(height), int(width)

    @property
    def bands(self) -> tuple[BandSource, ...]:
        """Those of the first sheet; names and number are the same in all."""
        return self.sheets[0].bands if self.sheets else ()

    @property
    def depth(self) -> int:
        """Number of bands that a network sees."""
        return len(self.filled or self.bands)

    @property
    def dates(self) -> tuple[SceneGroup, ...]:
        """The group as it is on each date, the latest first."""
        if self.composite is None or self.filled:
            return (self,)
        days = itertools.groupby(self.sheets, key=lambda sheet: sheet.day)
        return tuple(replace(self, sheets=tuple(sheets), composite=None) for _, sheets in days)

    @property
    def native(self) -> GeoBox:
        """The grid that sheets are laid out on."""
        return self.grid if self.lattice is None else self.lattice

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of all sheets, each once."""
        return tuple(dict.fromkeys(band.path for sheet in self.sheets for band in sheet.bands))


@dataclass(frozen=True, slots=True)
class Scene:
    """Imagery of one place, as groups of bands that each have their own grid."""

    groups: tuple[SceneGroup, ...]
    """The finest first."""
    gsd: float
    """Ground sample distance in metres of the finest group, measured on the ground at the scene's centre."""
    time: str | None = None
    """Acquisition time, ISO 8601, where a file or its name says so; of several dates the latest."""
    resampling: str | None = None
    """How the lattice of the sheets is read at the GSD of the grid; None: it is that grid."""
    fingerprints: tuple[tuple[str, int, int], ...] = field(default=())
    """(path, size in bytes, modification time in ns) of every file, sources of mosaics included: identity for
    resume, not content."""

    @property
    def grid(self) -> GeoBox:
        """Grid of the finest group, which is the grid of a product of output scale 1."""
        return self.groups[0].grid

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the finest group."""
        return self.groups[0].shape

    @property
    def start(self) -> str | None:
        """Of several times of acquisition the earliest."""
        return min((sheet.time for sheet in self.groups[0].sheets if sheet.time), default=None)

    @property
    def composite(self) -> Composite | None:
        """What becomes of several dates; None: there is one."""
        return self.groups[0].composite

    @property
    def dates(self) -> tuple[str, ...]:
        """Days that a composite is of, the latest first; none where it is none."""
        return tuple(group.sheets[0].day for group in self.groups[0].dates) if self.composite else ()

    @property
    def filled(self) -> tuple[str, ...]:
        """Band groups that it does not have, and whose place numbers take, in words; empty: it has all."""
        return tuple(
            f"{g.name} ({', '.join(f'{number:g}' for number in g.filled)})" for g in self.groups if g.filled
        )

    @property
    def composed(self) -> str | None:
        """What became of which dates, in words; None: there is one."""
        return f"{self.composite} of {', '.join(self.dates)}" if self.composite else None

    @property
    def passes(self) -> int:
        """Dates that a network sees one after the other, to average what it says."""
        return len(self.dates) if self.composite == "mean-probability" else 1

    @property
    def conversions(self) -> tuple[str, ...]:
        """How numbers of files become those of the network, in words; empty: they are taken as they are."""
        bands = (band for group in self.groups for sheet in group.sheets for band in sheet.bands)
        return tuple(dict.fromkeys(f"{b.name}: {b.gain:g} x {b.bias:+g}" for b in bands if not b.plain))

    @property
    def warps(self) -> tuple[str, ...]:
        """Files whose bands are warped onto the grid of others, in words; empty: none is."""
        bands = (band for group in self.groups for sheet in group.sheets for band in sheet.bands)
        return tuple(dict.fromkeys(f"{Path(b.path).name} ({b.kernel})" for b in bands if b.lies is not None))

    @property
    def masks(self) -> tuple[str, ...]:
        """What hides the ground, in words; empty: nothing that is asked for."""
        return tuple(dict.fromkeys(m.words for sheet in self.groups[0].sheets for m in sheet.masks))

    @property
    def identity(self) -> str:
        """Hash of everything that decides which pixels are read."""
        groups = [
            (
                g.name,
                *_place(g.grid),
                *_place(g.native),
                g.dtype,
                g.overlap,
                g.composite,
                g.filled,
                [sheet.day for sheet in g.sheets if g.composite],
                [
                    (*_place(s.grid), repr(s.window), s.kernel, repr(s.bands), *map(_mask, s.masks))
                    for s in g.sheets
                ],
            )
            for g in self.groups
        ]
        text = json.dumps([groups, self.resampling, self.fingerprints], default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _mask(mask: MaskSource) -> tuple[Any, ...]:
    """A mask as plain values."""
    return repr(mask.source), _place(mask.grid), mask.values, mask.bits, mask.grow


def _place(grid: GeoBox) -> tuple[str, tuple[float, ...], tuple[int, int]]:
    """A grid as plain values."""
    height, width = grid.shape
    return str(grid.crs or ""), tuple(grid.transform), (int(height), int(width))
