"""Axes of a NetCDF variable: whether its pixels lie where its coordinates say.

GDAL takes the last two dimensions for rows and columns, and makes a transform of the first and the last
coordinate along them. It does not look at those between, nor at units beside a CRS in words, so what it says
is compared with the coordinates here: a map of another place would be no error to it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from citycover.errors import SceneError
from citycover.files.georeference import KILOMETRES, check_unit, find_time
from citycover.scene.when import said_time

_NAMES = {
    "x": {"projection_x_coordinate", "longitude", "grid_longitude", "x", "lon", "easting", "degrees_east"},
    "y": {"projection_y_coordinate", "latitude", "grid_latitude", "y", "lat", "northing", "degrees_north"},
}
"""What a coordinate is called, or says that it is, in lower case."""

_ANGLES = ("rad", "microrad")
"""Units in which a satellite looks down: GDAL makes metres of them by its height."""

_PART = re.compile(r'(netcdf:(?:"[^"]*"|[^"]*?):)(.*/)?[^/]*$', re.IGNORECASE)
"""Connection string of a variable: that of its file, and its group."""

_OFF = 0.5
"""Pixels by which a centre may lie elsewhere than its coordinate says: coordinates may be float32."""


def check_axes(path: str, dataset: Any) -> None:
    """Raise SceneError where pixels of an open NetCDF variable lie elsewhere than its coordinates say.

    Args:
        path: of the file, or the connection string of the variable.
        dataset: the variable, as rasterio opened it. One without coordinates along both axes passes.
    """
    if dataset.driver != "netCDF" or dataset.crs is None or dataset.transform.is_identity:
        return
    said = _attributes(dataset.tags())
    if (name := _time_along(dataset, said)) is not None and (count := _length(dataset, name)) > 1:
        raise SceneError(
            f"{path}: it lies along {name}, {count} long, and NetCDF is read one date at a time; "
            f"write one of them (dataset.isel({name}=[0]) of xarray), or all as Zarr (dataset.to_zarr), "
            f"whose dates --composite and --overlap newest know"
        )
    ys, xs = (_coordinates(path, axis, said) for axis in "yx")
    if ys is None or xs is None or any(line.unit.lower().startswith(_ANGLES) for line in (ys, xs)):
        return
    crs = pyproj.CRS.from_wkt(dataset.crs.to_wkt())
    turn, to = 360.0 if crs.is_geographic else 0.0, dataset.transform
    rows, cols = (to.f, to.e, dataset.height), (to.c, to.a, dataset.width)
    off = max(ys.off(*rows, 0.0), xs.off(*cols, turn))
    if off > _OFF:
        down, right = ys.times(1000).off(*rows, 0.0), xs.times(1000).off(*cols, 0.0)
        if max(down, right) <= _OFF:
            return  # GDAL has made metres of kilometres
        if down <= _OFF or xs.unit.strip().lower() in KILOMETRES:
            raise SceneError(
                f"{path}: GDAL does not read its coordinates along x, which are in kilometres, as they "
                f"stand; write them in metres"
            )
        if ys.off(*cols, 0.0) < xs.off(*cols, turn):
            raise SceneError(
                f"{path}: its last dimension is not that of x; needed are dimensions (y, x); turn it: "
                f"dataset.transpose(..., 'y', 'x') of xarray"
            )
        raise _elsewhere(path, {"y": ys.uneven, "x": xs.uneven}, off)
    try:
        for axis, line in (("y", ys), ("x", xs)):
            check_unit(line.unit, crs, axis)
    except ValueError as error:
        raise SceneError(f"{path}: {error}") from None


def time_of(dataset: Any) -> str | None:
    """When an open NetCDF variable of one date was taken, as its coordinate says; None: it does not."""
    if dataset.driver != "netCDF":
        return None
    said = _attributes(dataset.tags())
    if (name := _time_along(dataset, said)) is None:
        return None
    try:
        moment = np.array(float(dataset.tags()[f"NETCDF_DIM_{name}_VALUES"].strip("{}")))
    except (KeyError, ValueError):  # it has none, or several
        return None
    return said_time(find_time((), said.get(name, {}), moment))


def _time_along(dataset: Any, said: Mapping[str, Mapping[str, str]]) -> str | None:
    """The dimension of time that a variable lies along; None: none."""
    names = dataset.tags().get("NETCDF_DIM_EXTRA", "").strip("{}").split(",")
    return next((n for n in names if n == "time" or " since " in said.get(n, {}).get("units", "")), None)


def _length(dataset: Any, name: str) -> int:
    """Of a dimension that is none of the raster's; GDAL makes bands of all of them together."""
    said = dataset.tags().get(f"NETCDF_DIM_{name}_DEF", "").strip("{}").partition(",")[0]
    return int(said) if said.isdigit() else int(dataset.count)


