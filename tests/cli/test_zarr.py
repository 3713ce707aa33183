"""Zarr stores as scenes of every verb."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from stores import write_xarray, zip_store

NAMES = ("red", "green", "blue", "nir")

FAST = ("--model", "spectral-rgbn", "--device", "cpu", "--window", "64", "--precision", "fp32")


@pytest.fixture
def store(scene: Path, tmp_path: Path) -> Path:
    """The pixels of `scene`, in shards."""
    with rasterio.open(scene) as image:
        bands = dict(zip(NAMES, image.read(), strict=True))
    return write_xarray(tmp_path / "city.zarr", bands, {"chunks": (16, 16), "shards": (32, 32)})


def test_a_store_is_inspected_and_planned_as_a_file_is(citycover, scene: Path, store: Path) -> None:
    (of_file,) = json.loads(citycover("inspect", scene, "--json").out)
    of_store = json.loads(citycover("inspect", store, "--json").out)
    assert {one["driver"] for one in of_store} == {"Zarr"}
    for key in ("shape", "crs", "gsd_m", "bounds", "valid"):
        assert [one[key] for one in of_store] == [of_file[key]] * 4, key
    for key in ("bands", "min .. mean .. max"):
        got = {one[key][0].removeprefix("1: ") for one in of_store}
        assert got == {line.partition(": ")[2] or line for line in of_file[key]}
    file, arrays = (json.loads(citycover("plan", given, *FAST, "--json").out) for given in (scene, store))
    assert {key: file[key] for key in ("shape", "transform", "window", "step")} == {
        key: arrays[key] for key in ("shape", "transform", "window", "step")
    }


def test_a_lost_shard_is_a_hole_of_the_map(citycover, scene: Path, store: Path, tmp_path: Path) -> None:
    (store / "green/c/1/2").unlink()
    done = citycover("map", store, *FAST, "-o", tmp_path / "out")
    assert done.code == 3, done.err
    holes = json.loads((tmp_path / "out/holes.geojson").read_text())["features"]
    assert holes and all("c/1/2 is not in the store" in json.dumps(hole["properties"]) for hole in holes)
    assert citycover("map", scene, *FAST, "-o", tmp_path / "whole").code == 0
    with (
        rasterio.open(tmp_path / "out/landcover.tif") as one,
        rasterio.open(tmp_path / "whole/landcover.tif") as two,
    ):
        lost = np.zeros(one.shape, bool)
        lost[32:64, 64:96] = True
        nodata = one.nodata
        assert (one.read(1)[lost] == nodata).all() and not (two.read(1) == nodata).any()


def test_a_zipped_store_is_mapped_as_the_file_is(citycover, scene: Path, store: Path, tmp_path: Path) -> None:
    """And counts as that file: another one is another scene."""
    zipped = zip_store(store)
    words = ("map", zipped, *FAST, "-o", tmp_path / "out", "--skip-finished")
    assert citycover(*words).code == 0
    assert citycover("map", scene, *FAST, "-o", tmp_path / "whole").code == 0
    with (
        rasterio.open(tmp_path / "out/landcover.tif") as one,
        rasterio.open(tmp_path / "whole/landcover.tif") as two,
    ):
        np.testing.assert_array_equal(one.read(1), two.read(1))
    assert json.loads(citycover(*words, "--json").out)["skipped"]
    (store / "green/c/1/2").unlink()
    zip_store(store)
    other = citycover(*words)
    assert other.code == 2 and str(zipped) in other.err, other.err


def test_a_chunk_that_was_written_anew_is_another_scene(citycover, store: Path, tmp_path: Path) -> None:
    words = ("map", store, *FAST, "-o", tmp_path / "out", "--skip-finished")
    assert citycover(*words).code == 0
    chunk = store / "red/c/0/0"
    before = chunk.stat()
    chunk.touch()
    assert json.loads(citycover(*words, "--json").out)["skipped"]
    data = bytearray(chunk.read_bytes())
    data[40] ^= 1
    chunk.write_bytes(data)
    os.utime(chunk, ns=(before.st_atime_ns, before.st_mtime_ns))
    other = citycover(*words)
    assert other.code == 2 and "content of" in other.err and str(store / "red") in other.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a.zarr.zip", "unpack it"), ("az://bucket/a.zarr", "needed is one that is no zip, at s3://"),
        ("city.zarr/x", "has 1 arrays"),
        ("city.zarr/red/c", "folder without raster files"), ("city.zarr/pink", "there is no such file"),
    ],
)  # fmt: skip
def test_what_is_no_scene_says_what_to_do(citycover, store: Path, given: str, said: str) -> None:
    (store.parent / "a.zarr.zip").write_bytes(b"PK\5\6" + bytes(18))
    done = citycover(
        "map", given if "://" in given else store.parent / given, *FAST, "-o", store.parent / "out"
    )
    assert done.code == 2 and said in done.err, done.err


def test_classes_in_stores_are_judged_and_compared_as_those_of_files_are(
    citycover, scene: Path, tmp_path: Path
) -> None:
    assert citycover("map", scene, *FAST, "--format", "cog,zarr", "-o", tmp_path / "p").code == 0
    store, file = tmp_path / "p/landcover.zarr", tmp_path / "p/landcover.tif"

    def facts(*words: object) -> dict[str, object]:
        done = citycover(*words, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    pairs = ((tmp_path / "p", file), (store, store), (store, file), (tmp_path / "p", store))
    told = [facts("evaluate", mapped, "--truth", truth, "--legend", "landcover5") for mapped, truth in pairs]
    assert {one["overall_accuracy"] for one in told} == {1.0} and len({one["compared"] for one in told}) == 1
    areas = [facts("stats", given)["areas"] for given in (tmp_path / "p", store)]
    assert [[row["pixels"] for row in one] for one in areas] == [[row["pixels"] for row in areas[0]]] * 2
    assert facts("compare", tmp_path / "p", store)["changed_m2"] == 0
    other = citycover("evaluate", store / "confidence", "--truth", file, "--legend", "landcover5")
    assert other.code == 2 and "does not say what its numbers mean" in other.err


def test_a_store_of_an_image_is_no_map_that_is_judged(citycover, scene: Path, store: Path) -> None:
    done = citycover("evaluate", store, "--truth", scene)
    assert done.code == 2 and f"needed is one of class numbers; name it, as {store}/blue" in done.err
