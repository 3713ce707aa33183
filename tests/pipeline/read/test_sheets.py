import itertools
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasters import CORNER, part_of, read_scene, write

from citycover.errors import SceneError
from citycover.geometry.window import Window
from citycover.model.kernel import KERNELS
from citycover.read import file as band_file
from citycover.read import sheets
from citycover.read.raster import RasterReader
from citycover.read.sheets import Sheets
from citycover.scene.assemble import describe_scene
from citycover.scene.laying import OVERLAPS, Laying
from citycover.scene.scene import Scene

IMAGE = np.random.default_rng(0).integers(1, 255, (2, 50, 70), np.uint8)


@st.composite
def cuttings(draw: st.DrawFn) -> tuple[list[Window], list[Window]]:
    """Windows of the image in any order, that overlap, leave gaps or repeat; and windows to read it in."""

    def lines(size: int) -> list[tuple[int, int]]:
        edges = sorted({0, size, *draw(st.lists(st.integers(1, size - 1), max_size=3))})
        grow = st.integers(0, 5)
        return [(max(0, a - draw(grow)), min(size, b + draw(grow))) for a, b in itertools.pairwise(edges)]

    rows, cols = lines(50), lines(70)
    sheets = [Window(a, c, b - a, d - c) for a, b in rows for c, d in cols]
    kept = draw(st.lists(st.sampled_from(sheets), min_size=1, max_size=len(sheets)))
    cuts = sorted({0, 50, *draw(st.lists(st.integers(1, 49), max_size=3))})
    return kept, [Window(a, 0, b - a, 70) for a, b in itertools.pairwise(cuts)]


@given(
    cuttings(),
    st.sampled_from(OVERLAPS[:1] + OVERLAPS[2:]),
    st.booleans(),
    st.sampled_from(["uint8", "float32"]),
)
def test_any_cutting_of_a_raster_reads_as_the_raster(
    cutting: tuple[list[Window], list[Window]], overlap: str, holed: bool, dtype: str
) -> None:
    parts, strips = cutting
    image = IMAGE.astype(dtype)
    if holed:
        image[:, 20:30, 10:40] = 0
    with ExitStack() as stack:
        files = []
        for number, part in enumerate(parts):
            memory = stack.enter_context(rasterio.MemoryFile(filename=f"sheet{number}.tif"))
            files.append(part_of(image, part, memory.name, nodata=0))
        scene = describe_scene(files, None, laying=Laying(overlap))  # type: ignore[arg-type]
        top, left = min(p.row for p in parts), min(p.col for p in parts)
        height, width = scene.shape
        values, valid, holes = read_scene(
            scene,
            [w for s in strips if (w := Window(s.row, 0, s.height, width).clip(Window(0, 0, height, width)))],
        )
    expected = np.zeros((50, 70), np.bool_)
    for part in parts:
        expected[part.slices] = True
    expected &= (image != 0).all(axis=0)
    inside = (slice(top, top + height), slice(left, left + width))
    assert not holes
    np.testing.assert_array_equal(valid, expected[inside])
    np.testing.assert_array_equal(
        values.transpose(2, 0, 1), np.where(expected, image, 0)[(slice(None), *inside)]
    )


def two(folder: Path, **changes: object) -> list[str]:
    """Two sheets that share columns 30 to 40; the second is brighter by one."""
    image = np.minimum(IMAGE, 250)
    return [
        part_of(image, Window(0, 0, 50, 40), folder / "a_20200101.tif", **changes),
        part_of(image + 1, Window(0, 30, 50, 40), folder / "b_20240101.tif", **changes),
    ]


@pytest.mark.parametrize(("overlap", "first"), [("first", 10), ("newest", 0), ("nearest-centre", 5)])
def test_one_sheet_counts_where_two_overlap(tmp_path: Path, overlap: str, first: int) -> None:
    values, valid, _ = read_scene(describe_scene(two(tmp_path), None, laying=Laying(overlap)))  # type: ignore[arg-type]
    assert valid.all()
    image = np.minimum(IMAGE, 250).transpose(1, 2, 0)
    of_second = np.arange(70) >= 30 + first
    np.testing.assert_array_equal(values, image + of_second[:, None])