def _elsewhere(path: str, uneven: Mapping[str, float], off: float) -> SceneError:
    """What is wrong where pixels and coordinates differ: those run unevenly, or the transform is another's.

    Args:
        path: of the variable.
        uneven: pixels by which coordinates lie off an even row, by axis.
        off: pixels by which they lie off the raster.
    """
    axis = max(uneven, key=lambda one: uneven[one])
    if uneven[axis] <= _OFF:
        return SceneError(
            f"{path}: it says another place than its coordinates do, {off:.3g} pixels off, as a GeoTransform "
            f"does that was kept while the image was cut; write it anew: dataset.rio.write_transform() of "
            f"rioxarray"
        )
    return SceneError(
        f"{path}: coordinates along {axis} are not evenly spaced, up to {uneven[axis]:.3g} pixels off a "
        f"raster; bring it to an even grid first (dataset.interp of xarray), or to the CRS in which it "
        f"is even"
    )


@dataclass(frozen=True, eq=False)
class _Line:
    """Coordinates along one axis."""

    centres: NDArray[np.float64]
    """(pixel,)"""
    unit: str

    def times(self, factor: float) -> _Line:
        return _Line(self.centres * factor, self.unit)

    @property
    def uneven(self) -> float:
        """Pixels by which they lie off a row from the first to the last, at most."""
        row = np.linspace(self.centres[0], self.centres[-1], len(self.centres))
        return float(np.abs(self.centres - row).max() / abs(row[1] - row[0]))

    def off(self, start: float, step: float, count: int, turn: float) -> float:
        """Pixels by which they lie off the centres of a raster, at most, in whatever order.

        Args:
            start: of the first pixel.
            step: from one to the next.
            count: of pixels; infinitely far where there are others.
            turn: after which numbers mean the same place; 0: never.
        """
        if len(self.centres) != count:
            return np.inf
        there = start + step * (np.arange(count) + 0.5)
        west = there.min() - abs(step) / 2  # a turn begins beside all of them, or noise would tear them apart
        lines = (line - west for line in (self.centres, there))
        one, other = (np.sort(line % turn if turn else line) for line in lines)
        return float(np.abs(one - other).max() / abs(step))


def _attributes(tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Attributes of each variable, of tags such as `x#units`."""
    found: dict[str, dict[str, str]] = {}
    for key, value in tags.items():
        name, mark, attribute = key.rpartition("#")
        if mark:
            found.setdefault(name, {})[attribute] = value
    return found


def _called(axis: str, said: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Variables that are coordinates along an axis, those that say so first."""
    names = _NAMES[axis]
    keys = ("standard_name", "axis", "units")
    sure = [n for n, own in said.items() if any(own.get(key, "").lower() in names for key in keys)]
    return [*sure, *(name for name in said if name.lower() in names and name not in sure)] or [axis]


def _coordinates(path: str, axis: str, said: Mapping[str, Mapping[str, str]]) -> _Line | None:
    """Those along an axis; None: there are none of one dimension."""
    part = _PART.match(path)
    file, group = (part[1], part[2] or "") if part else (f'NETCDF:"{path}":', "")
    for name in _called(axis, said):
        try:
            # GDAL takes numbers beyond 180 along an X for longitudes, even of a plane, and turns them back.
            with rasterio.Env(GDAL_NETCDF_CENTERLONG_180="NO"), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with DatasetReader(f"{file}{group}{name}") as line:
                    if line.count == 1 and line.height == 1 and line.width > 1:
                        unit = said.get(name, {}).get("units", "")
                        return _Line(np.asarray(line.read(1)[0], np.float64), unit)
        except RasterioError:
            continue  # of another group, or none
    return None
