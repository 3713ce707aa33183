"""Sheets that are planned by what STAC items say of them, and opened when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasters import read_scene, write

from citycover.errors import SceneError
from citycover.geometry.window import Window
from citycover.read.promise import check_promises
from citycover.read.raster import RasterReader
from citycover.scene import file as described
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files
from citycover.scene.masking import Masking

IMAGE = np.random.default_rng(3).integers(1, 200, (2, 40, 240), np.uint8)
SIDE = 30

BYTES = {"data_type": "uint8"}


def place(number: int) -> Affine:
    return Affine(10, 0, 5e5 + 10 * SIDE * number, 0, -10, 5.8e6)


def item_of(number: int, **changes: Any) -> dict[str, Any]:
    """An item of one file with two bands, which says all that planning needs."""
    asset = {
        "href": f"{number}.tif",
        "roles": ["data"],
        "eo:bands": [{"name": "red"}, {"name": "nir"}],
        "raster:bands": [BYTES, BYTES],
        "proj:shape": [40, SIDE],
        "proj:transform": list(place(number))[:6],
    }
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"i{number}", "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-31T10:00:00Z", "proj:code": "EPSG:32633"},
        "assets": {"image": {k: v for k, v in (asset | changes).items() if v is not None}},
    }  # fmt: skip


def write_items(folder: Path, changes: dict[int, dict[str, Any]] | None = None, **profile: Any) -> Path:
    """Eight sheets beside each other, and the collection of their items."""
    for number in range(8):
        part = IMAGE[:, :, SIDE * number : SIDE * (number + 1)]
        write(folder / f"{number}.tif", part, transform=place(number), **profile)
    items = [item_of(number, **(changes or {}).get(number, {})) for number in range(8)]
    path = folder / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def files_of(folder: Path) -> list[Path]:
    return [folder / f"{number}.tif" for number in range(8)]


def test_a_plan_opens_no_file_of_which_all_is_said(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    whole = describe_scene(files_of(tmp_path), None)
    for path in files_of(tmp_path):
        path.write_bytes(b"no raster")
    scene = describe_scene([items], None)
    assert (scene.grid, scene.gsd) == (whole.grid, whole.gsd)
    assert [s.window for s in scene.groups[0].sheets] == [s.window for s in whole.groups[0].sheets]
    assert [b.name for b in scene.groups[0].bands] == ["red", "nir"]


def test_only_files_of_which_half_is_said_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = {1: {"proj:shape": None}, 4: {"raster:bands": None}, 6: {"eo:bands": None}}
    items = write_items(tmp_path, half)
    opened: list[str] = []
    whole = described._open
    monkeypatch.setattr(described, "_open", lambda path, *rest: opened.append(path) or whole(path, *rest))
    assert len(describe_files([items])) == 8
    assert [Path(path).stem for path in opened] == ["1", "4", "6"]
    opened.clear()
    assert all(info.driver == "GTiff" for info in describe_files([items], opened=True)) and len(opened) == 8


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    values, valid, holes = read_scene(describe_scene([write_items(tmp_path)], None))
    assert valid.all() and not holes
    np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)


@pytest.mark.parametrize("kind", ["nodata", "mask", "alpha", "said"])
def test_what_an_item_does_not_say_of_validity_the_file_says(tmp_path: Path, kind: str) -> None:
    bands = [BYTES | ({"nodata": 50} if kind == "said" else {})] * 2
    items = write_items(
        tmp_path, {n: {"raster:bands": bands} for n in range(8)}, nodata=50 if kind == "nodata" else None
    )
    wrong = IMAGE == 50 if kind in {"nodata", "said"} else np.zeros(IMAGE.shape, bool)
    for number, path in enumerate(files_of(tmp_path)):
        clear = np.where(IMAGE[0, :, SIDE * number : SIDE * (number + 1)] > 100, 255, 0).astype(np.uint8)
        if kind == "mask":
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as sheet:
                sheet.write_mask(clear)
        if kind == "alpha":
            pixels = np.stack([*IMAGE[:, :, SIDE * number : SIDE * (number + 1)], clear])
            with rasterio.open(write(path, pixels, transform=place(number)), "r+") as sheet:
                sheet.colorinterp = [*sheet.colorinterp[:2], rasterio.enums.ColorInterp.alpha]
    if kind in {"mask", "alpha"}:
        wrong = np.broadcast_to(IMAGE[:1] <= 100, IMAGE.shape)
    values, valid, _ = read_scene(describe_scene([items], None))
    np.testing.assert_array_equal(valid, ~wrong.any(0))
    np.testing.assert_array_equal(values.transpose(2, 0, 1), np.where(wrong.any(0), 0, IMAGE))


def test_a_file_is_opened_when_it_is_needed_and_no_sooner(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    for path in files_of(tmp_path)[:2] + files_of(tmp_path)[4:]:
        path.write_bytes(b"no raster")
    scene = describe_scene([items], None)
    window = Window(5, 2 * SIDE + 3, 20, 2 * SIDE - 5)
    check_promises(scene, scene.grid[window.slices])
    values, valid = np.zeros((20, window.width, 2), np.uint8), np.zeros((20, window.width), bool)
    assert RasterReader(scene.groups[0]).read_into(window, values, valid) == () and valid.all()
    np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE[(slice(None), *window.slices)])


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"proj:shape": [40, SIDE - 1]}, r"lies on 30 x 40 .* says 29 x 40"),
        (
            {"proj:transform": [10, 0, 5e5, 0, -10, 5.9e6]},
            r"lies on .*500900, .*500000, ",
        ),
        ({"proj:epsg": 32632, "proj:code": "EPSG:32632"}, "lies on .*EPSG:32633.*EPSG:32632"),
        ({"raster:bands": [{"data_type": "uint16", "scale": 1}] * 2}, "has pixels of uint8, .* says uint16"),
        (
            {"eo:bands": [{"name": n} for n in "abc"], "raster:bands": [{"data_type": "uint8"}] * 3},
            "has 2 bands",
        ),
    ],
)
def test_a_file_that_is_another_than_was_said_ends_a_run(
    tmp_path: Path, lie: dict[str, Any], said: str
) -> None:
    write_items(tmp_path)
    path = tmp_path / "one.json"
    path.write_text(json.dumps(item_of(3, **lie)))
    scene = describe_scene([path], None)
    with pytest.raises(SceneError, match=rf"3\.tif {said}.*mend the item") as error:
        read_scene(scene)
    assert "one.json says" in str(error.value)
    with pytest.raises(SceneError, match=said):
        check_promises(scene, None)


def test_numbers_that_mean_something_of_which_nothing_was_said_end_a_run(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    with rasterio.open(tmp_path / "2.tif", "r+") as sheet:
        sheet.scales, sheet.offsets = (0.5, 0.5), (1, 1)
    with pytest.raises(SceneError, match=r"2\.tif has numbers that mean 0\.5 x \+1"):
        read_scene(describe_scene([items], None))


def test_a_file_that_cannot_be_opened_is_a_hole_and_nothing_else_is(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    (tmp_path / "5.tif").write_bytes(b"no raster")
    scene = describe_scene([items], None)
    check_promises(scene, None)
    values, valid, holes = read_scene(scene, [Window(0, 0, 25, 240), Window(25, 0, 15, 240)])
    lost = np.zeros((40, 240), bool)
    lost[:, 5 * SIDE : 6 * SIDE] = True
    np.testing.assert_array_equal(valid, ~lost)
    np.testing.assert_array_equal(values.transpose(2, 0, 1), np.where(lost, 0, IMAGE))
    assert [hole.window for hole in holes] == [Window(r, 5 * SIDE, h, SIDE) for r, h in ((0, 25), (25, 15))]
    assert all(hole.path.endswith("5.tif") for hole in holes)


def test_a_run_does_not_begin_where_nothing_can_be_opened(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    for path in files_of(tmp_path):
        path.write_bytes(b"no raster")
    with pytest.raises(SceneError, match=r"0\.tif and 3 more files that STAC items name cannot be opened"):
        check_promises(describe_scene([items], None), None)


def test_a_mosaic_that_is_called_a_tiff_is_not_followed(tmp_path: Path) -> None:
    items = write_items(tmp_path)
    text = (
        '<VRTDataset rasterXSize="30" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path}/0.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    for path in files_of(tmp_path)[1:]:
        path.write_text(text)
    _, valid, holes = read_scene(describe_scene([items], None))
    assert valid[:, :SIDE].all() and not valid[:, SIDE:].any() and len(holes) == 7


@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_that_an_item_tells_of_is_opened_with_its_sheet(tmp_path: Path, whole: bool) -> None:
    clear = np.where(IMAGE[0, :, :SIDE] > 100, 4, 9).astype(np.uint8)
    write(tmp_path / "0.tif", IMAGE[:, :, :SIDE], transform=place(0))
    write(tmp_path / "SCL.tif", clear[None], transform=place(0))
    item = item_of(0, **{"raster:bands": [BYTES | {"scale": 1}] * 2 if whole else None})
    item["assets"]["scl"] = item["assets"]["image"] | {"href": "SCL.tif", "raster:bands": [BYTES]}
    del item["assets"]["scl"]["eo:bands"]
    (tmp_path / "item.json").write_text(json.dumps(item))
    scene = describe_scene([tmp_path / "item.json"], None, masking=Masking(("scl",)))
    assert [bool(band.promise) for band in scene.groups[0].bands] == [whole] * 2
    values, valid, _ = read_scene(scene)
    np.testing.assert_array_equal(valid, clear == 4)
    np.testing.assert_array_equal(values.transpose(2, 0, 1), np.where(clear == 4, IMAGE[:, :, :SIDE], 0))
    (tmp_path / "SCL.tif").write_bytes(b"no raster")
    _, valid, holes = read_scene(scene)
    assert not valid.any() and len(holes) == 1
