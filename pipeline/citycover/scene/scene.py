"""Scene: what lies where. A value; it opens nothing (`io/describe.py` makes one from files)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from odc.geo.geobox import GeoBox

from citycover.geometry.window import Window

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


@dataclass(frozen=True, slots=True)
class SceneGroup:
    """Bands on one grid."""

    name: str
    grid: GeoBox
    """crs, transform and (y, x) shape."""
    bands: tuple[BandSource, ...]
    """In the order of the network."""
    dtype: str
    """The one type that pixels of the group are read as: uint8, uint16, int16 or float32."""
    block: tuple[int, int]
    """(y, x) shape of the blocks in which the files are compressed: the largest over the files."""
    ratio: int = 1
    """Pixel size as a multiple of the finest group's."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        height, width = self.grid.shape
        return int(height), int(width)


@dataclass(frozen=True, slots=True)
class Scene:
    """Imagery of one place and time, as groups of bands that each have their own grid."""

    groups: tuple[SceneGroup, ...]
    """The finest first."""
    gsd: float
    """Ground sample distance in metres of the finest group, measured on the ground at the scene's centre."""
    time: str | None = None
    """Acquisition time, ISO 8601, where a file or its name says so."""
    resampling: str | None = None
    """GDAL resampling with which files are warped onto the grid; None: read as they are."""
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
    def identity(self) -> str:
        """Hash of everything that decides which pixels are read."""
        groups = [
            (
                g.name,
                g.grid.crs.to_wkt() if g.grid.crs else "",
                tuple(g.grid.transform),
                g.shape,
                g.dtype,
                [asdict(b) for b in g.bands],
            )
            for g in self.groups
        ]
        text = json.dumps([groups, self.resampling, self.fingerprints], default=str)
        return hashlib.sha256(text.encode()).hexdigest()
