"""Small raster files for tests, and one way to read them."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from citycover.geometry.window import Window
from citycover.read.raster import RasterReader
from citycover.read.reader import Hole
from citycover.scene.assemble import describe_scene
from citycover.scene.scene import Scene

CORNER = Affine(0.5, 0, 5e5, 0, -0.5, 5.8e6)
"""Where images begin that are cut into parts."""


def write(path: Path, values: np.ndarray, **changes: object) -> Path:
    profile = {
        "driver": "GTiff", "height": values.shape[1], "width": values.shape[2], "count": len(values),
        "dtype": values.dtype, "crs": "EPSG:32633", "transform": Affine(1, 0, 5e5, 0, -1, 5.8e6),
    } | changes  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
    return path


def read_rows(path: Path, threads: int, rows: int = 1 << 30) -> tuple[np.ndarray, np.ndarray, list[Hole]]:
    """Read a scene in windows of full width and some rows; the numbers are 0 where invalid."""
    scene = describe_scene([path], None)
    reader = RasterReader(scene.groups[0], threads=threads)
    values = np.zeros((*reader.shape, reader.bands), reader.dtype)
    valid = np.zeros(reader.shape, np.bool_)
    holes: list[Hole] = []
    for row in range(0, reader.shape[0], rows):
        window = Window(row, 0, min(rows, reader.shape[0] - row), reader.shape[1])
        holes += reader.read_into(window, values[window.slices], valid[window.slices])
    reader.close()
    values[~valid] = 0
    return values, valid, holes


def mosaic(folder: Path, side: int, tile: int = 32) -> Path:
    """A VRT of `side` x `side` tiles of one band, none of whose pixels is 0."""
    sources = []
    for i in range(side * side):
        row, col = divmod(i, side)
        transform = rasterio.Affine(1, 0, 5e5 + col * tile, 0, -1, 5.8e6 - row * tile)
        write(folder / f"{i}.tif", np.full((1, tile, tile), 1 + i % 255, np.uint8), transform=transform)
        place = f'xSize="{tile}" ySize="{tile}"'
        sources.append(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{i}.tif</SourceFilename>'
            f"<SourceBand>1</SourceBand>"
            f'<SourceProperties RasterXSize="{tile}" RasterYSize="{tile}" DataType="Byte" '
            f'BlockXSize="{tile}" BlockYSize="{tile}"/>'
            f'<SrcRect xOff="0" yOff="0" {place}/><DstRect xOff="{col * tile}" yOff="{row * tile}" {place}/>'
            "</SimpleSource>"
        )
    size = side * tile
    vrt = folder / "mosaic.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000,1,0,5800000,0,-1</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1">{"".join(sources)}</VRTRasterBand></VRTDataset>'
    )
    return vrt


def part_of(image: NDArray[np.generic], part: Window, path: str | Path, **changes: object) -> str:
    """A part of an image that begins at CORNER, as a file of its own."""
    transform = CORNER * Affine.translation(part.col, part.row)
    profile = {"driver": "GTiff", "dtype": image.dtype, "crs": "EPSG:32633", "transform": transform} | changes
    with rasterio.open(path, "w", count=len(image), height=part.height, width=part.width, **profile) as file:
        file.write(image[(slice(None), *part.slices)])
    return str(path)


def read_scene(scene: Scene, parts: list[Window] | None = None) -> tuple[np.ndarray, np.ndarray, list]:
    """All of a scene, in windows; (y, x, band) with 0 where invalid."""
    reader = RasterReader(scene.groups[0], scene.resampling)
    values, valid = np.zeros((*reader.shape, reader.bands), reader.dtype), np.zeros(reader.shape, np.bool_)
    holes = []
    for window in parts or [Window(0, 0, *reader.shape)]:
        holes += reader.read_into(window, values[window.slices], valid[window.slices])
    reader.close()
    return np.where(valid[..., None], values, 0), valid, holes
