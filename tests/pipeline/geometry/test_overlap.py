"""Images that lie over each other: nobody learns from what another holds out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import box

from citycover.geometry.overlap import find_overlaps, seen_from
from citycover.geometry.window import Window
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.data.sampling import SamplePlan, plan_samples

HERE = Affine(1, 0, 500_000, 0, -1, 5_800_000)


def shifted(x: int, y: int = 0) -> GeoBox:
    return GeoBox((256, 256), HERE * Affine.translation(x, y), "EPSG:32633")


def training_set_at(folder: Path, *shifts: tuple[int, int]) -> TrainingSet:
    """Images of 256 x 256 px at places, with labels of one class or the other by columns."""
    items = []
    codes = np.arange(256, dtype=np.uint8)[None].repeat(256, 0) // 32 % 2 + 1
    for number, (x, y) in enumerate(shifts):
        profile = {
            "driver": "GTiff", "height": 256, "width": 256, "dtype": "uint8", "crs": "EPSG:32633",
            "transform": HERE * Affine.translation(x, y),
        }  # fmt: skip
        image, labels = (str(folder / f"{name}-{number}.tif") for name in ("image", "labels"))
        with rasterio.open(image, "w", count=3, photometric="rgb", **profile) as file:
            file.write(np.random.default_rng(number).integers(0, 255, (3, 256, 256), dtype=np.uint8))
        with rasterio.open(labels, "w", count=1, **profile) as file:
            file.write(codes, 1)
        items.append(ImageAndLabels(image, (labels,)))
    return prepare_training_set(items, ["base4"], None)


def plan_of(training_set: TrainingSet, validation: float = 0.2) -> SamplePlan:
    return plan_samples(
        training_set.pairs, 4, chip=16, chips_per_epoch=200, balance="uniform", validation=validation, seed=3
    )


def on_the_ground(window: Window, grid: GeoBox) -> object:
    west, north = grid.transform * (window.col, window.row)
    east, south = grid.transform * (window.col_end, window.row_end)
    return box(west, south, east, north)


@pytest.mark.parametrize("shifts", [((0, 0), (128, 0)), ((0, 0), (100, -60), (-90, 40)), ((0, 0), (0, 0))])
def test_no_chip_touches_what_any_image_holds_out(
    tmp_path: Path, shifts: tuple[tuple[int, int], ...]
) -> None:
    training_set = training_set_at(tmp_path, *shifts)
    plan, grids = plan_of(training_set), [pair.scene.grid for pair in training_set.pairs]
    held = [
        on_the_ground(w, g) for cells, g in zip(plan.cells, grids, strict=True) for w in cells.held_windows()
    ]
    chips = list(plan.epoch(0))
    assert {chip.pair for chip in chips} == set(range(len(shifts)))
    for chip in chips:
        place = on_the_ground(chip.window, grids[chip.pair])
        assert not any(place.intersection(block).area > 0 for block in held)


def test_a_place_seen_many_times_is_held_out_once(tmp_path: Path) -> None:
    plan = plan_of(training_set_at(tmp_path, *[(0, 0)] * 6))
    assert [int(cells.held_out.sum()) for cells in plan.cells] == [13, 0, 0, 0, 0, 0]  # 0.2 of 64 blocks
    assert all(len(cells.elsewhere) == 13 for cells in plan.cells[1:])


def test_images_side_by_side_do_not_hinder_each_other(tmp_path: Path) -> None:
    apart = plan_of(training_set_at(tmp_path, (0, 0), (256, 0)))
    assert not any(cells.elsewhere for cells in apart.cells)
    assert all(cells.held_out.sum() == 13 for cells in apart.cells)


def test_overlaps_are_found_across_reference_systems() -> None:
    a, b, far = shifted(0), shifted(200), shifted(5000)
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    west, north = to_degrees.transform(500_100, 5_799_900)
    degrees = GeoBox((100, 100), Affine(2e-5, 0, west, 0, -1.3e-5, north), "EPSG:4326")
    assert find_overlaps([a, b, far, degrees]) == [[1, 3], [0, 3], [], [0, 1]]


@pytest.mark.parametrize("seed", range(8))
def test_what_is_seen_from_another_grid_holds_every_shared_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    west, north = to_degrees.transform(500_050, 5_799_950)
    other = GeoBox((90, 110), Affine(1.7e-5, 0, west, 0, -1.1e-5, north), "EPSG:4326")
    row, col = rng.integers(0, 200, 2).tolist()
    window = Window(row, col, 50, 40)
    seen = seen_from(window, shifted(0), other)
    rows, cols = row + 50 * rng.random(500), col + 40 * rng.random(500)
    lon, lat = to_degrees.transform(*(HERE * (cols, rows)))
    x, y = ~other.transform * (np.asarray(lon), np.asarray(lat))
    inside = (x >= 0) & (x < 110) & (y >= 0) & (y < 90)
    if seen is None:
        assert not inside.any()
        return
    assert ((x >= seen.col) & (x < seen.col_end) & (y >= seen.row) & (y < seen.row_end))[inside].all()
    assert seen.pixels < 4 * 50 * 40
