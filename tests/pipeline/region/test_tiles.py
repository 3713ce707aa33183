"""A region that is one mosaic: tiles on a fixed grid, each of the sheets that its windows look at."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import write_scene

from citycover.errors import ConfigError, StoppedError
from citycover.job.request import EngineOptions, Imagery
from citycover.job.watch import Watch
from citycover.plan import fit
from citycover.region.config import Region, read_region
from citycover.region.forecast import forecast_region
from citycover.region.run import RegionWatch, Share, run_region
from citycover.region.scenes import Shard
from citycover.region.status import status_of
from citycover.run.map import map_scene

SIDE = 64
"""Pixels of a tile; windows of 48 px look 16 px past its west and north, 36 past the others, in whole 16s."""

WEST, NORTH = 500_032, 5_800_000

REGION = f"""name = "city"
out = "products"
model = "spectral-rgbn"
[mosaic]
grid = "EPSG:32633/1"
tile = {SIDE}
[[scenes]]
files = ["im/*.tif"]
[engine]
precision = "fp32"
threads = 1
window = 48
batch = 2
[policy]
retries = 0
"""


def sheet(path: Path, seed: int, row: int, col: float, shape: tuple[int, int]) -> Path:
    """A sheet from a row and column of the mosaic on, whose corner is that of the tile x7813_y90624."""
    values = np.random.default_rng(seed).integers(30, 220, (4, *shape), np.uint8)
    transform = Affine(1, 0, WEST + col, 0, -1, NORTH - row)
    return write_scene(path, shape, values=values, transform=transform, crs="EPSG:32633")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three sheets side by side, 80 px wide: tiles of columns 7813 to 7816, the last of them in part."""
    (tmp_path / "im").mkdir()
    for number, name in enumerate("abc"):
        sheet(tmp_path / f"im/{name}.tif", number, 0, 80 * number, (SIDE, 80))
    (tmp_path / "region.toml").write_text(REGION)
    return tmp_path


def region(place: Path, *changes: tuple[str, str]) -> Region:
    text = REGION
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (place / "region.toml").write_text(text)
    return read_region(place / "region.toml")


def ran(place: Path, *changes: tuple[str, str], **share: Any) -> dict[str, str]:
    report = run_region(region(place, *changes), Share(**share))
    return {outcome.scene: outcome.what for outcome in report.outcomes}


def classes(folder: Path) -> Any:
    with rasterio.open(folder / "landcover.tif") as raster:
        return raster.read(1)


LARGE = ["x488_y5664", "x489_y5664"]
NAMES = [f"x{column}_y90624" for column in (7813, 7814, 7815, 7816)]


def test_tiles_are_products_of_their_own_and_pieces_of_the_whole(place: Path) -> None:
    assert ran(place) == dict.fromkeys(NAMES, "mapped")
    whole = map_scene(_whole(place)).folder
    tiles = np.hstack([classes(place / "products/maps" / name) for name in NAMES])
    inner = (slice(16, -16), slice(16, 224))  # at its edge a scene by itself is mirrored
    np.testing.assert_array_equal(tiles[inner], classes(Path(str(whole)))[inner])
    assert not tiles[:, 240:].any(), "nothing is seen there"
    collection = json.loads((place / "products/maps/collection.json").read_text())
    items = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert items == [f"./{name}/item.json" for name in NAMES]
    assert ran(place) == {}


def _whole(place: Path) -> Any:
    from citycover.job.request import MapRequest

    files = tuple(str(place / f"im/{name}.tif") for name in "abc")
    engine = EngineOptions(precision="fp32", threads=1, window=48)
    return MapRequest(Imagery(files), place / "whole", "spectral-rgbn", engine=engine)


@pytest.mark.parametrize("col", [0, 0.5], ids=["of the lattice", "warped"])
def test_a_tile_that_was_stopped_goes_on_from_its_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, col: float
) -> None:
    monkeypatch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)
    (tmp_path / "im").mkdir()
    sheet(tmp_path / "im/a.tif", 0, 0, col, (48, 1600))
    large = (f"tile = {SIDE}", "tile = 1024")
    assert ran(tmp_path, large, ("products", "straight")) == dict.fromkeys(LARGE, "mapped")
    stop = threading.Event()
    done: list[int] = []

    def stopping(_: object) -> Watch:
        return Watch(advanced=lambda _block: stop.set(), stop=stop)

    with pytest.raises(StoppedError):
        run_region(region(tmp_path, large), None, RegionWatch(scene=stopping, stop=stop))
    assert status_of(region(tmp_path, large)).counts == {"unfinished": 1, "new": 1}

    def going_on(_: object) -> Watch:
        return Watch(started=lambda _plan, pixels: done.append(pixels))

    run_region(region(tmp_path, large), None, RegionWatch(scene=going_on))
    assert done[0] > 0 and done[1] == 0
    for name in LARGE:
        found, straight = (classes(tmp_path / out / "maps" / name) for out in ("products", "straight"))
        np.testing.assert_array_equal(found, straight)


