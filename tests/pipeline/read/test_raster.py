from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from lockstep import Lockstep
from rasters import write

from citycover.geometry.window import Window
from citycover.read.raster import RasterReader
from citycover.read.sheets import Sheets
from citycover.scene.assemble import describe_scene


def read(
    path: Path | list[Path], window: Window | None = None, **given_: object
) -> tuple[np.ndarray, np.ndarray, tuple]:
    scene = describe_scene([path] if isinstance(path, Path) else path, None, **given_)
    reader = RasterReader(scene.groups[0], scene.resampling)
    window = window or Window(0, 0, *reader.shape)
    # A strided view, as the sweep hands over.
    values = np.zeros((window.height, window.width + 3, reader.bands), reader.dtype)[:, 1:-2]
    valid = np.zeros((window.height, window.width + 3), np.bool_)[:, 1:-2]
    holes = reader.read_into(window, values, valid)
    reader.close()
    return values, valid, holes


IMAGE = np.random.default_rng(0).integers(1, 255, (3, 60, 80), np.uint8)


TILED = {"tiled": True, "blockxsize": 16, "blockysize": 32}


@given(
    st.integers(0, 59), st.integers(0, 79), st.integers(1, 60), st.integers(1, 80), st.integers(1, 5),
    st.sampled_from([TILED, {"blockysize": 7}]),
)  # fmt: skip
def test_any_window_is_what_rasterio_reads(
    row: int, col: int, height: int, width: int, threads: int, laid: dict[str, object]
) -> None:
    window = Window(row, col, height, width).clip(Window(0, 0, 60, 80))
    assert window is not None
    with rasterio.MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=60, width=80, count=3, dtype="uint8", crs="EPSG:32633",
            transform=Affine(1, 0, 5e5, 0, -1, 5.8e6), **laid,
        ) as dataset:  # fmt: skip
            dataset.write(IMAGE)
        scene = describe_scene([memory.name], None)
        reader = RasterReader(scene.groups[0], threads=threads)
        values = np.zeros((window.height, window.width, 3), np.uint8)
        valid = np.zeros((window.height, window.width), np.bool_)
        assert reader.read_into(window, values, valid) == ()
        reader.close()
    np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE[(slice(None), *window.slices)])
    assert valid.all()


@pytest.mark.parametrize("threads", [1, 4, 16])
@pytest.mark.parametrize("laid", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 1}])
def test_a_window_is_read_by_all_threads_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, laid: dict[str, object]
) -> None:
    clock = Lockstep(threads)
    monkeypatch.setattr(Sheets, "read", clock.slow(Sheets.read))
    image = np.random.default_rng(0).integers(1, 255, (1, 64, 256), np.uint8)
    scene = describe_scene([write(tmp_path / "x.tif", image, **laid)], None)
    reader = RasterReader(scene.groups[0], threads=threads)
    values, valid = np.zeros((64, 256, 1), np.uint8), np.zeros((64, 256), np.bool_)
    for _ in range(3):
        reader.read_into(Window(0, 0, 64, 256), values, valid)
    reader.close()
    assert (values[:, :, 0] == image[0]).all() and valid.all()
    assert (clock.rounds, clock.most) == (3, threads)


def test_a_nodata_tag_in_any_band_makes_the_pixel_invalid(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[1, 5, 6] = image[2, 7, 8] = 0
    _, valid, _ = read(write(tmp_path / "x.tif", image, nodata=0))
    assert (~valid).sum() == 2 and not valid[5, 6] and not valid[7, 8]


def test_nodata_on_the_command_line_replaces_the_tag(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[:, 3, 4] = 9
    path = write(tmp_path / "x.tif", np.where(image == 9, image, image + 0), nodata=0)
    _, valid, _ = read(path, nodata=9)
    np.testing.assert_array_equal(valid, (image != 9).all(0))


def test_nan_is_invalid_without_any_tag(tmp_path: Path) -> None:
    image = IMAGE.astype(np.float32)
    image[0, 2, 3] = np.nan
    _, valid, _ = read(write(tmp_path / "x.tif", image))
    assert (~valid).sum() == 1 and not valid[2, 3]


def test_masks_inside_and_beside_the_file(tmp_path: Path) -> None:
    mask = np.ones((60, 80), np.bool_)
    mask[10:20, 30:40] = False
    for name, internal in (("inside", "YES"), ("beside", "NO")):
        path = tmp_path / f"{name}.tif"
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
            write(path, IMAGE)
            with rasterio.open(path, "r+") as dataset:
                dataset.write_mask(mask)
        _, valid, _ = read(path)
        np.testing.assert_array_equal(valid, mask)


def test_alpha_is_validity_unless_it_is_asked_for_as_a_band(tmp_path: Path) -> None:
    alpha = np.full((1, 60, 80), 255, np.uint8)
    alpha[0, :10] = 0
    path = write(tmp_path / "x.tif", np.concatenate([IMAGE, alpha]), photometric="RGB", alpha="YES")
    values, valid, _ = read(path)
    assert values.shape[2] == 3
    np.testing.assert_array_equal(valid, alpha[0] > 0)
    values, valid, _ = read(path, bands=["1", "2", "3", "4"])
    assert values.shape[2] == 4 and valid.all()


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "int64", "float64"])
def test_other_pixel_types_are_read_as_float32(tmp_path: Path, dtype: str) -> None:
    image = (IMAGE // 2).astype(dtype)
    values, _, _ = read(write(tmp_path / "x.tif", image))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values.transpose(2, 0, 1), image.astype(np.float32))


