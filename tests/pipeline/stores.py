"""Zarr stores for tests, as their makers write them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 - gives .rio
import xarray as xr
import zarr
from numpy.typing import NDArray

EPSG = 32633

WEST, NORTH = 5e5, 5.8e6
"""Where the first pixel of a metre begins."""


def centres(height: int, width: int, side: float = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Along y and x."""
    return NORTH - side * (np.arange(height) + 0.5), WEST + side * (np.arange(width) + 0.5)


def geozarr(height: int, width: int, side: float = 1) -> dict[str, Any]:
    """Attributes of a group by the conventions `proj` and `spatial`."""
    return {
        "proj:code": f"EPSG:{EPSG}",
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [height, width],
        "spatial:transform": [side, 0, WEST, 0, -side, NORTH],
    }


def write_arrays(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    dimensions: Sequence[str] = ("y", "x"),
    attributes: Mapping[str, Any] | None = None,
    **how: Any,
) -> Path:
    """With zarr-python: arrays of one shape in a group that says where they lie; none are left out."""
    group = zarr.open_group(path, mode="a", zarr_format=3)
    shape = {name: next(iter(arrays.values())).shape[at] for at, name in enumerate(dimensions)}
    group.attrs.update(geozarr(shape["y"], shape["x"]) if attributes is None else attributes)
    for name, values in arrays.items():
        kept = {"dimension_names": dimensions, "config": {"write_empty_chunks": True}} | how
        group.create_array(name, shape=values.shape, dtype=values.dtype, **kept)[...] = values
    return path


def write_xarray(path: Path, bands: Mapping[str, NDArray[Any]], encoding: Mapping[str, Any]) -> Path:
    """With xarray and rioxarray: variables with CF coordinates and a grid mapping."""
    height, width = next(iter(bands.values())).shape
    y, x = centres(height, width)
    found = xr.Dataset({name: (("y", "x"), values) for name, values in bands.items()}, {"y": y, "x": x})
    found = found.rio.write_crs(EPSG)
    found.to_zarr(path, zarr_format=3, encoding=dict.fromkeys(bands, encoding), consolidated=False)
    return path


def zip_store(store: Path, inside: str = "") -> Path:
    """As one file beside it, not compressed once more; in a folder of the archive, where one is named."""
    path = store.with_name(f"{store.name}.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(store.rglob("*")):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(store)}")
    return path