def test_a_sheet_that_changes_changes_the_tiles_whose_windows_look_at_it(place: Path) -> None:
    ran(place)
    sheet(place / "im/c.tif", 9, 0, 160, (SIDE, 80))
    # It begins 32 px past the end of x7814, where windows of that tile end.
    assert ran(place) == {"x7815_y90624": "mapped", "x7816_y90624": "mapped", "x7814_y90624": "mapped"}
    sheet(place / "im/a.tif", 9, 0, 0, (SIDE, 80))
    assert ran(place) == {"x7813_y90624": "mapped", "x7814_y90624": "mapped"}


def test_tiles_keep_their_names_when_sheets_come_and_go(place: Path) -> None:
    ran(place)
    sheet(place / "im/0.tif", 5, 0, -200, (SIDE, 60))
    assert set(ran(place)) == {"x7809_y90624", "x7810_y90624"}
    (place / "im/c.tif").unlink()
    assert "x7816_y90624" in status_of(region(place)).gone


@pytest.mark.parametrize("keep", [0, 1])
def test_tiles_of_another_size_go_once_the_new_ones_are_all_there(
    place: Path, keep: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("retries = 0", f"retries = 0\nkeep = {keep}\n[areas]")
    larger = ("tile = 64", "tile = 96")
    assert ran(place, kept) == dict.fromkeys(NAMES, "mapped")
    products = place / "products"
    (products / "areas" / f"{NAMES[0]}.csv").write_text("edited by hand")
    forecast = forecast_region(region(place, kept, larger))
    new = [scene.scene for scene in forecast.scenes]
    assert not {*new} & {*NAMES} and forecast.aside == (*NAMES,)
    assert ran(place, kept, larger, limit=1) == {new[0]: "mapped"}
    assert {path.name for path in (products / "maps").glob("x*")} == {*NAMES, new[0]}
    assert not caplog.text
    assert set(ran(place, kept, larger)) == {*new[1:]}
    assert f"of an earlier layout, and put aside: {', '.join(NAMES)}" in caplog.text
    assert {path.name for path in (products / "maps").glob("x*")} == {*new}
    assert {path.stem for path in (products / "areas").iterdir()} == {*new, NAMES[0]}
    assert [len(list((products / "earlier" / name).glob("*/item.json"))) for name in NAMES] == [keep] * 4
    collection = json.loads((products / "maps/collection.json").read_text())
    items = {link["href"] for link in collection["links"] if link["rel"] == "item"}
    assert items == {f"./{name}/item.json" for name in new}
    assert status_of(region(place, kept, larger)).gone == () and ran(place, kept, larger) == {}


def test_tiles_go_once_all_scenes_of_a_region_that_is_no_more_a_mosaic_are_there(place: Path) -> None:
    assert ran(place, limit=3) == dict.fromkeys(NAMES[:3], "mapped")
    plain = (f'[mosaic]\ngrid = "EPSG:32633/1"\ntile = {SIDE}\n', "")
    (place / "products/maps" / NAMES[2] / "run.json").write_text("{}")  # somebody's own by now
    assert forecast_region(region(place, plain)).aside == (*NAMES[:2],)
    status = status_of(region(place, plain))
    assert status.aside == (*NAMES[:2],) and status.gone == (NAMES[2],)
    assert ran(place, plain, only=("a", "b")) == {"a": "mapped", "b": "mapped"}
    assert {path.name for path in (place / "products/maps").glob("x*")} == {*NAMES[:3]}
    assert ran(place, plain) == {"c": "mapped"}
    assert {path.name for path in (place / "products/maps").glob("*/")} == {"a", "b", "c", NAMES[2]}
    assert {path.name for path in (place / "products/earlier").iterdir()} == {*NAMES[:2]}
    (place / "im/c.tif").unlink()  # gone, but of this layout
    assert forecast_region(region(place, plain)).aside == () and ran(place, plain) == {}
    assert (place / "products/maps/c/item.json").is_file()


def test_a_sheet_that_cannot_be_read_makes_no_tile_of_another_size(place: Path) -> None:
    ran(place)
    (place / "im/c.tif").write_bytes(b"half a download")
    found = ran(place, ("tile = 64", "tile = 96"))
    assert found.pop("c") == "failed" and set(found.values()) == {"mapped"}
    assert {path.name for path in (place / "products/maps").glob("x*")} >= {*NAMES}, (
        "c shows nobody knows what"
    )


def test_a_sheet_of_another_name_and_the_same_content_changes_nothing(place: Path) -> None:
    ran(place)
    (place / "im/c.tif").rename(place / "im/d.tif")
    found = ran(place)
    assert found and set(found.values()) == {"renamed"}
    assert ran(place) == {}


@pytest.mark.parametrize("what", ["broken", "nowhere"])
def test_a_sheet_that_cannot_be_read_takes_no_product_away(place: Path, what: str) -> None:
    ran(place)
    kept = classes(place / "products/maps/x7816_y90624")
    sheet(place / "im/a.tif", 7, 0, 0, (SIDE, 80))
    if what == "broken":
        (place / "im/c.tif").write_bytes(b"half a download")
    else:
        values = np.zeros((4, SIDE, 80), np.uint8)
        write_scene(place / "im/c.tif", (SIDE, 80), values=values, crs=None)
    report = run_region(region(place))
    assert report.exit_code == 3
    found = {outcome.scene: outcome.what for outcome in report.outcomes}
    assert found == {
        "x7813_y90624": "mapped",
        "x7814_y90624": "failed",
        "x7815_y90624": "failed",
        "x7816_y90624": "failed",
        "c": "failed",
    }
    np.testing.assert_array_equal(classes(place / "products/maps/x7816_y90624"), kept)
    assert all("c.tif" in outcome.message for outcome in report.outcomes if outcome.failed)


def test_parts_of_the_grid_by_name_number_and_shard(place: Path) -> None:
    assert [scene.scene for scene in forecast_region(region(place)).scenes] == NAMES
    assert sum(scene.pixels for scene in forecast_region(region(place)).scenes) == 4 * SIDE * SIDE
    assert ran(place, only=(NAMES[2],)) == {NAMES[2]: "mapped"}
    assert ran(place, limit=1) == {NAMES[0]: "mapped"}
    left = [ran(place, shard=Shard(index, 2)) for index in (1, 2)]
    assert left[0] | left[1] == {NAMES[1]: "mapped", NAMES[3]: "mapped"}


def test_tiles_outside_of_the_polygons_are_left_out(place: Path) -> None:
    ring = [[WEST + 70, NORTH - 50], [WEST + 90, NORTH - 50], [WEST + 90, NORTH], [WEST + 70, NORTH - 50]]
    crs = {"type": "name", "properties": {"name": "EPSG:32633"}}
    (place / "aoi.geojson").write_text(json.dumps({"type": "Polygon", "crs": crs, "coordinates": [ring]}))
    assert ran(place, ("[engine]", '[where]\naoi = "aoi.geojson"\n[engine]')) == {NAMES[1]: "mapped"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('model = "spectral-rgbn"\n', ""), "give model"),
        (("tile = 64", "tile = 60"), "multiple of 16"),
        (('files = ["im/*.tif"]', 'files = ["im/*.tif"]\nname = "all"'), "leave out name and by"),
        (("[engine]", "[imagery]\nresample = true\n[engine]"), "leave out imagery.resample"),
        (("[engine]", '[imagery.laying]\ngrid = "EPSG:32633/1"\n[engine]'), "leave out imagery.laying.grid"),
        (("[engine]", "[where]\nbbox = [0, 0, 1, 1]\n[engine]"), "where.aoi"),
        (("[engine]", '[labels]\nfiles = ["x.tif"]\n[engine]'), "leave out labels"),
    ],
)
def test_what_does_not_go_with_a_mosaic_is_refused(place: Path, change: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        region(place, change)


def test_a_grid_without_the_size_of_pixels_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="no sheet decides"):
        ran(place, ("EPSG:32633/1", "EPSG:32633"))
