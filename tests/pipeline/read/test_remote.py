"""Scenes at addresses: few bytes, patience with a server that fails, holes where it never answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from bucket import point_at
from failing import between_apart
from rasters import read_scene, write
from serving import serving_apart

from citycover.geometry.window import Window
from citycover.read.picture import read_picture
from citycover.read.promise import check_promises
from citycover.read.raster import RasterReader
from citycover.scene.assemble import describe_scene
from citycover.scene.trust import Trust

IMAGE = np.random.default_rng(0).integers(1, 255, (3, 700, 900), np.uint8)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment goes before what is usual: tests have no time for patience."""
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "8")


def cog(folder: Path, image: np.ndarray = IMAGE) -> tuple[Path, list[tuple[int, int]]]:
    """A tiled file with overviews, and offset and bytes of each of its blocks."""
    tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    opaque = {"alpha": "yes"} if len(image) == 4 else {}
    path = write(folder / "c.tif", image, photometric="rgb", interleave="pixel", **opaque, **tiles)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    with rasterio.open(path) as file:
        places = [(row, col) for row in range(3) for col in range(4)]

        def tag(of: str, row: int, col: int) -> int:
            return int(file.get_tag_item(f"BLOCK_{of}_{col}_{row}", "TIFF", bidx=1))

        blocks = [(tag("OFFSET", *place), tag("SIZE", *place)) for place in places]
    return path, blocks


def read(address: str, part: Window | None = None) -> tuple[np.ndarray, np.ndarray, list[object]]:
    scene = describe_scene([address], None)
    reader = RasterReader(scene.groups[0], threads=2)
    whole = part or Window(0, 0, *reader.shape)
    values = np.zeros((whole.height, whole.width, 3), np.uint8)
    valid = np.zeros(values.shape[:2], np.bool_)
    holes: list[object] = []
    for row in range(whole.row, whole.row_end, 100):
        strip = Window(row, whole.col, min(100, whole.row_end - row), whole.width)
        inside = strip.shift(-whole.row, -whole.col).slices
        holes += reader.read_into(strip, values[inside], valid[inside])
    reader.close()
    return values, valid, holes


def test_no_more_bytes_are_read_than_blocks_have(tmp_path: Path) -> None:
    path, blocks = cog(tmp_path)
    with serving_apart(path) as (address, told):
        values, valid, _ = read(address)
        asked, sent = told()
    assert valid.all() and (values == IMAGE.transpose(1, 2, 0)).all()
    assert sent <= 1.1 * sum(size for _, size in blocks)
    assert asked <= 2 * len(blocks)  # and nothing is looked for beside the file
    part = Window(0, 0, 200, 250)
    with serving_apart(path) as (address, told):
        values, _, _ = read(address, part)
        assert (values == IMAGE.transpose(1, 2, 0)[part.slices]).all()
        assert told()[1] <= 1.1 * blocks[0][1] + (1 << 16)  # one block, and the head of the file


def test_opacity_is_read_with_the_numbers(tmp_path: Path) -> None:
    """Threads that decode keep nothing of a block for a second read."""
    opaque = np.random.default_rng(1).integers(0, 2, (1, *IMAGE.shape[1:]), np.uint8) * 255
    path, blocks = cog(tmp_path, np.concatenate([IMAGE, opaque]))
    with serving_apart(path) as (address, told):
        values, valid, _ = read(address)
        sent = told()[1]
    np.testing.assert_array_equal(valid, opaque[0] > 0)
    assert (values == IMAGE.transpose(1, 2, 0))[valid].all()
    assert sent <= 1.1 * sum(size for _, size in blocks)


def test_a_server_that_hangs_now_and_then_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    path, _ = cog(tmp_path)
    with serving_apart(path) as (address, _), between_apart(address, hanging=0.2) as (far, told):
        values, valid, holes = read(f"{far}/{path.name}")
        assert told().spoilt
    assert valid.all() and not holes and (values == IMAGE.transpose(1, 2, 0)).all()


def test_an_object_store_is_found_where_the_environment_says_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To describe a scene, to read it, and to look at it for a picture."""
    path, _ = cog(tmp_path)
    with serving_apart(path) as (address, _):
        point_at(address.rpartition("/")[0], monkeypatch)
        scene = describe_scene(["s3://scenes/c.tif"], None)
        values, valid, holes = read("s3://scenes/c.tif")
        picture = read_picture(scene, Window(0, 0, *scene.shape), 90)
    assert valid.all() and not holes and (values == IMAGE.transpose(1, 2, 0)).all()
    assert picture.valid.all() and picture.values.any()


def test_a_picture_of_what_cannot_be_opened_shows_nothing_and_fails_nothing(tmp_path: Path) -> None:
    path, _ = cog(tmp_path)
    scene = describe_scene([path], None)
    path.unlink()
    assert not read_picture(scene, Window(0, 0, *scene.shape), 90).valid.any()


def test_a_server_that_fails_now_and_then_is_asked_again(tmp_path: Path) -> None:
    path, _ = cog(tmp_path)
    with serving_apart(path, flaky=0.3) as (address, told):
        values, valid, holes = read(address)
        assert told()[0] > 6
    assert valid.all() and not holes and (values == IMAGE.transpose(1, 2, 0)).all()


def test_a_block_that_never_comes_is_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "1")
    path, blocks = cog(tmp_path)
    offset, size = blocks[5]  # row 1, column 1
    middle = offset + size // 2
    with serving_apart(path, lost=(middle, middle + 1)) as (address, _):
        values, valid, holes = read(address)
    gone = np.zeros(valid.shape, np.bool_)
    gone[256:512, 256:512] = True
    assert not valid[gone].any() and holes
    # A request that met the lost byte may have been for its neighbours, too.
    assert (~valid).sum() <= 4 * 256 * 256
    assert (values == IMAGE.transpose(1, 2, 0))[valid].all()


def test_google_storage_is_read_as_other_stores_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = cog(tmp_path)
    with serving_apart(path) as (address, _):
        monkeypatch.setenv("CPL_GS_ENDPOINT", address.rpartition("/")[0] + "/")
        monkeypatch.setenv("GS_NO_SIGN_REQUEST", "YES")
        values, valid, holes = read("gs://scenes/c.tif")
    assert valid.all() and not holes and (values == IMAGE.transpose(1, 2, 0)).all()


def test_items_of_files_far_away_are_planned_without_a_request(tmp_path: Path) -> None:
    path, _ = cog(tmp_path)
    with rasterio.open(path) as file:
        where = {"proj:epsg": 32633, "proj:shape": file.shape, "proj:transform": list(file.transform)[:6]}
    with serving_apart(path) as (address, told):
        bands = [{"name": name, "data_type": "uint8"} for name in ("red", "green", "blue")]
        item = {
            "type": "Feature", "stac_version": "1.1.0", "id": "far", "properties": where,
            "assets": {"image": {"href": address, "roles": ["data"], "bands": bands}},
        }  # fmt: skip
        (tmp_path / "item.json").write_text(json.dumps(item))
        scene = describe_scene([tmp_path / "item.json"], None, trust=Trust(remote=True))
        assert told()[0] == 0
        check_promises(scene, None)
        values, valid, holes = read_scene(scene)
        assert told()[0] > 0
    assert valid.all() and not holes and (values == IMAGE.transpose(1, 2, 0)).all()
