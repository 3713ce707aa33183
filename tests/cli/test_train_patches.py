"""BigEarthNet on the command line: trained, exported in both formats, mapped by one process and by two."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.run.map import map_scene

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from patches_making import BANDS, V1, v2_rows, write_v1, write_v2

QUICK = ("--set", "epochs=1", "--set", "batch=4", "--set", "network=band-fusion-intermediate-resnet18")
SIDE = 480
"""Pixels of 10 m: 8 x 8 cells of a label grid."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ben") / "v2"
    write_v2(folder, v2_rows(12, ("Austria", "Finland")))
    return folder


def write_scene(folder: Path) -> list[Path]:
    """A Sentinel-2 scene of twelve files, water in the west and forest in the east."""
    folder.mkdir()
    rng, files = np.random.default_rng(0), []
    for band, side in BANDS.items():
        size = SIDE * side // 120
        level = np.where(np.arange(size) < size // 2, 6100, 3850)[None] + rng.integers(0, 200, (size, size))
        profile = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint16"}
        transform = from_origin(500_000, 5_000_000, 1200 / side, 1200 / side)
        place = {"crs": "EPSG:32633", "transform": transform}
        files.append(folder / f"T33UUU_20240615T101031_{band}.tif")
        with rasterio.open(files[-1], "w", **profile, **place) as sink:
            sink.write(level.astype(np.uint16), 1)
    return files


def test_from_patches_to_a_city_map(citycover, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained = citycover(
        "train", "--recipe", "band-fusion-light", "--layout", "bigearthnet", "--folder", folder, "--shards",
        tmp_path / "shards", "--region", "Austria", "--test-region", "Finland", *QUICK, "-o", out, "--json",
        "--workers", 0,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    said = json.loads(trained.out)
    assert said["test"]["patches"] == 2 and 0 <= said["validation_map"] <= 1
    name, weights = "band-fusion-intermediate-resnet18", out / "weights.safetensors"
    exported = citycover("export", name, "--weights", weights, "-o", tmp_path / "model.pt2")
    assert exported.code == 0, exported.err
    files = tuple(map(str, write_scene(tmp_path / "scene")))
    maps = {}
    for key, model, workers in (("one", said["model"], None), ("two", said["model"], 2),
                                ("pt2", str(tmp_path / "model.pt2"), None)):  # fmt: skip
        engine = EngineOptions(precision="fp32", workers=workers)
        request = MapRequest(Imagery(files), tmp_path / key, model, engine=engine, layers=("probabilities",))
        map_scene(request)
        maps[key] = {file.stem: read(file) for file in sorted((tmp_path / key).glob("*.tif"))}
    assert maps["one"].keys() == {"landcover", "labels", "confidence", "probabilities"}
    for file, pixels in maps["one"].items():
        assert np.array_equal(pixels, maps["two"][file]) and np.array_equal(pixels, maps["pt2"][file]), file
    probable, hot, dominant = (maps["one"][file] for file in ("probabilities", "labels", "landcover"))
    assert dominant.shape == (1, SIDE // 60, SIDE // 60) and len(probable) == len(hot) == 19
    with rasterio.open(tmp_path / "one" / "probabilities.tif") as source:
        likely, step = probable * source.scales[0], source.scales[0]
    certain = np.abs(likely - 0.5) > step
    assert np.array_equal((hot == 1)[certain], (likely >= 0.5)[certain])
    assert np.array_equal(np.take_along_axis(probable, dominant.astype(int), 0)[0], probable.max(0))


def read(file: Path) -> np.ndarray:
    """(band, y, x)."""
    with rasterio.open(file) as source:
        assert source.res == (600, 600)
        pixels: np.ndarray = source.read()
    return pixels


def test_a_plan_of_patches_is_printed(citycover, folder: Path, tmp_path: Path) -> None:
    given = ("train", "--recipe", "band-fusion-light", "--folder", folder, "-o", tmp_path / "run", "--plan")
    plan = json.loads(citycover(*given, "--json").out)
    assert (plan["patches"], plan["test_patches"]) == (8, 2)
    assert plan["labels"] == {"Coniferous forest": 4, "Mixed forest": 4, "Inland waters": 4}
    assert "Inland waters 4" in citycover(*given).out and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--image", "a.tif"), "--image is for coarse labels"),
        (("--nodata", "7", "--agree", "1"), "--agree, --nodata are for coarse labels; recipe"),
        (("--allow-path", "x"), "--allow-path is for coarse labels"),
        (("--target", "a.tif", "--target-labels", "b.tif"), "--target, --target-labels are for two domains"),
        (("--truth-legend", "base4"), "--truth-legend is for coarse labels of one domain"),
        (("--layout", "loveda-to-urban"), "--layout loveda-to-urban is for coarse labels"),
        (("--region", "Norway"), "there are: Austria, Finland"),
        (("--share", "2"), "is no share"),
        (("--set", "method.name=ce"), "takes bce, focal"),
        (("--set", "learn=head"), "give --weights"),
        (("--to", "bigearthnet43"), "no remap table from 'bigearthnet19'"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(
    citycover, folder: Path, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    result = citycover(
        "train",
        "--recipe",
        "band-fusion-light",
        "--folder",
        folder,
        "-o",
        tmp_path / "run",
        "--workers",
        0,
        *given,
    )
    assert result.code == 2 and said in result.err.replace("\n", " ")
    assert "Traceback" not in result.err


def test_both_versions_in_one_folder_are_refused(citycover, tmp_path: Path) -> None:
    write_v2(tmp_path / "ben", v2_rows(1))
    write_v1(tmp_path / "ben", {f"{V1}_1_2": ["Pastures"]})
    result = citycover(
        "train", "--recipe", "band-fusion-light", "--folder", tmp_path / "ben", "-o", tmp_path / "run"
    )
    assert result.code == 2 and "mixes BigEarthNet v1" in result.err
    result = citycover("train", "--recipe", "band-fusion-light", "-o", tmp_path / "run")
    assert result.code == 2 and "--folder DIR" in result.err
