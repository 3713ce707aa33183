"""What can be shown, and what is said of what cannot."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from mapped import patchy, write_product, write_raster
from pyproj import Transformer
from rasterio.enums import Resampling
from stores import EPSG, NORTH, WEST, write_arrays, zip_store

from citycover.errors import ConfigError
from citycover.view.maps import find_maps
from citycover.view.mercator import MERCATOR, TILE, Tile, window_grid
from citycover.view.pixels import least_level, read_at, read_on

CLASSES = patchy((60, 80))


def dated(folder: Path, time: str | None) -> Path:
    write_product(folder, CLASSES)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"time": time}))
    return folder


def test_the_maps_of_a_folder_come_oldest_first(tmp_path: Path) -> None:
    dated(tmp_path / "a", "2024-05-01T10:00:00Z")
    dated(tmp_path / "b", "2018-05-01T10:00:00Z")
    (tmp_path / "notes").mkdir()
    assert [shown.name for shown in find_maps([tmp_path])] == ["b", "a"]
    assert [shown.name for shown in find_maps([tmp_path / "a", tmp_path / "b"])] == ["b", "a"]


def test_a_map_says_its_layers_and_where_it_lies(tmp_path: Path) -> None:
    (shown,) = find_maps([write_product(tmp_path / "p", CLASSES)])
    assert [layer.name for layer in shown.layers] == ["classes", "confidence"]
    west, south, east, north = shown.bounds
    assert 14.9 < west < east < 15.1 and 52.3 < south < north < 52.4
    assert shown.native == 16 and shown.least == 0


def test_a_class_raster_is_shown_with_a_legend(tmp_path: Path) -> None:
    write_raster(tmp_path / "map.tif", CLASSES % 5, "EPSG:32633", Affine(2, 0, 5e5, 0, -2, 5.8e6))
    (shown,) = find_maps([tmp_path / "map.tif"], "base4")
    assert shown.name == "map.tif" and [layer.name for layer in shown.layers] == ["classes"]
    with pytest.raises(ConfigError, match="--map-legend"):
        find_maps([tmp_path / "map.tif"])


def test_a_store_is_shown_as_the_file_is(tmp_path: Path) -> None:
    store = write_arrays(tmp_path / "map.zarr", {"cover": CLASSES % 5 + 1}, chunks=(16, 32))
    (shown,) = find_maps([store], "base4")
    assert (shown.name, shown.source.path) == ("map.zarr", store / "cover")
    write_raster(tmp_path / "map.tif", CLASSES % 5 + 1, f"EPSG:{EPSG}", Affine(1, 0, WEST, 0, -1, NORTH))
    (file,) = find_maps([tmp_path / "map.tif"], "base4")
    assert (shown.bounds, shown.native, shown.least) == (file.bounds, file.native, file.least)
    west, south, east, north = shown.bounds
    for one, other in ((west, south), ((west + east) / 2, (south + north) / 2), (east + 1, north)):
        assert read_at(shown.source.path, one, other) == read_at(file.source.path, one, other)
    tiles = [read_on(one.source.path, window_grid(shown.bounds, 111), (1,)) for one in (shown, file)]
    np.testing.assert_array_equal(tiles[0].filled(0), tiles[1].filled(0))
    assert tiles[0].any()
    (packed,) = find_maps([zip_store(store)], "base4")
    assert packed.bounds == shown.bounds and packed.edition not in {"0", shown.edition}
    before = shown.edition
    (store / "cover/c/0/0").write_bytes(b"other")
    assert shown.edition != before


@pytest.mark.parametrize("level", [0, 12, 18, 20, 22])
def test_a_pixel_of_a_tile_is_the_one_of_the_file_that_its_centre_lies_in(tmp_path: Path, level: int) -> None:
    """Of a file of several bands without overviews, from near and from where it is less than a pixel."""
    transform = Affine(0.1, 0, 391_000, 0, -0.1, 5_800_600)
    pixels = np.stack([patchy((400, 500), seed=seed) for seed in range(3)])
    with rasterio.open(
        tmp_path / "image.tif", "w", driver="GTiff", width=500, height=400, count=3, dtype="uint8",
        crs="EPSG:32633", transform=transform, nodata=0,
    ) as image:  # fmt: skip
        image.write(pixels)
    size = 2 * math.pi * 6_378_137 / 2**level
    x, y = Transformer.from_crs("EPSG:32633", MERCATOR, always_xy=True).transform(*(transform * (250, 200)))
    tile = Tile(level, int(2**level / 2 - y / size), int(2**level / 2 + x / size))
    seen = read_on(tmp_path / "image.tif", tile.grid, (1, 2, 3))
    down, right = np.mgrid[0:TILE, 0:TILE] + 0.5
    places = Transformer.from_crs(MERCATOR, "EPSG:32633", always_xy=True).transform(
        *(tile.grid.transform * (right, down))
    )
    col, row = ~transform * np.where(np.isfinite(places), places, -1e9)
    inside = (row >= 0) & (row < 400) & (col >= 0) & (col < 500)
    clear = np.all([np.abs(at - np.round(at)) > 0.2 for at in (row, col)], axis=0)  # GDAL is that exact
    told = np.zeros((3, TILE, TILE), np.uint8)
    told[:, inside] = pixels[:, row[inside].astype(int), col[inside].astype(int)]
    np.testing.assert_array_equal(seen.filled(0)[:, clear], told[:, clear])
    assert told.any() or level < 18


def test_a_tile_is_read_from_the_coarsest_overview_that_is_fine_enough(tmp_path: Path) -> None:
    near = Tile(16, 21_500, 35_150).grid
    path = write_raster(
        tmp_path / "map.tif", np.tile(np.uint8([10, 30]), (255, 128))[:, :255], MERCATOR, near.transform
    )
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2], Resampling.average)
    assert set(read_on(path, near, (1,)).compressed().tolist()) == {10, 30}
    assert set(read_on(path, Tile(15, 10_750, 17_575).grid, (1,)).compressed().tolist()) <= {
        10,
        20,
    }  # the edge


@pytest.mark.parametrize("gone", ["landcover.tif", "confidence.tif", "run.json"])
def test_half_a_product_is_refused_and_in_a_folder_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    write_product(tmp_path / "whole", CLASSES)
    (write_product(tmp_path / "half", CLASSES) / gone).unlink()
    with pytest.raises(ConfigError, match=f"holds no .*{gone}"):
        find_maps([tmp_path / "half"])
    with caplog.at_level(logging.WARNING):
        assert [shown.name for shown in find_maps([tmp_path])] == ["whole"]
    assert gone in caplog.text
    (tmp_path / "whole").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(ConfigError, match=gone):
        find_maps([tmp_path])


def test_a_folder_without_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no product, and neither does a folder in it"):
        find_maps([tmp_path])
    with pytest.raises(ConfigError, match="does not exist"):
        find_maps([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("crs", "transform", "said"),
    [
        ('LOCAL_CS["site",UNIT["metre",1]]', Affine(2, 0, 0, 0, -2, 0), "no place on the Earth"),
        ("EPSG:3413", Affine(2, 0, 0, 0, -2, 0), "where web maps end"),
        (None, Affine(2, 0, 0, 0, -2, 0), "no CRS"),
    ],
)
def test_what_web_maps_cannot_show_is_refused(
    tmp_path: Path, crs: str | None, transform: Affine, said: str
) -> None:
    write_product(tmp_path / "p", CLASSES, crs=crs, transform=transform)
    with pytest.raises(ConfigError, match=said):
        find_maps([tmp_path / "p"])


def test_a_map_over_180_degrees_has_an_east_beyond_it(tmp_path: Path) -> None:
    write_product(tmp_path / "p", CLASSES, crs="EPSG:4326", transform=Affine(0.01, 0, 179.7, 0, -0.01, -16))
    (shown,) = find_maps([tmp_path / "p"])
    assert shown.bounds[0] == pytest.approx(179.7) and shown.bounds[2] == pytest.approx(180.5)


def test_a_large_file_is_shown_from_near_unless_it_has_overviews(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    profile = {
        "driver": "GTiff", "width": 8192, "height": 8192, "count": 1, "dtype": "uint8", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "sparse_ok": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.zeros((1, 1), np.uint8), 1, window=rasterio.windows.Window(0, 0, 1, 1))
    with rasterio.open(path) as dataset:
        assert least_level(dataset, 17) == 13  # tiles of 4096 pixels each way
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8, 16, 32])
    with rasterio.open(path) as dataset:
        assert least_level(dataset, 17) == 0
