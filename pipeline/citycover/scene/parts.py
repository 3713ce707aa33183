"""Parts of a container: which variables of a Zarr store, a NetCDF or an HDF5 file are rasters on a map.

A container is opened to be listed; variables without a grid (axes, scalars, tables) are none. The name of a
variable is that of its band.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from citycover.errors import SceneError
from citycover.files.gdal import READ_OPTIONS, brief_reason
from citycover.scene.given import Given

_CONTAINERS = {
    ".zarr": ("Zarr",),
    ".nc": ("netCDF", "HDF5"),
    ".nc4": ("netCDF", "HDF5"),
    ".h5": ("netCDF", "HDF5"),
    ".he5": ("netCDF", "HDF5"),
    ".hdf5": ("netCDF", "HDF5"),
}
"""Drivers by suffix, the first first: HDF5 itself has no CRS, what NetCDF writes into it has."""

_PART = re.compile(r'^\w+:"?(.+?)"?:/*(.*?)$')
"""File and variable of a connection string."""


def parts_of(given: Given) -> list[Given]:
    """The rasters in a container; what is none, or has bands of its own, is itself.

    Raises:
        SceneError: none of its variables is a raster that can be read.
    """
    drivers = _CONTAINERS.get(Path(given.path).suffix.lower())
    if drivers is None or not Path(given.path).exists():
        return [given]
    with rasterio.Env(**READ_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        names = next(filter(None, (_listed(given, driver) for driver in drivers)), [])
        reasons: list[str] = []
        found = list(_rasters(given, names, reasons))
    if names and not found:
        raise SceneError(
            f"{given.path} has {len(names)} variables, and none is a raster with a CRS that can be read "
            f"({reasons[0]}); write it as Zarr 2 or NetCDF with a CF grid mapping, or as GeoTIFF"
        )
    return found or [given]


def _listed(given: Given, driver: str) -> list[str]:
    """Connection strings of the variables of a container; none where it has bands itself, or is none."""
    try:
        with DatasetReader(str(Path(given.path).absolute()), driver=driver) as container:
            return [] if container.count else list(container.subdatasets)
    except RasterioError:
        return []  # told of where it is described


def _rasters(given: Given, names: list[str], reasons: list[str]) -> Iterator[Given]:
    """Variables that have a grid, by name; why others are none goes to `reasons`."""
    for name in sorted(names):
        try:
            with DatasetReader(name) as part:
                if part.crs is None or part.transform.is_identity:
                    reasons.append(f"{variable_of(name)} has no CRS or no place")
                    continue
                titles = (variable_of(name),) if part.count == 1 else given.titles
        except RasterioError as error:
            reason = f"{variable_of(name)}: {brief_reason(error)}"
            reasons.insert(len(reasons) if "number of dimensions" in reason else 0, reason)  # a scalar
            continue
        yield replace(given, path=name, titles=titles)


def variable_of(connection: str) -> str:
    """The variable that a connection string means, without its groups.

    >>> variable_of('ZARR:"/data/a.zarr":/bands/red'), variable_of("netcdf:/data/a.nc:Band1")
    ('red', 'Band1')
    """
    part = _PART.match(connection)
    return part[2].rpartition("/")[2] if part else connection


def container_of(connection: str) -> str | None:
    """The file that a connection string of a part means; None: it is none, or means a folder."""
    part = _PART.match(connection)
    return part[1] if part and Path(part[1]).is_file() else None
