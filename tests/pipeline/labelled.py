"""Small label rasters on any grid, and what brute force makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from making import make_legend
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.table import ClassTable
from citycover.evidence.cells import Sheet
from citycover.model.archive import read_model_file
from citycover.model.builtin import builtin_path
from citycover.model.network import load_torchscript, write_torchscript
from citycover.synth.write import write_city

UTM = "EPSG:32633"
CLASSES = 4


def grid_of(shape: tuple[int, int], transform: Affine, crs: str = UTM) -> GeoBox:
    return GeoBox(shape, transform, crs)


def image_grid(shape: tuple[int, int], pixel: float = 1.0) -> GeoBox:
    return grid_of(shape, Affine(pixel, 0, 500_000, 0, -pixel, 5_800_000))


def own_table() -> ClassTable:
    legend = make_legend(CLASSES)
    return ClassTable.onto(legend, {id_: id_ for id_ in (0, *legend.ids)}, title="legend 'test'")


def write_sheet(path: Path, channels: NDArray[Any], grid: GeoBox, table: ClassTable | None = None) -> Sheet:
    """A raster of ids 1.. for channels 0.., nodata 0 for -1."""
    profile = {
        "driver": "GTiff",
        "height": channels.shape[0],
        "width": channels.shape[1],
        "count": 1,
        "dtype": "uint8",
        "nodata": 0,
        "crs": str(grid.crs),
        "transform": grid.transform,
    }
    with rasterio.open(path, "w", **profile) as out:
        out.write((channels + 1).astype(np.uint8), 1)
    return Sheet(path, grid, table or own_table())


def write_labelled_city(folder: Path, side: int) -> Path:
    """A practice city of `side` pixels, and a model beside it that knows how far to believe its labels."""
    write_city(folder, side, 3)
    write_knowing_model(folder / "model.pt")
    return folder


def write_knowing_model(path: Path, **fields: Any) -> Path:
    """The built-in rules for red, green, blue, near infrared, with a card that knows what labels need."""
    module = load_torchscript(builtin_path("spectral-rgbn"), "cpu")
    known = {"trained_prior": (0.05, 0.25, 0.35, 0.1, 0.25), "label_legend": "city"} | fields
    card = read_model_file(builtin_path("spectral-rgbn")).card.model_copy(update=known)
    write_torchscript(module, card, path)
    return path
