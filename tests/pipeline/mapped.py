"""Small products on disk, as a run would leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from making import make_legend, make_record
from numpy.typing import NDArray

from citycover.classes.legend import Legend

UTM = Affine(2, 0, 5e5, 0, -2, 5.8e6)


def write_raster(path: Path, values: NDArray[np.uint8], crs: str | None, transform: Affine) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
        dtype="uint8", crs=crs, transform=transform, nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return path


def write_product(
    folder: Path,
    classes: NDArray[np.uint8],
    confidence: NDArray[np.uint8] | None = None,
    legend: Legend | None = None,
    crs: str | None = "EPSG:32633",
    transform: Affine = UTM,
) -> Path:
    """Classes (ids of the legend, 0: none), confidence and record."""
    sure = np.where(classes > 0, 128, 0).astype(np.uint8) if confidence is None else confidence
    write_raster(folder / "landcover.tif", classes, crs, transform)
    write_raster(folder / "confidence.tif", sure, crs, transform)
    (folder / "run.json").write_text(make_record(legend or make_legend()).to_json())
    return folder


def patchy(shape: tuple[int, int], classes: int = 5, seed: int = 0, scale: int = 6) -> NDArray[np.uint8]:
    """Ids in smooth patches with speckle, and a corner without any."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, classes + 1, (shape[0] // scale + 1, shape[1] // scale + 1))
    ids = coarse.repeat(scale, 0).repeat(scale, 1)[: shape[0], : shape[1]].astype(np.uint8)
    speckle = rng.random(shape) < 0.1
    ids[speckle] = rng.integers(1, classes + 1, int(speckle.sum()))
    ids[: shape[0] // 5, : shape[1] // 5] = 0
    return ids


def on_map(pixels: shapely.Geometry) -> shapely.Geometry:
    """Pixel coordinates of the grid `UTM` as coordinates of its CRS."""
    return shapely.transform(pixels, lambda xy: np.column_stack(UTM * (xy[:, 0], xy[:, 1])))


def write_zones(
    path: Path, zones: dict[str, Any], crs: str | None = "EPSG:32633", column: str = "name"
) -> Path:
    features = [
        {"type": "Feature", "properties": {column: name}, "geometry": shapely.geometry.mapping(zone)}
        for name, zone in zones.items()
    ]
    document: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        document["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(document))
    return path
