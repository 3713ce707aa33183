"""A product folder opened again. xarray is imported by what gives datasets: to find a raster needs none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.errors import ConfigError, SceneError
from citycover.model.card import ModelCard
from citycover.plan.layers import CLASSES, LAYERS, USUAL, Layer, layers_named
from citycover.product.record import read_record

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr


def find_raster(path: Path) -> tuple[Path, Legend | None]:
    """The class raster of a product folder with the legend that its run.json holds; or a raster as it is.

    Raises:
        ConfigError: there is nothing, or a folder that is no product, or whose run.json cannot be read.
    """
    raster = path / CLASSES.file if path.is_dir() else path
    if not raster.exists():
        what = f"holds no {CLASSES.file}" if path.is_dir() else "does not exist"
        raise ConfigError(f"{path} {what}; give a folder that `citycover map` wrote, or a class raster")
    run = raster.with_name("run.json")
    if raster.name != CLASSES.file or not run.is_file():
        return raster, None
    return raster, read_record(run).legend


def open_product(folder: str | Path) -> xr.Dataset:
    """Open the rasters of a product folder lazily, as `predict_array` gives them.

    Attributes: `run`, the content of run.json.

    Raises:
        SceneError: the folder holds no finished product.
        ConfigError: its run.json cannot be read.
    """
    import rioxarray
    import xarray as xr

    folder = Path(folder)
    needed = (*(layer.file for layer in USUAL), "run.json")
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise SceneError(
            f"{folder} holds no {' and no '.join(missing)}; give the folder that `citycover map` wrote, whole"
        )
    record = read_record(folder / "run.json")
    maps = {}
    for layer in (layer for layer in LAYERS if (folder / layer.file).is_file()):
        raster = rioxarray.open_rasterio(folder / layer.file, chunks={"y": 2048, "x": 2048})
        assert isinstance(raster, xr.DataArray), "a COG of bands of one type is one array"
        maps[layer.name] = raster if layer.per_class else raster.squeeze("band", drop=True)
    grid = grid_of_image(maps[CLASSES.name])
    dataset = as_dataset({name: raster.data for name, raster in maps.items()}, grid, record.card)
    return dataset.assign_attrs(run=record.facts())


def grid_of_image(image: xr.DataArray) -> GeoBox:
    """The grid of an image that rioxarray knows."""
    height, width = image.shape[-2:]
    return GeoBox((height, width), image.rio.transform(), image.rio.crs)


def as_dataset(maps: Mapping[str, da.Array], grid: GeoBox, card: ModelCard) -> xr.Dataset:
    """Layers of a map, ([class,] y, x) by name, with what they mean and where they lie."""
    import xarray as xr
    from odc.geo.xr import xr_coords

    legend, layers = card.legend, layers_named(maps)
    plane = grid.dimensions
    found = {
        layer.name: (
            ("class", *plane) if layer.per_class else plane, maps[layer.name], _attributes(layer, legend)
        )
        for layer in layers
    }  # fmt: skip
    dataset = xr.Dataset(found, coords=xr_coords(grid))
    if any(layer.per_class for layer in layers):
        ids = np.array(card.channels, dtype=np.uint8)
        dataset = dataset.assign_coords({"class": ("class", ids, _flags(legend))})
    return dataset.rename(dict(zip(plane, ("y", "x"), strict=True)))


def _attributes(layer: Layer, legend: Legend) -> dict[str, Any]:
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
