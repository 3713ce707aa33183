"""`citycover inspect` of scenes: where they lie, and what their numbers are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.enums import ColorInterp

PLACE = Affine(1, 0, 500_000, 0, -1, 5_800_000)


def test_opacity_beside_four_bands_counts(citycover, tmp_path: Path) -> None:
    values = np.full((5, 100, 100), 7, np.uint16)
    values[4, :30] = 0
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=100, width=100, count=5, dtype="uint16",
        crs="EPSG:32633", transform=PLACE,
    ) as dataset:  # fmt: skip
        dataset.write(values)
        colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)
        dataset.colorinterp = (*colours, ColorInterp.alpha)
    (facts,) = json.loads(citycover("inspect", tmp_path / "a.tif", "--json").out)
    assert facts["valid"] == "70.0%"
    corner = Transformer.from_crs(32633, 4326, always_xy=True).transform(500_000, 5_799_900)
    assert facts["west, south, east, north"][:2] == pytest.approx(corner, abs=2e-5)


def test_a_local_grid_is_no_place_on_the_earth(citycover, tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=10, width=10, count=3, dtype="uint8",
        crs=rasterio.crs.CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]'), transform=PLACE,
    ) as dataset:  # fmt: skip
        dataset.write(np.ones((3, 10, 10), np.uint8))
    (facts,) = json.loads(citycover("inspect", tmp_path / "a.tif", "--json").out)
    assert facts["west, south, east, north"] == "no place on the Earth"


def test_what_is_too_large_to_look_at_says_so(citycover, tmp_path: Path) -> None:
    rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=100_000, width=100_000, count=3, dtype="uint8",
        crs="EPSG:32633", transform=PLACE, tiled=True, blockxsize=8192, blockysize=8192, sparse_ok=True,
        bigtiff=True,
    ).close()  # fmt: skip
    (facts,) = json.loads(citycover("inspect", tmp_path / "a.tif", "--json").out)
    assert "make overviews" in facts["statistics"]


def test_a_product_says_what_made_it(citycover, scene: Path, tmp_path: Path) -> None:
    assert citycover("map", scene, "-o", tmp_path / "out").code == 0
    told = citycover("inspect", tmp_path / "out").out
    assert "spectral-rgbn, built-in colour rules, extrapolating" in told and str(scene) in told
    facts = json.loads(citycover("inspect", tmp_path / "out", "--json").out)
    assert facts == json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out").rename(tmp_path / "copy")
    assert citycover("map", scene, "-o", tmp_path / "out").code == 0
    several = ("inspect", tmp_path / "out", "spectral-rgbn", tmp_path / "copy", scene)
    product, model, copy, image = json.loads(citycover(*several, "--json").out)
    assert product["card"] == model["card"]
    assert copy == facts and image["path"] == str(scene)
    told = citycover(*several).out
    assert told.count("spectral-rgbn, built-in colour rules") == 2 and "confidence.tif" not in told


@pytest.mark.parametrize(
    ("name", "mean", "mask"),
    [
        ("T29UNU_20221005T115411_B02_60m.tif", "nothing says so", None),
        ("LC80320272014265LGN00_B2.TIF", "counts of Landsat level 1", None),
        (
            "LC08_L2SP_193024_20210615_20210622_02_T1_SR_B4.TIF",
            "2.75e-05 x - 0.2, reflectance; a model of reflectance x 10000 is given 0.275 x - 2000",
            None,
        ),
        ("T29UNU_20221005T115411_SCL_20m.tif", "nothing says so", "--mask scl"),
    ],
)
def test_units_masks_and_what_would_be_converted_are_told(
    citycover, tmp_path: Path, name: str, mean: str, mask: str | None
) -> None:
    with rasterio.open(
        tmp_path / name, "w", driver="GTiff", height=10, width=10, count=1, dtype="uint16", crs="EPSG:32633",
        transform=PLACE,
    ) as dataset:  # fmt: skip
        dataset.write(np.full((1, 10, 10), 9000, np.uint16))
    (facts,) = json.loads(citycover("inspect", tmp_path / name, "--json").out)
    assert (facts["numbers mean"], facts["known mask"]) == (mean, mask)
    assert mean in " ".join(citycover("inspect", tmp_path / name).out.split())
