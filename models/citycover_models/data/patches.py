"""Patches: scenes of 1200 m with labels, in Sentinel-2's three groups of bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from citycover.classes.table import UNKNOWN, ClassTable
from citycover.errors import ConfigError
from citycover.files.gdal import READ_OPTIONS
from citycover_models.blocks.band_encoders import B10, B20, B60
from citycover_models.data.labels import IGNORE

GROUPS = (B10, B20, B60)
"""Bands of the groups, in order."""

SIDES = (120, 60, 20)
"""Side of a patch in each group, pixels of 10, 20 and 60 m."""

_TENSORS = ".safetensors"

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Groups = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]
"""(4, 120, 120), (6, 60, 60) and (2, 20, 20) raw digital numbers."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One scene, by its metadata."""

    name: str
    source: str
    """Folder of one GeoTIFF a band, or a .safetensors file of all."""
    labels: tuple[int, ...]
    """Ranks in the legend that is learned, ascending."""
    split: Split
    region: str
    """Country, or tile where the country is not on record."""
    reference: str = ""
    """GeoTIFF of CORINE codes of each pixel of 10 m; "": there is none."""

    @property
    def files(self) -> list[str]:
        """Paths of what holds its bands."""
        return [self.source] if self.source.endswith(_TENSORS) else list(_band_files(self).values())

    def read(self) -> Groups:
        """Pixels of all bands.

        Raises:
            ConfigError: bands are missing, of another size or type, or cannot be read.
        """
        bands = _from_tensors(self) if self.source.endswith(_TENSORS) else _from_folder(self)
        b10, b20, b60 = (
            np.stack([_checked(self, band, bands[band], side) for band in group])
            for group, side in zip(GROUPS, SIDES, strict=True)
        )
        return b10, b20, b60

    def read_codes(self) -> NDArray[np.uint16]:
        """(y, x) CORINE codes of the reference map.

        Raises:
            ConfigError: there is no such map, or it has another size.
        """
        codes = _read_raster(self, self.reference)
        if codes.shape != (SIDES[0], SIDES[0]):
            raise ConfigError(f"{self.reference} has {codes.shape} px; needed are {SIDES[0]} x {SIDES[0]}")
        return codes.astype(np.uint16)


def ranks_of_codes(codes: NDArray[np.uint16], table: ClassTable, name: str) -> NDArray[np.uint8]:
    """CORINE codes of a reference map -> ranks, IGNORE where a code is dropped.

    Args:
        codes: (y, x).
        table: from legend `corine` to the one that is learned.
        name: of the patch, for messages.

    Raises:
        ConfigError: a number is no CORINE code.
    """
    ranks = table.ranks_of(codes)
    if (ranks == UNKNOWN).any():
        strange = sorted(set(codes[ranks == UNKNOWN].tolist()))
        raise ConfigError(
            f"the reference map of {name} holds {strange[:6]}, which are no CORINE level-3 codes; fetch it "
            "again"
        )
    return np.where(ranks < 0, IGNORE, ranks).astype(np.uint8)


def hot_labels(patches: Sequence[Patch], classes: int) -> NDArray[np.bool_]:
    """(patch, class) which labels each has."""
    hot = np.zeros((len(patches), classes), np.bool_)
    for row, patch in zip(hot, patches, strict=True):
        row[list(patch.labels)] = True
    return hot


def _band_files(patch: Patch) -> dict[str, str]:
    """GeoTIFF of each band."""
    return {band: f"{patch.source}/{patch.name}_{band}.tif" for group in GROUPS for band in group}


def _from_folder(patch: Patch) -> dict[str, NDArray[Any]]:
    paths = _band_files(patch)
    _check_bands(patch, [band for band, path in paths.items() if not Path(path).is_file()])
    return {band: _read_raster(patch, path) for band, path in paths.items()}


def _from_tensors(patch: Patch) -> dict[str, NDArray[Any]]:
    try:
        bands: dict[str, NDArray[Any]] = load_file(patch.source)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"patch {patch.source} cannot be read: {error}; fetch it again") from None
    _check_bands(patch, [band for group in GROUPS for band in group if band not in bands])
    return bands


def _read_raster(patch: Patch, path: str) -> NDArray[Any]:
    try:
        with rasterio.Env(**READ_OPTIONS), rasterio.open(path) as source:
            band: NDArray[Any] = source.read(1)
    except RasterioError as error:
        raise ConfigError(
            f"patch {patch.name}: {path} cannot be read: {error}; fetch it again, or take the patch out"
        ) from None
    return band


def _check_bands(patch: Patch, missing: Sequence[str]) -> None:
    if missing:
        raise ConfigError(
            f"patch {patch.name} in {patch.source} lacks {', '.join(missing)}; needed are all 12 bands of "
            "Level 2A; fetch it again, or take the patch out"
        )


def _checked(patch: Patch, band: str, pixels: NDArray[Any], side: int) -> NDArray[np.uint16]:
    """A band of the right size in digital numbers."""
    if pixels.shape != (side, side):
        raise ConfigError(
            f"patch {patch.name} has {' x '.join(map(str, pixels.shape))} px of {band}; needed are {side} x "
            f"{side}: bands at their own resolution, not resampled"
        )
    if pixels.dtype != np.uint16:
        raise ConfigError(
            f"patch {patch.name} has {pixels.dtype} numbers in {band}; needed are uint16 digital numbers of "
            "Level 2A (reflectance x 10000), not rescaled"
        )
    return pixels
