"""Many sheets through the command line: the map is that of the raster that they were cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from conftest import write_scene

CORNER = Affine(1, 0, 500_000, 0, -1, 5_800_000)


def cut(path: Path, folder: Path) -> list[Path]:
    """Sheets of a scene that overlap here and there, one of them on the half pixel in name only."""
    with rasterio.open(path) as scene:
        image = scene.read()
    sheets = []
    for row, col, height, width in [(0, 0, 70, 60), (0, 55, 50, 65), (70, 0, 20, 60), (45, 60, 45, 60)]:
        part = image[:, row : row + height, col : col + width]
        at = CORNER * Affine.translation(col, row)
        sheets.append(write_scene(folder / f"{row}_{col}.tif", (height, width), values=part, transform=at))
    return sheets


def test_sheets_map_as_the_whole(citycover, tmp_path: Path) -> None:
    whole = write_scene(tmp_path / "whole.tif")
    sheets = cut(whole, tmp_path)
    options = ("--model", "spectral-rgbn", "--window", "64", "--device", "cpu")
    maps = []
    for name, files in (("one", [whole]), ("many", sheets), ("fed", sheets)):
        extra = ("--overlap", "feather") if name == "fed" else ()
        result = citycover("map", *files, "-o", tmp_path / name, *options, *extra)
        assert result.code == 0, result.err
        with rasterio.open(tmp_path / name / "landcover.tif") as product:
            maps.append((product.read(1), product.transform))
    for classes, transform in maps[1:]:
        assert transform == maps[0][1]
        np.testing.assert_array_equal(classes, maps[0][0])


def test_gaps_between_sheets_are_nodata_and_a_changed_sheet_stops_resume(citycover, tmp_path: Path) -> None:
    sheets = cut(write_scene(tmp_path / "whole.tif"), tmp_path)
    out = tmp_path / "out"
    result = citycover("map", sheets[0], sheets[3], "-o", out, "--model", "spectral-rgbn")
    assert result.code == 0, result.err
    with rasterio.open(out / "landcover.tif") as product:
        mapped = product.read(1) > 0
    assert mapped[:70, :60].all() and mapped[45:, 60:].all() and mapped.sum() == 70 * 60 + 45 * 60
    assert citycover("map", sheets[0], sheets[3], "-o", out, "--model", "spectral-rgbn").code == 5
    assert citycover("map", sheets[3], sheets[0], "-o", out, "--model", "spectral-rgbn").code == 2


def test_a_plan_takes_sheets_and_bad_words_are_told(citycover, tmp_path: Path) -> None:
    sheets = cut(write_scene(tmp_path / "whole.tif"), tmp_path)
    result = citycover("plan", *sheets, "--model", "spectral-rgbn", "--no-probe")
    assert result.code == 0 and "90 x 120 px" in result.out
    for option, value in (("--overlap", "last"), ("--resampling", "sinc"), ("--grid", "Berlin")):
        result = citycover("plan", *sheets, option, value, "--no-probe")
        assert result.code == 2 and option in result.err


def test_a_band_of_another_resolution_maps_as_if_it_had_been_warped_before(citycover, tmp_path: Path) -> None:
    whole = write_scene(tmp_path / "whole.tif")
    with rasterio.open(whole) as scene:
        image, crs = scene.read(), scene.crs
    height, width = image.shape[1:]
    profile = {"driver": "GTiff", "height": height, "width": width, "crs": crs, "dtype": "uint8"}
    coarse = image[3, ::2, ::2].copy()
    shape = {"height": coarse.shape[0], "width": coarse.shape[1], "transform": CORNER * Affine.scale(2)}
    with rasterio.open(
        tmp_path / "rgb.tif", "w", count=3, transform=CORNER, photometric="rgb", **profile
    ) as file:
        file.write(image[:3])
    with rasterio.open(tmp_path / "x_nir.tif", "w", count=1, **profile | shape) as file:
        file.write(coarse, 1)
    fine = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    before = write_scene(
        tmp_path / "before.tif", (height, width), values=np.concatenate([image[:3], fine[None]])
    )
    options = ("--model", "spectral-rgbn", "--device", "cpu", "--window", "64", "--resampling", "nearest")
    parts = tmp_path / "rgb.tif", tmp_path / "x_nir.tif"
    for name, files in (("two", parts), ("one", (before,))):
        done = citycover("map", *files, "-o", tmp_path / name, *options)
        assert done.code == 0, done.err
        assert ("x_nir.tif (nearest)" in done.err) == (name == "two")
    maps = []
    for name in ("two", "one"):
        with rasterio.open(tmp_path / name / "landcover.tif") as file:
            maps.append(file.read(1))
    np.testing.assert_array_equal(*maps)
