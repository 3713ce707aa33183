"""A scene in an object store of another make, mapped while requests fail, hang, or never get an answer.

`make test-s3` runs it: `CITYCOVER_S3=http://127.0.0.1:5556`, as of `moto_server`.
"""

from __future__ import annotations

import json
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from bucket import point_at
from conftest import write_scene
from failing import between_apart

from citycover.geometry.window import Window
from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.product.product import Product
from citycover.read.raster import RasterReader
from citycover.run.map import map_scene
from citycover.scene.assemble import describe_scene
from citycover_cli.app import main

pytestmark = pytest.mark.skipif(
    "CITYCOVER_S3" not in os.environ, reason="CITYCOVER_S3 names no server to try it with"
)

SIDE, BLOCK = 1024, 256


@dataclass(frozen=True)
class Scene:
    here: Path
    there: str
    blocks: list[tuple[int, int]]
    """Offset and bytes of each block."""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A COG of 16 blocks, here and in a bucket of its own."""
    plain = write_scene(tmp_path / "plain.tif", (SIDE, SIDE))
    path = tmp_path / "city.tif"
    rasterio.shutil.copy(plain, path, driver="COG", blocksize=BLOCK, compress="deflate")
    bucket = f"scenes-{uuid4().hex}"
    put(f"{os.environ['CITYCOVER_S3']}/{bucket}", b"")
    put(f"{os.environ['CITYCOVER_S3']}/{bucket}/city.tif", path.read_bytes())
    with rasterio.open(path) as file:
        count = SIDE // BLOCK

        def tag(of: str, row: int, col: int) -> int:
            return int(file.get_tag_item(f"BLOCK_{of}_{col}_{row}", "TIFF", bidx=1))

        places = [(row, col) for row in range(count) for col in range(count)]
        blocks = [(tag("OFFSET", *place), tag("SIZE", *place)) for place in places]
    return Scene(path, f"s3://{bucket}/city.tif", blocks)


def put(address: str, content: bytes) -> None:
    kind = {"Content-Type": "application/octet-stream"}  # else it is taken for a form
    with urllib.request.urlopen(urllib.request.Request(address, content, kind, method="PUT"), timeout=20):
        pass


def mapped(scene: str, out: Path) -> Product:
    engine = EngineOptions(window=256, batch=1, precision="fp32", threads=1)
    return map_scene(MapRequest(Imagery((scene,)), out, "spectral-rgbn", engine=engine))


def classes(product: Product) -> np.ndarray:
    with rasterio.open(Path(str(product.folder)) / "landcover.tif") as file:
        return file.read(1)


def test_few_bytes_are_read(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with between_apart(os.environ["CITYCOVER_S3"]) as (address, told):
        point_at(address, monkeypatch)
        described = describe_scene([scene.there], None)
        before = told().sent
        reader = RasterReader(described.groups[0], threads=2)
        values = np.zeros((SIDE, SIDE, 3), np.uint8)
        for row in range(0, SIDE, BLOCK):
            strip = Window(row, 0, BLOCK, SIDE)
            assert not reader.read_into(strip, values[strip.slices], np.zeros((BLOCK, SIDE), np.bool_))
        reader.close()
        done = told()
    with rasterio.open(scene.here) as file:
        np.testing.assert_array_equal(values, file.read((1, 2, 3)).transpose(1, 2, 0))
    needed = sum(size for _, size in scene.blocks)
    assert needed <= done.sent - before <= 1.1 * needed
    assert done.sent <= 1.1 * needed, "with all that is asked to describe it"


def test_a_store_of_which_every_tenth_request_fails_or_hangs_gives_the_whole_map(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")  # tests have no time for patience
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    here = mapped(str(scene.here), tmp_path / "here")
    with between_apart(os.environ["CITYCOVER_S3"], failing=0.05, hanging=0.05) as (address, told):
        point_at(address, monkeypatch)
        far = mapped(scene.there, tmp_path / "far")
        assert told().spoilt >= 2
    assert not far.run.holes
    np.testing.assert_array_equal(classes(far), classes(here))


def test_a_block_that_never_comes_is_a_hole_and_the_rest_is_mapped(
    scene: Scene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    offset, size = scene.blocks[5]  # row 1, column 1
    here = mapped(str(scene.here), tmp_path / "here")
    out = tmp_path / "far"
    words = ["map", scene.there, "-o", str(out), "--model", "spectral-rgbn", "--threads", "1"]
    with between_apart(os.environ["CITYCOVER_S3"], lost=(offset + size // 2, offset + size // 2 + 1)) as (
        address,
        _,
    ):
        point_at(address, monkeypatch)
        with pytest.raises(SystemExit) as end:
            main([*words, "--window", "256", "--precision", "fp32"])
    assert end.value.code == 3, capfd.readouterr().err
    lost = np.zeros((SIDE, SIDE), np.bool_)
    lost[BLOCK : 2 * BLOCK, BLOCK : 2 * BLOCK] = True
    with rasterio.open(out / "landcover.tif") as file:
        found = file.read(1)
    np.testing.assert_array_equal(found == 0, lost)
    near = np.zeros_like(lost)
    near[BLOCK - 64 : 2 * BLOCK + 64, BLOCK - 64 : 2 * BLOCK + 64] = True
    np.testing.assert_array_equal(found[~near], classes(here)[~near])
    (feature,) = json.loads((out / "holes.geojson").read_text())["features"]
    assert feature["properties"]["path"] == scene.there
