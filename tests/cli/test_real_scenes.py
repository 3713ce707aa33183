"""Real imagery through the command line: grid, nodata, formats and metadata of the product."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.shutil
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rio_cogeo import cog_validate

SCENES = {
    "naip": (["vhr/naip_nd_series/m_4709963_se_14_1_20120731.tif"], [], "spectral-rgbn"),
    "massachusetts": (["vhr/massachusetts/22978945_15.tif"], [], "spectral-rgb"),
    "drone": (["pairs/oam_buildings_z21/oam_z21_block0.tif"], [], "spectral-rgb"),
    "sentinel2": (
        ["s2/s2_safe_29UNU/*_B0[234]_60m.jp2", "s2/s2_safe_29UNU/*_B8A_60m.jp2"],
        ["--nodata", "0"],
        "spectral-s2",
    ),
    "vegas": (["pairs/spacenet_vegas_bands/*-[RGBN].tif"], [], "spectral-rgbn"),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_real_scene_becomes_a_sound_product(
    citycover, real_data: Path, tmp_path: Path, validator: JsonSchemaSTACValidator, name: str
) -> None:
    patterns, flags, model = SCENES[name]
    files = sorted(str(f) for pattern in patterns for f in real_data.glob(pattern))
    out = tmp_path / "out"
    result = citycover("map", *files, "-o", out, *flags)
    assert result.code == 0, result.err
    assert json.loads((out / "run.json").read_text())["model"]["name"] == model
    with rasterio.open(files[0]) as source, rasterio.open(out / "landcover.tif") as product:
        assert (product.crs, product.transform, product.shape) == (source.crs, source.transform, source.shape)
        mapped = product.read(1) > 0
        assert set(product.colormap(1)[2]) != {0}
    np.testing.assert_array_equal(mapped, valid_in_every(files, flags))
    for raster in ("landcover.tif", "confidence.tif"):
        assert cog_validate(out / raster, strict=True)[0]
    with rasterio.open(out / "confidence.tif") as confidence:
        np.testing.assert_array_equal(confidence.read(1) > 0, mapped)
        assert confidence.scales == (1 / 255,)
    item = pystac.Item.from_file(str(out / "item.json"))
    assert len(item.validate(validator)) == 1 + len(item.stac_extensions)
    rasterio.shutil.copy(out / "landcover.tif", tmp_path / "names.vrt", driver="VRT")
    names = [e.text for e in ET.parse(tmp_path / "names.vrt").iter("Category")]
    assert names[1:6] == ["Water", "Dense vegetation", "Sparse vegetation", "Bare", "Built-up"]


def valid_in_every(files: list[str], flags: list[str]) -> np.ndarray:
    """Where rasterio sees a valid pixel in every band of every file."""
    masks = []
    for file in files:
        with rasterio.open(file) as source:
            if "--nodata" in flags:
                masks.append((source.read() != float(flags[-1])).all(0))
            else:
                masks.append((source.read_masks() > 0).all(0))
    return np.logical_and.reduce(masks)
