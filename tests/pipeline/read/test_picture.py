from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import write

from citycover.geometry.window import Window
from citycover.read import picture
from citycover.read.picture import read_picture
from citycover.scene.assemble import describe_scene

IMAGE = np.random.default_rng(4).integers(1, 250, (3, 64, 900), np.uint8)

CLEAR = np.where(np.indices(IMAGE.shape[1:]).sum(0) % 3 == 0, 0, 255).astype(np.uint8)
"""(y, x); 0 where nothing was seen."""


def hidden(folder: Path, kind: str) -> Path:
    """The image with CLEAR as its nodata, mask or alpha."""
    path = folder / f"{kind}.tif"
    if kind == "nodata":
        return write(path, np.where(CLEAR == 0, 0, IMAGE), nodata=0)
    if kind == "alpha":
        write(path, np.stack([*IMAGE, CLEAR]))
        with rasterio.open(path, "r+") as file:
            file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
        return path
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(write(path, IMAGE), "r+") as file:
        file.write_mask(CLEAR)
    return path


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha"])
def test_a_picture_shows_nothing_where_nothing_was_seen(tmp_path: Path, kind: str) -> None:
    scene = describe_scene([hidden(tmp_path, kind)], None)
    shown = read_picture(scene, Window(0, 0, *scene.shape))
    np.testing.assert_array_equal(shown.valid, CLEAR > 0)
    np.testing.assert_array_equal(shown.values[shown.valid], IMAGE.transpose(1, 2, 0)[CLEAR > 0])


def test_the_cache_of_a_picture_holds_two_rows_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decimated read goes line by line: with less, each block would be decoded for every line of it."""
    rows = 1 << 17
    profile = {"sparse_ok": True, "tiled": True, "blockxsize": 512, "blockysize": 512, "height": rows}
    path = tmp_path / "wide.tif"
    shape: dict[str, Any] = {"driver": "GTiff", "width": rows, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6),
                       **shape, **profile):  # fmt: skip
        pass
    seen: list[int] = []
    monkeypatch.setattr(
        picture, "_read_picture", lambda *_: seen.append(int(rasterio.env.getenv()["GDAL_CACHEMAX"]))
    )
    read_picture(describe_scene([path], None), Window(0, 0, 512, 512))
    assert seen[0] >= 2 * 512 * rows * 3


@pytest.mark.parametrize("blocks", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 32}])
@pytest.mark.parametrize("longest", [900, 333, 41])
def test_a_picture_shows_the_nearest_pixels(tmp_path: Path, blocks: dict[str, Any], longest: int) -> None:
    image = np.random.default_rng(1).integers(1, 250, (3, 700, 500), np.uint8)
    path = write(tmp_path / "image.tif", image, interleave="pixel", **blocks)
    part = Window(5, 3, 690, 490)
    shown = read_picture(describe_scene([path], None), part, longest)
    with rasterio.open(path) as file:
        window = rasterio.windows.Window(part.col, part.row, part.width, part.height)
        whole = file.read(window=window, out_shape=(3, *shown.valid.shape))
    np.testing.assert_array_equal(shown.values, whole.transpose(1, 2, 0))


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha"])
def test_a_picture_is_made_of_the_overview_that_is_fine_enough(tmp_path: Path, kind: str) -> None:
    path = hidden(tmp_path, kind)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    shown = read_picture(describe_scene([path], None), Window(0, 0, *CLEAR.shape), 300)
    with rasterio.open(path, overview_level=0) as file:
        sides = zip(shown.valid.shape, file.shape, strict=True)
        row, col = (np.floor((np.arange(n) + 0.5) * size / n).astype(int) for n, size in sides)
        pixels, seen = file.read([1, 2, 3])[:, row][..., col], file.dataset_mask()[row][:, col] > 0
    np.testing.assert_array_equal(shown.valid, seen)
    np.testing.assert_array_equal(shown.values[seen], pixels.transpose(1, 2, 0)[seen])


def test_a_picture_decodes_each_block_once_whatever_gdal_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others read beside, and take the cache."""
    image = np.zeros((3, 2048, 640), np.uint8)
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    path = write(tmp_path / "image.tif", image, interleave="pixel", **blocks)
    windows: list[Window] = []
    real = picture._read_rows

    def noted(dataset: Any, bands: Any, rows: Any, cols: Any) -> Any:
        windows.append(Window(int(rows[0]), int(cols[0]), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1))
        return real(dataset, bands, rows, cols)

    monkeypatch.setattr(picture, "_read_rows", noted)
    read_picture(describe_scene([path], None), Window(0, 0, 2048, 640), 100)
    touched = [row for one in windows for row in range(one.row // 64, -(-one.row_end // 64))]
    assert touched == list(range(2048 // 64))
