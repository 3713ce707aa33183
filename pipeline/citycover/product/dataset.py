"""Layers of a map as an xarray Dataset. xarray is imported by what gives datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.plan.layers import Layer, layers_named

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr


def grid_of_image(image: xr.DataArray) -> GeoBox:
    """The grid of an image that rioxarray knows."""
    import rioxarray  # noqa: F401 - gives arrays their `rio`

    height, width = image.shape[-2:]
    return GeoBox((height, width), image.rio.transform(), image.rio.crs)


def as_dataset(
    maps: Mapping[str, da.Array], grid: GeoBox, legend: Legend, channels: Sequence[int]
) -> xr.Dataset:
    """Layers of a map, ([class,] y, x) by name, with what they mean and where they lie.

    Args:
        maps: each layer.
        grid: of the map.
        legend: of its classes.
        channels: id of the class of each band of layers that have one for each.
    """
    layers = layers_named(maps)
    found = coordinates_of(grid, legend, channels if any(layer.per_class for layer in layers) else ())
    return found.assign(
        {
            layer.name: (
                ("class", "y", "x") if layer.per_class else ("y", "x"),
                maps[layer.name],
                attributes_of(layer, legend),
            )
            for layer in layers
        }
    )


def coordinates_of(grid: GeoBox, legend: Legend, channels: Sequence[int]) -> xr.Dataset:
    """The coordinates of a map, at the centres of its pixels, without a layer yet.

    Args:
        grid: of the map.
        legend: of its classes.
        channels: id of the class of each band; empty: no layer has a band for each.
    """
    dataset = _coordinates(grid)
    if channels:
        ids = np.array(channels, dtype=np.uint8)
        dataset = dataset.assign_coords({"class": ("class", ids, _flags(legend))})
    return dataset


def _coordinates(grid: GeoBox) -> xr.Dataset:
    import rioxarray  # noqa: F401 - gives datasets their `rio`
    import xarray as xr
    from odc.geo.xr import xr_coords

    if grid.crs is None or grid.crs.projected or grid.crs.geographic:
        found = xr.Dataset(coords=xr_coords(grid))
        return found.rename(dict(zip(grid.dimensions, ("y", "x"), strict=True)))
    # A local grid, which is no place on the Earth: odc-geo has no names for its axes.
    found = xr.Dataset(coords=xr_coords(GeoBox(grid.shape, grid.transform, None)))
    located: xr.Dataset = found.rio.write_crs(str(grid.crs)).rio.write_transform(grid.transform)
    return located


def attributes_of(layer: Layer, legend: Legend) -> dict[str, Any]:
    """CF attributes of a layer."""
    found = {"_FillValue": layer.nodata_of(legend), "grid_mapping": "spatial_ref"}
    if not layer.categorical:
        return found | {"scale_factor": layer.scale, "long_name": layer.title}
    return found | _flags(legend) | {"long_name": legend.title or legend.name}


def _flags(legend: Legend) -> dict[str, Any]:
    """CF attributes of numbers that are ids of a legend."""
    return {
        "flag_values": np.array(legend.ids, dtype=np.uint8),
        "flag_meanings": " ".join(name.lower().replace(" ", "_") for name in legend.names),
    }