def test_only_blocks_that_cannot_be_decoded_are_holes(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 255, (2, 128, 128), np.uint8)
    path = write(
        tmp_path / "x.tif",
        image,
        tiled=True,
        blockxsize=32,
        blockysize=32,
        compress="deflate",
        interleave="pixel",
    )
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 40] = bytes(40)
    path.write_bytes(data)
    values, valid, holes = read(path)
    assert [h.window for h in holes] == [Window(32, 64, 32, 32)] and holes[0].path == str(path)
    assert not valid[32:64, 64:96].any() and valid.sum() == 128 * 128 - 32 * 32
    np.testing.assert_array_equal(values[valid], image.transpose(1, 2, 0)[valid])


def test_a_truncated_cog_keeps_what_is_there(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 255, (3, 512, 512), np.uint8)
    whole = tmp_path / "whole.tif"
    rasterio.shutil.copy(
        write(tmp_path / "x.tif", image), whole, driver="COG", blocksize=128, overviews="none"
    )
    cut = tmp_path / "cut.tif"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(0.6 * len(data))])
    values, valid, holes = read(cut)
    assert holes and 0.4 < valid.mean() < 0.7
    np.testing.assert_array_equal(values[valid], image.transpose(1, 2, 0)[valid])


def test_files_of_one_band_each_are_read_together(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"b{k}.tif", IMAGE[k : k + 1]) for k in range(3)]
    values, _, _ = read(paths)
    np.testing.assert_array_equal(values.transpose(2, 0, 1), IMAGE)


def test_numbers_too_large_for_float32_are_invalid(tmp_path: Path) -> None:
    values = np.ones((1, 20, 30))
    values[0, 3, 4], values[0, 5, 6] = 1e300, np.nan
    path = write(tmp_path / "x.tif", values)
    pixels, valid, _ = read(path)
    wanted = np.ones((20, 30), np.bool_)
    wanted[3, 4] = wanted[5, 6] = False
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(valid, wanted)


RED, GREEN, BLUE, ALPHA, OTHER = (
    rasterio.enums.ColorInterp[name] for name in ("red", "green", "blue", "alpha", "undefined")
)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize(
    "colours",
    [(RED, GREEN, BLUE, ALPHA), (ALPHA, RED, GREEN, BLUE), (RED, GREEN, BLUE, OTHER, ALPHA), (RED, ALPHA)],
)
@pytest.mark.parametrize("nodata", [None, 7])
def test_alpha_of_any_type_at_any_place_is_validity(
    tmp_path: Path, dtype: str, colours: tuple, nodata: int | None
) -> None:
    image = np.full((len(colours), 20, 30), 9, dtype)
    image[colours.index(ALPHA), :, 12:] = 1
    image[colours.index(ALPHA), :, :12] = 0
    path = write(tmp_path / "x.tif", image, nodata=nodata, photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = colours
    _, valid, _ = read(path)
    assert valid[:, 12:].all() and not valid[:, :12].any()


@pytest.mark.parametrize(
    ("dtype", "nodata", "pixels"),
    [
        ("float32", 0.1, [0.1, 0.1 + 2e-8, 0.1001, 0]),
        ("float32", -9999.9, [-9999.9, -9999.899, -9999.89, np.nan]),
        ("float32", 1e20, [1e20, 1.0000001e20, 1.00001e20, np.inf]),
        ("float32", -3.40282346638529e38, [-3.4028235e38, -1e30, 0, 1]),
        ("float64", 0.1, [0.1, np.nextafter(0.1, 1), 0.1000001, 0]),
        ("float32", np.nan, [np.nan, 0, 1, 2]),
        ("float32", np.inf, [np.inf, 0, 1, 2]),
        ("float32", 0, [0, -0.0, 1e-30, 1]),
        ("int16", -32768, [-32768, -32767, 0, 1]),
        ("uint16", 65535, [65535, 65534, 0, 1]),
        ("int32", -2147483648, [-2147483648, 0, 1, 2]),
    ],
)
def test_nodata_is_compared_as_gdal_compares_it(
    tmp_path: Path, dtype: str, nodata: float, pixels: list[float]
) -> None:
    path = write(tmp_path / "x.tif", np.array(pixels, dtype).reshape(1, 2, 2), nodata=nodata)
    with rasterio.open(path) as dataset:
        wanted = (dataset.read_masks(1) > 0) & np.isfinite(dataset.read(1).astype("float32"))
    _, valid, _ = read(path)
    np.testing.assert_array_equal(valid, wanted)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 256), ("uint8", -1), ("uint8", 7.5), ("int16", np.nan)]
)
def test_nodata_that_cannot_occur_says_nothing(tmp_path: Path, dtype: str, nodata: float) -> None:
    path = write(tmp_path / "x.tif", np.array([[[0, 7], [8, 255]]], dtype))
    vrt = tmp_path / "x.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    vrt.write_text(
        vrt.read_text().replace("<ColorInterp>", f"<NoDataValue>{nodata}</NoDataValue><ColorInterp>")
    )
    assert read(vrt)[1].all()
