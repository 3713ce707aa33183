"""Parts of a container: which variables of a Zarr store, a NetCDF or an HDF5 file are rasters on a map.

A container is opened to be listed; variables without a grid (axes, scalars, tables) are none. The name of a
variable is that of its band. Of a pyramid in a Zarr store the finest level counts.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from citycover.errors import SceneError
from citycover.files.folders import date_of, folder_of, is_zarr, refuse_partial, root_of, undated
from citycover.files.gdal import READ_OPTIONS, brief_reason
from citycover.files.nodes import arrays_in
from citycover.files.zarr import ZarrRaster
from citycover.geometry.grid import grid_of
from citycover.scene.axes import check_axes
from citycover.scene.given import Given
from citycover.scene.when import acquisition_time

_CONTAINERS = {
    ".nc": ("netCDF", "HDF5"),
    ".nc4": ("netCDF", "HDF5"),
    ".h5": ("netCDF", "HDF5"),
    ".he5": ("netCDF", "HDF5"),
    ".hdf5": ("netCDF", "HDF5"),
}
"""Drivers by suffix, the first first: HDF5 itself has no CRS, what NetCDF writes into it has."""

_EOPF = ("measurements/", "conditions/mask/l2a_classification/")
"""Groups of Sentinel-2 in Zarr that are imagery, and its mask; others have arrays of the same names."""

_REMOTE_STORE = re.compile(r"(?:\w+://|/vsi).*\.zarr(?:\.zip)?(?:/|$)")

_NOWHERE = "has no CRS or no place"

_PLACE = (
    "say where they lie: a CF grid mapping, as rio.write_crs writes it, and coordinates x and y, or "
    "proj:code and spatial:transform of GeoZarr"
)

_MEND = "mend it, or fetch it whole"

_PART = re.compile(r'^\w+:"?(.+?)"?:/*(.*?)$')
"""File and variable of a connection string."""

_VARIABLE = re.compile(r"(netcdf|hdf5):", re.IGNORECASE)


def parts_of(given: Given) -> list[Given]:
    """The rasters in a container; what is none, or has bands of its own, is itself.

    Raises:
        SceneError: none of its variables is a raster that can be read.
    """
    if is_zarr(str(given.path)):
        return _arrays(given)
    if _REMOTE_STORE.match(str(given.path)):
        raise SceneError(
            f"{given.path} is no Zarr store that is read across the network: it has no zarr.json, .zgroup "
            f"or .zarray; needed is one that is no zip, at s3://, gs:// or https://; check the name, or "
            f"fetch it first"
        )
    if _VARIABLE.match(str(given.path)) and not given.titles:
        return [replace(given, titles=(variable_of(str(given.path)),))]
    drivers = _CONTAINERS.get(Path(given.path).suffix.lower())
    if drivers is None or not Path(given.path).exists():
        return [given]
    with rasterio.Env(**READ_OPTIONS), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        names = next(filter(None, (_listed(given, driver) for driver in drivers)), [])
        reasons: list[str | SceneError] = []
        found = list(_rasters(given, names, reasons))
    if names and not found:
        if isinstance(reasons[0], SceneError):  # it says what to do
            raise reasons[0]
        raise SceneError(
            f"{given.path} has {len(names)} variables, and none is a raster with a CRS that can be read "
            f"({reasons[0]}); write it as NetCDF with a CF grid mapping and axes that say what they are "
            f"(rio.write_crs, rio.write_coordinate_system), or as GeoTIFF"
        )
    return found or [given]


def _arrays(given: Given) -> list[Given]:
    """The rasters of a Zarr store, or of a group or an array in one, by path.

    Raises:
        SceneError: none is a raster that can be read, or the store is not as it was written.
    """
    meant, reasons = str(given.path), []
    store = str(folder_of(meant))
    found: list[tuple[str, str, GeoBox]] = []
    try:
        refuse_partial(root_of(store), counted=False)
        arrays = _measured(store, arrays_in(meant if "://" in meant else str(Path(meant).absolute())))
    except RasterioError as error:
        raise SceneError(
            f"{given.path} is a Zarr store that cannot be opened ({brief_reason(error)}); copy it again"
        ) from None
    for path, shown in arrays:
        try:
            with ZarrRaster(path) as raster:
                if raster.crs is None or raster.transform.is_identity:
                    reasons.append(f"{Path(path).name} {_NOWHERE}")
                else:
                    found.append((path, shown, grid_of(raster)))
        except RasterioError as error:
            reasons.append(f"{Path(path).name}: {brief_reason(error)}")
    if not found:
        placed = bool(reasons) and not any(_NOWHERE in reason for reason in reasons)
        raise SceneError(
            f"{given.path} has {len(arrays)} arrays, and none is a raster with a CRS that can be read "
            f"({reasons[0] if reasons else 'it is empty'}); {_MEND if placed else _PLACE}"
        )
    time = given.time or acquisition_time(Path(store).name, {})
    return [  # dates of a cube are those of its coordinate, whatever its name says
        replace(given, path=path, time=time if date_of(path) is None else given.time, said=None)
        for path, shown, grid in found
        if not any(shown == other and _is_finer(than=grid, grid=there) for _, other, there in found)
    ]


def _measured(store: str, arrays: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of a product as ESA's EOPF writes it what was measured, and its classes; of other stores everything."""
    found = [one for one in arrays if undated(one[0]).removeprefix(store + "/").startswith(_EOPF)]
    return found if is_zarr(f"{store}/measurements") else arrays


def _is_finer(grid: GeoBox, than: GeoBox) -> bool:
    """Whether a grid shows the place of another, to a pixel of that, with smaller pixels."""
    fine, side = (math.sqrt(abs(one.transform.determinant)) for one in (grid, than))
    if grid.crs != than.crs or fine >= side:
        return False
    pairs = zip(grid.boundingbox.bbox, than.boundingbox.bbox, strict=True)
    return all(abs(one - other) <= side for one, other in pairs)


def _listed(given: Given, driver: str) -> list[str]:
    """Connection strings of the variables of a container; none where it has bands itself, or is none."""
    try:
        with DatasetReader(str(Path(given.path).absolute()), driver=driver) as container:
            return [] if container.count else list(container.subdatasets)
    except RasterioError:
        return []  # told of where it is described


def _rasters(given: Given, names: list[str], reasons: list[str | SceneError]) -> Iterator[Given]:
    """Variables that have a grid, by name; why others are none goes to `reasons`."""
    for name in sorted(names):
        try:
            with DatasetReader(name) as part:
                if part.crs is None or part.transform.is_identity:
                    reasons.append(f"{variable_of(name)} has no CRS or no place")
                    continue
                check_axes(name, part)
                titles = (variable_of(name),) if part.count == 1 else given.titles
        except SceneError as error:
            reasons.insert(0, error)
            continue
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


def holder_of(path: str) -> str | None:
    """The store or file that a variable lies in; None: it is a file of its own."""
    return str(root_of(path)) if is_zarr(path) else container_of(path)


def container_of(connection: str) -> str | None:
    """The file that a connection string of a part means; None: it is none, or means a folder."""
    part = _PART.match(connection)
    return part[1] if part and Path(part[1]).is_file() else None