def test_feathered_sheets_hand_over_little_by_little(tmp_path: Path) -> None:
    files = [
        str(
            write(
                tmp_path / f"{n}.tif",
                np.full((1, 60, 40), v, np.float32),
                transform=CORNER * Affine.translation(c, 0),
            )
        )
        for n, v, c in (("west", 0.0, 0), ("east", 1.0, 20))
    ]
    values, valid, _ = read_scene(describe_scene(files, None, laying=Laying("feather")))
    row = values[30, :, 0]
    assert valid.all() and (row[:20] == 0).all() and (row[40:] == 1).all()
    assert (np.diff(row[19:41]) > 0).all() and np.diff(row).max() < 0.1


def listed_openings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of files that are opened from now on."""
    opened: list[str] = []
    whole = band_file.open_known
    monkeypatch.setattr(band_file, "open_known", lambda path: opened.append(path) or whole(path))
    return opened


def test_files_that_were_read_long_ago_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Window(row, 0, 5, 70) for row in range(0, 50, 5)]
    files = [part_of(IMAGE, part, tmp_path / f"{part.row}.tif") for part in parts]
    monkeypatch.setattr(sheets, "_OPEN", 2)
    opened = listed_openings(monkeypatch)
    scene = describe_scene(files, None)
    for order in (parts, parts[::-1]):
        values, valid, _ = read_scene(scene, order)
        assert valid.all()
        np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)
    assert len(opened) == 20


def test_only_sheets_that_a_window_needs_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [part_of(IMAGE, Window(row, 0, 10, 70), tmp_path / f"{row}.tif") for row in range(0, 50, 10)]
    scene = describe_scene(files, None)
    opened = listed_openings(monkeypatch)
    reader = RasterReader(scene.groups[0])
    reader.read_into(Window(12, 3, 5, 5), np.zeros((5, 5, 2), np.uint8), np.zeros((5, 5), np.bool_))
    reader.close()
    assert opened == [files[1]]


def row_of_sheets(folder: Path, count: int, height: int = 40) -> Scene:
    """Sheets of 25 columns beside each other, in blocks of 16."""
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    image = np.random.default_rng(1).integers(1, 255, (2, height, 25 * count), np.uint8)
    parts = [Window(0, 25 * k, height, 25) for k in range(count)]
    return describe_scene(
        [part_of(image, p, folder / f"{k}.tif", **tiled) for k, p in enumerate(parts)], None
    )


def test_as_many_sheets_stay_open_as_a_strip_reaches_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = row_of_sheets(tmp_path, 60)
    opened = listed_openings(monkeypatch)
    read_scene(scene, [Window(row, 0, 10, 1500) for row in range(0, 40, 10)])
    assert len(opened) == len(set(opened)) == 60


def test_the_cache_holds_all_blocks_that_a_strip_touches(tmp_path: Path) -> None:
    pixels = Sheets(row_of_sheets(tmp_path, 5).groups[0])
    window = Window(10, 0, 10, 125)  # lies in two rows of blocks, two of them in each sheet
    pixels.read(window, np.empty((10, 125, 2), np.uint8), np.empty((10, 125), np.bool_))
    assert pixels.cache_bytes >= 5 * 2 * 2 * (16 * 16 * 2)


def test_what_one_sheet_has_lost_another_gives(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(1, 255, (1, 64, 64), np.uint8)
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    one = write(tmp_path / "one.tif", image, transform=CORNER, **tiled)
    other = part_of(image, Window(16, 0, 32, 64), tmp_path / "other.tif")
    with rasterio.open(one) as dataset:
        broken = [int(dataset.get_tag_item(f"BLOCK_OFFSET_1_{row}", "TIFF", bidx=1)) for row in (0, 1)]
    data = bytearray(one.read_bytes())
    for offset in broken:
        data[offset : offset + 8] = b"\xff" * 8
    one.write_bytes(bytes(data))
    values, valid, holes = read_scene(describe_scene([one, other], None, laying=Laying("first")))
    assert [hole.window for hole in holes] == [Window(0, 16, 16, 16)]
    assert (~valid).sum() == 256
    np.testing.assert_array_equal(values[16:, :, 0], image[0, 16:])


def warped(image: NDArray[np.generic], scene: Scene, transform: Affine, crs: str, kernel: str) -> np.ndarray:
    """The same by GDAL, without its approximations; -1 where it has nothing."""
    out = np.full((len(image), *scene.shape), -1, np.float32)
    reproject(
        image.astype(np.float32), out, src_transform=transform, src_crs=crs, src_nodata=0, dst_nodata=-1,
        dst_transform=scene.grid.transform, dst_crs=str(scene.grid.crs), init_dest_nodata=True,
        resampling=Resampling[kernel], tolerance=0, XSCALE=1, YSCALE=1,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("grid", ["EPSG:32632/0.5", "EPSG:25833/0.5", "EPSG:32633/0.45"])
def test_a_warped_sheet_is_what_gdal_makes_of_it(tmp_path: Path, kernel: str, grid: str) -> None:
    smooth = np.add.outer(np.arange(60) * 3.0, np.arange(80) * 1.5) + np.random.default_rng(2).uniform(
        1, 40, (60, 80)
    )
    image = smooth[None].astype(np.float32)
    path = write(tmp_path / "x.tif", image, transform=CORNER * Affine.translation(0.3, 0.4), nodata=0)
    scene = describe_scene([path], None, laying=Laying(None, grid, kernel))  # type: ignore[arg-type]
    values, valid, _ = read_scene(scene)
    expected = warped(image, scene, CORNER * Affine.translation(0.3, 0.4), "EPSG:32633", kernel)[0]
    both = valid & (expected != -1)
    assert both.sum() > 0.97 * max(valid.sum(), (expected != -1).sum())
    inner = np.pad(both[3:-3, 3:-3], 3)  # at the border kernels see fewer pixels, and each its own ones
    for rows, cols in itertools.product((-3, 0, 3), repeat=2):
        inner &= np.roll(both, (rows, cols), (0, 1))
    away = np.abs(values[..., 0] - expected)[inner]
    assert inner.sum() > 2000
    assert away.max() <= (0 if kernel == "nearest" else 0.02)


@given(st.data())
def test_a_warped_sheet_does_not_depend_on_windows(data: st.DataObject) -> None:
    with rasterio.MemoryFile(filename="whole.tif") as memory:
        path = part_of(IMAGE, Window(0, 0, 50, 70), memory.name)
        kernel = data.draw(st.sampled_from(KERNELS))
        grid = data.draw(st.sampled_from(["EPSG:32632/0.7", "EPSG:32633/1.3", "EPSG:4326"]))
        scene = describe_scene([path], None, laying=Laying(None, grid, kernel))
        height, width = scene.shape
        row = data.draw(st.integers(1, height - 1))
        col = data.draw(st.integers(1, width - 1))
        pieces = [
            Window(0, 0, row, col),
            Window(0, col, row, width - col),
            Window(row, 0, height - row, width),
        ]
        for one, other in zip(read_scene(scene)[:2], read_scene(scene, pieces)[:2], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_shift_by_half_a_pixel_is_warped_and_one_by_whole_pixels_is_not(tmp_path: Path) -> None:
    files = [
        part_of(IMAGE, Window(0, 0, 50, 30), tmp_path / "s1.tif"),
        part_of(IMAGE, Window(0, 30, 50, 20), tmp_path / "s2.tif"),
        str(
            write(
                tmp_path / "s3.tif",
                np.full((2, 50, 20), 9, np.uint8),
                transform=CORNER * Affine.translation(50.5, 0),
            )
        ),
    ]
    scene = describe_scene(files, None)
    assert [sheet.kernel for sheet in scene.groups[0].sheets] == [None, None, "bilinear"]
    values, valid, _ = read_scene(scene)
    np.testing.assert_array_equal(values[:, :50].transpose(2, 0, 1), IMAGE[:, :, :50])
    assert (values[:, 51:70] == 9).all() and valid[:, 50:70].all()


def test_finer_sheets_are_averaged(tmp_path: Path) -> None:
    fine = np.random.default_rng(3).integers(1, 255, (1, 60, 60), np.uint8)
    files = [
        write(
            tmp_path / "s1.tif", np.full((1, 30, 30), 7, np.uint8), transform=Affine(1, 0, 5e5, 0, -1, 5.8e6)
        ),
        write(tmp_path / "s2.tif", fine, transform=Affine(0.5, 0, 5e5 + 30, 0, -0.5, 5.8e6)),
    ]
    scene = describe_scene(files, None, laying=Laying(grid=None))
    assert scene.groups[0].sheets[1].kernel == "average"
    values, _, _ = read_scene(scene)
    np.testing.assert_array_equal(values[:, 30:, 0], np.rint(fine[0].reshape(30, 2, 30, 2).mean((1, 3))))


def test_coarse_bands_of_all_sheets_stay_aligned_with_the_fine_ones(tmp_path: Path) -> None:
    fine, coarse = (
        np.arange(1, 24 * 36 + 1, dtype=np.uint16).reshape(1, 24, 36),
        np.arange(1, 97, dtype=np.uint16).reshape(1, 8, 12),
    )
    files = []
    for number, (row, col) in enumerate([(0, 0), (0, 18), (12, 0), (12, 18)]):
        for name, image, side in (("B04", fine, 1), ("B11", coarse, 3)):
            part = image[:, row // side : (row + 12) // side, col // side : (col + 18) // side]
            at = Affine(10 * side, 0, 5e5 + 10 * col, 0, -10 * side, 5.8e6 - 10 * row)
            files.append(write(tmp_path / f"tile{number}_{name}.tif", part, transform=at))
    scene = describe_scene(files[::-1], None)
    assert [(g.ratio, g.shape, len(g.sheets)) for g in scene.groups] == [(1, (24, 36), 4), (3, (8, 12), 4)]
    for group, image in zip(scene.groups, (fine, coarse), strict=True):
        reader = RasterReader(group)
        values, valid = np.zeros((*group.shape, 1), np.uint16), np.zeros(group.shape, np.bool_)
        reader.read_into(Window(0, 0, *group.shape), values, valid)
        reader.close()
        assert valid.all()
        np.testing.assert_array_equal(values[..., 0], image[0])


@pytest.mark.parametrize(
    ("folder", "pattern"), [("vhr/chilliwack_tiles", "*.tif"), ("robust/crs", "23322E759967N_*of2.tif")]
)
def test_sheets_of_a_map_are_the_raster_that_they_were_cut_from(
    real_data: Path, folder: str, pattern: str
) -> None:
    files = sorted((real_data / folder).glob(pattern))
    scene = describe_scene(files, None, laying=Laying(resampling="nearest"))
    values, valid, _ = read_scene(scene)
    merged, seen = np.zeros_like(values), np.zeros_like(valid)
    for file in files:
        with rasterio.open(file) as sheet:
            image = sheet.read([band.index for band in scene.groups[0].bands]).astype(np.float32)
            crs = str(scene.grid.crs)  # of the sheet, too: nobody reads axes in the order that this one has
            onto = warped(image + 1, scene, sheet.transform, crs, "nearest").transpose(1, 2, 0)
        new = (onto >= 0).all(axis=2) & ~seen
        merged[new], seen[new] = onto[new] - 1, True
    same = np.all(values == merged, axis=2) & (valid == seen)
    assert valid.mean() > 0.4
    assert same.mean() > 0.9999  # a border that lies in the middle of a pixel is nobody's


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:25833"])
def test_a_band_of_another_grid_is_what_gdal_makes_of_it(tmp_path: Path, kernel: str, crs: str) -> None:
    """Elevation beside colours: another pixel size, shifted, another CRS."""
    ground = np.add.outer(np.arange(40) * 3.0, np.arange(50) * 1.5) + np.random.default_rng(2).uniform(
        1, 9, (40, 50)
    )
    place = CORNER * Affine.translation(-8.3, -6.6) * Affine.scale(2.3)
    colour = part_of(IMAGE[:1], Window(0, 0, 50, 70), tmp_path / "red.tif")
    dem = str(
        write(tmp_path / "dem.tif", ground[None].astype(np.float32), transform=place, nodata=0, crs=crs)
    )
    scene = describe_scene([colour, dem], None, bands=("1", "2"), laying=Laying(resampling=kernel))  # type: ignore[arg-type]
    assert scene.warps == (f"dem.tif ({kernel})",) and scene.shape == (50, 70)
    values, valid, _ = read_scene(scene)
    np.testing.assert_array_equal(values[..., 0], np.where(valid, IMAGE[0], 0))
    expected = warped(ground[None], scene, place, crs, kernel)[0]
    assert valid.all() and (expected != -1).all()
    away = np.abs(values[..., 1] - expected)
    assert np.quantile(away, 0.98) < 0.02 and away.max() < (10 if kernel == "nearest" else 0.2)
    strips = [Window(a, 0, b - a, 70) for a, b in itertools.pairwise((0, 7, 8, 31, 50))]
    np.testing.assert_array_equal(read_scene(scene, strips)[0], values)


def test_where_a_warped_band_has_nothing_there_is_no_pixel(tmp_path: Path) -> None:
    colour = part_of(IMAGE[:1], Window(0, 0, 50, 70), tmp_path / "red.tif")
    half = CORNER * Affine.scale(2)
    dem = str(write(tmp_path / "dem.tif", np.full((1, 25, 20), 5, np.float32), transform=half))
    _, valid, holes = read_scene(describe_scene([colour, dem], None, bands=("1", "2")))
    assert valid[:, :39].all() and not valid[:, 41:].any() and not holes


def of_places(path: Path, crs: str, at: Affine, side: int = 100) -> Path:
    """A raster whose numbers tell longitude (from 178, on beyond 180) and latitude, 100 for each degree."""
    cols, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    lon, lat = to_degrees_of(crs, *(at * (cols, rows)))
    return write(path, np.stack([lon, lat]).astype(np.float32), crs=crs, transform=at, nodata=-1)


def to_degrees_of(crs: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return 100 * (lon % 360 - 178), 100 * (lat + 20)


WEST = "EPSG:4326", Affine(0.01, 0, 179, 0, -0.01, -16)
EAST = "EPSG:4326", Affine(0.01, 0, -180, 0, -0.01, -16)
ON = "EPSG:4326", Affine(0.01, 0, 180, 0, -0.01, -16)
ZONE_60 = "EPSG:32760", Affine(1000, 0, 745_000, 0, -1000, 8.2e6)
ZONE_1 = "EPSG:32701", Affine(1000, 0, 200_000, 0, -1000, 8.2e6)
ACROSS = "EPSG:32760", Affine(1000, 0, 800_000, 0, -1000, 8.2e6)


@pytest.mark.parametrize(
    ("sheets_", "grid"),
    [
        ((WEST, EAST), "EPSG:3832"), ((WEST, EAST), "EPSG:32760"), ((WEST, EAST), "EPSG:32701"),
        ((WEST, ON), None), ((ZONE_60, ZONE_1), None), ((ZONE_1, ZONE_60), None),
        ((ACROSS,), "EPSG:4326"), ((WEST, ACROSS), None),
    ],
)  # fmt: skip
def test_sheets_on_both_sides_of_180_degrees_lie_where_they_lie(
    tmp_path: Path, sheets_: tuple[tuple[str, Affine], ...], grid: str | None
) -> None:
    files = [of_places(tmp_path / f"{n}.tif", *sheet) for n, sheet in enumerate(sheets_)]
    scene = describe_scene(files, None, laying=Laying("first", grid))
    values, valid, _ = read_scene(scene)
    assert scene.shape[1] < 400 and valid.mean() > 0.7
    cols, rows = np.meshgrid(np.arange(scene.shape[1]) + 0.5, np.arange(scene.shape[0]) + 0.5)
    wanted = np.stack(to_degrees_of(str(scene.grid.crs), *(scene.grid.transform * (cols, rows))), -1)
    assert np.abs(values - wanted)[valid].max() < 0.6  # half a pixel of the sheets


def test_sheets_that_longitudes_tear_apart_are_refused_with_a_crs_that_does_not(tmp_path: Path) -> None:
    files = [of_places(tmp_path / f"{n}.tif", *sheet) for n, sheet in enumerate((WEST, EAST))]
    with pytest.raises(SceneError, match=r"0.tif and 1.tif lie on both sides of 180 .* --grid EPSG:32[67]"):
        describe_scene(files, None)
