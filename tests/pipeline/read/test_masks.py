import itertools
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasters import write
from scipy.ndimage import binary_dilation

from citycover.geometry.window import Window
from citycover.read.raster import RasterReader
from citycover.scene.assemble import describe_scene
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover.scene.scene import Scene

FINE = Affine(10, 0, 5e5, 0, -10, 5.8e6)


def valid_of(scene: Scene, rows: list[int] | None = None) -> tuple[np.ndarray, list]:
    """(y, x) where the scene is valid, read in strips that end at rows; and its holes."""
    reader = RasterReader(scene.groups[0])
    height, width = reader.shape
    values, valid = np.zeros((height, width, reader.bands), reader.dtype), np.zeros((height, width), np.bool_)
    holes = []
    for top, bottom in itertools.pairwise(sorted({0, height, *(rows or ())})):
        window = Window(top, 0, bottom - top, width)
        holes += reader.read_into(window, values[window.slices], valid[window.slices])
    reader.close()
    return valid, holes


def files(
    folder: Path, numbers: np.ndarray, ratio: int, name: str = "a_SCL.tif", **more: object
) -> list[Path]:
    height, width = (n * ratio - (ratio // 2) for n in numbers.shape)  # the last pixels hang over
    scene = write(folder / "a.tif", np.ones((1, height, width), np.uint8), transform=FINE)
    mask = write(folder / name, numbers[None], transform=FINE * Affine.scale(ratio), **more)
    return [scene, mask]


@given(
    seed=st.integers(0, 1000),
    ratio=st.integers(1, 6),
    grow=st.sampled_from([0.0, 10.0, 30.0, 75.0]),
    rows=st.lists(st.integers(1, 40), max_size=4),
)
def test_any_windows_hide_what_the_whole_mask_says(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ratio: int, grow: float, rows: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.choice(np.array([4, 5, 9], np.uint8), (9, 8), p=[0.5, 0.45, 0.05])
    paths = files(tmp_path_factory.mktemp("m"), numbers, ratio)
    scene = describe_scene(paths, None, masking=Masking(("scl",), grow))
    hidden = grown(numbers == 9, scene.groups[0].sheets[0].masks[0].grow)
    wanted = ~hidden.repeat(ratio, 0).repeat(ratio, 1)[: scene.shape[0], : scene.shape[1]]
    valid, holes = valid_of(scene, [r for r in rows if r < scene.shape[0]])
    np.testing.assert_array_equal(valid, wanted)
    assert not holes


def grown(hidden: np.ndarray, radius: tuple[float, float]) -> np.ndarray:
    """What lies in an ellipse of (y, x) pixels around what is hidden, by brute force."""
    reach = int(max(radius))
    if not reach:
        return hidden
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    return binary_dilation(hidden, (y / radius[0]) ** 2 + (x / radius[1]) ** 2 <= 1)


@given(seed=st.integers(0, 1000), rows=st.lists(st.integers(1, 40), max_size=4))
def test_what_is_hidden_grows_by_metres_where_pixels_are_oblong(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: list[int]
) -> None:
    """Pixels of degrees, at 60 degrees north half as wide as high; and of 10 x 30 m."""
    folder = tmp_path_factory.mktemp("m")
    numbers = np.random.default_rng(seed).choice(np.array([4, 9], np.uint8), (40, 40), p=[0.98, 0.02])
    for crs, at, metres, ratio in (
        ("EPSG:4326", Affine(0.001, 0, 10, 0, -0.001, 60), 250.0, 0.5),
        ("EPSG:32633", Affine(30, 0, 5e5, 0, -10, 5.8e6), 75.0, 3.0),
    ):
        image = write(folder / "a.tif", np.ones((1, 40, 40), np.uint8), transform=at, crs=crs)
        mask = write(folder / "a_SCL.tif", numbers[None], transform=at, crs=crs)
        scene = describe_scene([image, mask], None, masking=Masking(("scl",), metres))
        down, right = scene.groups[0].sheets[0].masks[0].grow
        assert down / right == pytest.approx(ratio, rel=0.01)
        valid, _ = valid_of(scene, rows)
        np.testing.assert_array_equal(valid, ~grown(numbers == 9, (down, right)))


def test_less_than_a_pixel_of_the_mask_grows_by_one(tmp_path: Path) -> None:
    numbers = np.full((9, 9), 4, np.uint8)
    numbers[4, 4] = 9
    scene = describe_scene(files(tmp_path, numbers, 2), None, masking=Masking(("scl",), 15))
    valid, _ = valid_of(scene)
    assert (~valid).sum() == 5 * 2 * 2, "pixels of 20 m: the one that is hidden, and its four neighbours"


def test_bits_and_nodata_of_a_mask(tmp_path: Path) -> None:
    numbers = np.array([[1 << 6, 1 << 3, 1 << 7 | 1 << 4], [0, 255 << 8, 1]], np.uint16)
    paths = files(tmp_path, numbers, 1, "x_QA_PIXEL.tif", nodata=0)
    valid, _ = valid_of(describe_scene(paths, None, masking=Masking(("qa_pixel",))))
    # Clear; cloud; shadow. No data of the mask: nobody knows; high bits say other things; fill.
    np.testing.assert_array_equal(valid, [[True, False, False], [False, True, False]])


def test_a_mask_finer_than_the_image_is_taken_at_centres(tmp_path: Path) -> None:
    scene = write(tmp_path / "a.tif", np.ones((1, 2, 2), np.uint8), transform=FINE)
    numbers = np.zeros((6, 6), np.uint8)
    numbers[1, 4] = numbers[0, 0] = 3  # the centre of a pixel, and the corner of one
    mask = write(tmp_path / "m.tif", numbers[None], transform=FINE * Affine.scale(1 / 3))
    valid, _ = valid_of(describe_scene([scene, mask], None, masking=Masking(("m.tif=3",))))
    np.testing.assert_array_equal(valid, [[True, False], [True, True]])


def test_where_a_mask_cannot_be_read_is_a_hole(tmp_path: Path) -> None:
    numbers = np.full((64, 64), 4, np.uint8)
    paths = files(tmp_path, numbers, 2, compress="deflate", tiled=True, blockxsize=32, blockysize=32)
    data = bytearray(paths[1].read_bytes())
    with rasterio.open(paths[1]) as mask:
        offset = int(mask.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    data[offset : offset + 8] = b"\xff" * 8
    paths[1].write_bytes(bytes(data))
    scene = describe_scene(paths, None, masking=Masking(("scl",)))
    valid, holes = valid_of(scene)
    assert not valid[64:, 64:].any() and valid[:64].all() and valid[:, :64].all()
    assert [(hole.window, Path(hole.path).name) for hole in holes] == [(Window(64, 64, 63, 63), "a_SCL.tif")]


def test_hidden_parts_of_one_sheet_are_seen_in_another(tmp_path: Path) -> None:
    """Two dates of a place: where the newer is cloudy, the older one shows the ground."""
    numbers = np.full((4, 4), 4, np.uint8)
    paths = []
    for name, cloud, value in (("20240101", (0, 0), 1), ("20240601", (3, 3), 2)):
        there = numbers.copy()
        there[cloud] = 9
        paths.append(write(tmp_path / f"{name}.tif", np.full((1, 4, 4), value, np.uint8), transform=FINE))
        paths.append(write(tmp_path / f"{name}_SCL.tif", there[None], transform=FINE))
    masking = Masking(("scl",))
    scene = describe_scene(paths, None, masking=masking, laying=Laying(overlap="newest"))
    reader = RasterReader(scene.groups[0])
    values, valid = np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), np.bool_)
    reader.read_into(Window(0, 0, 4, 4), values, valid)
    reader.close()
    assert valid.all()
    assert values[3, 3, 0] == 1 and (values[:3, :, 0] == 2).all()
