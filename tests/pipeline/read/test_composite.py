"""Several dates as one image: against numpy on whole arrays, by any windows, sheets and masks."""

import itertools
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasters import CORNER, part_of, read_scene, write

from citycover.errors import ConfigError, SceneError
from citycover.geometry.window import Window
from citycover.job.request import Imagery
from citycover.read import dates
from citycover.read.composite import compose
from citycover.read.file import BandFile
from citycover.read.picture import read_picture
from citycover.scene.assemble import describe_scene
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover_models.data.describe import describe_image

DAYS = ("20240712", "20240531", "20240402", "20230915")
"""The latest first."""

SHAPE = (40, 60)


def oracle(
    kind: str, stack: NDArray[np.generic], valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(date, band, y, x), (date, y, x) -> (y, x, band), 0 where invalid, of whole arrays."""
    numbers = np.where(valid[:, None], stack.astype(float), np.nan)
    seen = valid.any(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(numbers, axis=0)
    if kind == "median":
        found = middle if stack.dtype.kind == "f" else np.rint(middle)
    else:
        far = np.where(valid, ((numbers - middle) ** 2).sum(axis=1), np.inf)
        chosen = valid.argmax(axis=0) if kind == "latest" else far.argmin(axis=0)
        found = np.take_along_axis(numbers, chosen[None, None], axis=0)[0]
    return np.nan_to_num(found).transpose(1, 2, 0) * seen[..., None], seen


def dated(folder: Path | str, stack: NDArray[np.generic], **changes: object) -> list[str]:
    """A file a date, in another order than that of the dates; 0 is nodata."""
    whole = Window(0, 0, *SHAPE)
    files = [
        part_of(image, whole, f"{folder}/a_{day}.tif", **{"nodata": 0} | changes)
        for image, day in zip(stack, DAYS, strict=False)
    ]
    return files[1:] + files[:1]


@st.composite
def stacks(draw: st.DrawFn) -> NDArray[np.generic]:
    """(date, band, y, x) numbers, 0 where nothing was seen."""
    count, dtype = draw(st.integers(2, 4)), draw(st.sampled_from(["uint8", "int16", "float32"]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    most = draw(st.sampled_from([3, 250]))  # few numbers: many are equal
    stack = rng.integers(1, most, (count, 2, *SHAPE)).astype(dtype)
    stack *= (rng.random((count, 1, *SHAPE)) < draw(st.sampled_from([0.2, 0.7, 1.0]))).astype(dtype)
    return stack


@given(
    stacks(),
    st.sampled_from(["latest", "median", "best"]),
    st.lists(st.integers(1, SHAPE[0] - 1), max_size=3),
    st.sampled_from([1 << 23, 1000]),
)
def test_any_windows_give_what_numpy_gives_of_the_whole(
    stack: NDArray[np.generic], kind: str, cuts: list[int], at_a_time: int
) -> None:
    edges = sorted({0, SHAPE[0], *cuts})
    strips = [Window(a, 0, b - a, SHAPE[1]) for a, b in itertools.pairwise(edges)]
    with ExitStack() as open_files, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dates, "_NUMBERS", at_a_time)
        patch.setattr(dates, "_NARROW", 16)
        names = [open_files.enter_context(rasterio.MemoryFile(filename=f"a_{d}.tif")).name for d in DAYS]
        files = [
            part_of(image, Window(0, 0, *SHAPE), name, nodata=0, tiled=True, blockxsize=16, blockysize=16)
            for image, name in zip(stack, names, strict=False)
        ]
        scene = describe_scene(files[::-1], None, laying=Laying(composite=kind))  # type: ignore[arg-type]
        assert scene.dates == tuple(f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in DAYS[: len(stack)])
        values, valid, holes = read_scene(scene, strips)
    expected, seen = oracle(kind, stack, (stack != 0).all(axis=1))
    assert not holes
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_array_equal(values, expected)


def test_the_best_of_three_dates_is_none_of_the_odd_ones() -> None:
    grass, cloud, shade = [40, 60, 30, 200], [240, 241, 242, 243], [5, 6, 4, 20]
    values = np.array([cloud, grass, shade], np.uint8)[:, None, None]  # (date, y, x, band)
    made, seen = compose("best", values, np.ones((3, 1, 1), np.bool_))
    assert made.dtype == np.uint8 and made[0, 0].tolist() == grass and seen.all()
    mixed = np.array([[[[9, 1]]], [[[5, 5]]], [[[1, 9]]]], np.float32)
    assert compose("best", mixed, np.ones((3, 1, 1), np.bool_))[0].tolist() == [[[5, 5]]]
    two = compose("best", values[:2], np.ones((2, 1, 1), np.bool_))[0]
    assert two[0, 0].tolist() == cloud, "of equals the latest"


def test_a_date_may_be_many_sheets_whose_overlap_is_settled_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    stack = rng.integers(1, 250, (3, 2, *SHAPE), np.uint8)
    files = []
    for image, day in zip(stack, DAYS, strict=False):
        parts = (Window(0, 0, 40, 35), Window(0, 30, 40, 30))
        files += [part_of(image, part, tmp_path / f"t{part.col}_{day}.tif") for part in parts]
    for kind in ("latest", "median", "best"):
        scene = describe_scene(files, None, laying=Laying(composite=kind))
        assert [len(date.sheets) for date in scene.groups[0].dates] == [2, 2, 2]
        values, valid, _ = read_scene(scene)
        expected, _ = oracle(kind, stack, np.ones((3, *SHAPE), np.bool_))
        assert valid.all()
        np.testing.assert_array_equal(values, expected)


def test_a_date_on_another_lattice_is_warped_onto_that_of_the_others(tmp_path: Path) -> None:
    stack = np.full((3, 1, *SHAPE), 10, np.uint8) * np.array([1, 2, 3], np.uint8)[:, None, None, None]
    files = dated(tmp_path, stack)
    with rasterio.open(files[0], "r+") as shifted:
        shifted.transform = CORNER * Affine.translation(0.5, 0)
    values, valid, _ = read_scene(describe_scene(files, None, laying=Laying(composite="median")))
    assert valid[:, :60].all() and (values[:, 1:60] == 20).all()


def test_what_a_mask_hides_on_its_day_is_of_another_day(tmp_path: Path) -> None:
    stack = np.full((3, 2, *SHAPE), 10, np.uint8) * np.array([1, 2, 3], np.uint8)[:, None, None, None]
    files = dated(tmp_path, stack)
    hidden = np.zeros((3, *SHAPE), np.bool_)
    hidden[0, 5:15, 5:30] = hidden[1, 10:20, 20:40] = True
    for clouds, day in zip(hidden, DAYS, strict=False):
        numbers = np.where(clouds, 9, 4).astype(np.uint8)[None]
        files.append(part_of(numbers, Window(0, 0, *SHAPE), tmp_path / f"a_{day}_SCL.tif"))
    for kind in ("latest", "median", "best"):
        scene = describe_scene(files, None, laying=Laying(composite=kind), masking=Masking(("scl",)))
        values, valid, _ = read_scene(scene)
        assert valid.all()
        np.testing.assert_array_equal(values, oracle(kind, stack, ~hidden)[0])


def test_an_earlier_date_is_read_only_where_the_latest_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = np.random.default_rng(2).integers(1, 250, (3, 2, *SHAPE), np.uint8)
    stack[0, :, 8:12, 20:30] = 0
    files = dated(tmp_path, stack)
    seen: list[tuple[str, Window]] = []
    whole = BandFile.read

    def noted(self: BandFile, window: Window, *into: NDArray) -> list:  # type: ignore[type-arg]
        seen.append((self._path[-12:-4], window))
        return whole(self, window, *into)

    monkeypatch.setattr(BandFile, "read", noted)
    read_scene(describe_scene(files, None, laying=Laying(composite="latest")))
    assert seen == [(DAYS[0], Window(0, 0, *SHAPE)), (DAYS[1], Window(8, 20, 4, 10))]


def test_a_hole_of_one_date_is_none_where_another_shows_the_place(tmp_path: Path) -> None:
    stack = np.random.default_rng(3).integers(1, 250, (2, 1, *SHAPE), np.uint8)
    stack[1, :, :, :20] = 0
    files = [
        write(tmp_path / f"a_{day}.tif", image, nodata=0, compress="deflate", blockysize=4)
        for image, day in zip(stack, DAYS, strict=False)
    ]
    with rasterio.open(files[0]) as file:
        at = int(file.get_tag_item("BLOCK_OFFSET_0_2", "TIFF", bidx=1))
    data = bytearray(files[0].read_bytes())
    data[at : at + 8] = b"\0" * 8
    files[0].write_bytes(data)
    for kind in ("latest", "median", "best"):
        values, valid, holes = read_scene(describe_scene(files, None, laying=Laying(composite=kind)))
        assert {hole.window for hole in holes} == {Window(8, 0, 4, 20)}, kind
        assert valid.sum() == SHAPE[0] * SHAPE[1] - 80
        np.testing.assert_array_equal(values[8:12, 20:, 0], stack[1, 0, 8:12, 20:])


@pytest.mark.parametrize(
    ("names", "laying", "said"),
    [
        (
            ("a_20240712", "b"),
            {"composite": "median"},
            "needs the date of each file, .* b.tif was taken; .*scene",
        ),
        (("x_20240712", "y_20240712"), {"composite": "latest"}, "both show 100% of a place"),
    ],
)
def test_what_cannot_be_composed_is_refused(
    tmp_path: Path, names: tuple[str, ...], laying: dict[str, str], said: str
) -> None:
    image = np.ones((1, *SHAPE), np.uint8)
    parts = Window(0, 0, *SHAPE), Window(0, 10, 40, 50)
    files = [part_of(image, part, tmp_path / f"{n}.tif") for n, part in zip(names, parts, strict=True)]
    with pytest.raises(SceneError, match=said):
        describe_scene(files, None, laying=Laying(**laying))  # type: ignore[arg-type]


def test_composites_of_other_kinds_and_dates_are_other_scenes(tmp_path: Path) -> None:
    stack = np.ones((3, 1, *SHAPE), np.uint8)
    files = dated(tmp_path, stack)
    kinds = [Laying(composite=kind) for kind in ("latest", "median", "best", "mean-probability")]  # type: ignore[arg-type]
    scenes = [describe_scene(files, None, laying=kind) for kind in [*kinds, Laying("newest")]]
    scenes.append(describe_scene(files[1:], None, laying=kinds[0]))
    assert len({scene.identity for scene in scenes}) == 6
    assert describe_scene(files[::-1], None, laying=kinds[1]).dates == scenes[1].dates
    assert (scenes[0].start, scenes[0].time) == ("2024-04-02", "2024-07-12")
    alone = describe_scene(files[:1], None, laying=kinds[1])
    assert alone.composite is None and alone.dates == () and alone.passes == 1
    assert [scene.passes for scene in scenes[:4]] == [1, 1, 1, 3]


def test_a_picture_shows_the_composite(tmp_path: Path) -> None:
    stack = np.random.default_rng(9).integers(1, 250, (3, 3, *SHAPE), np.uint8)
    files = dated(tmp_path, stack)
    for kind in ("latest", "median", "best", "mean-probability"):
        scene = describe_scene(files, None, laying=Laying(composite=kind))  # type: ignore[arg-type]
        picture = read_picture(scene, Window(0, 0, *SHAPE))
        wanted = oracle(
            "latest" if kind == "mean-probability" else kind, stack, np.ones((3, *SHAPE), np.bool_)
        )
        assert picture.valid.all()
        assert np.abs(picture.values - wanted[0]).max() == 0, kind


def test_who_learns_sees_one_image(tmp_path: Path) -> None:
    files = dated(tmp_path, np.ones((3, 3, *SHAPE), np.uint8))
    for kind in ("latest", "median", "best"):
        seen = Imagery((), laying=Laying(composite=kind))  # type: ignore[arg-type]
        assert describe_image(files, None, seen).composite == kind
    with pytest.raises(ConfigError, match="one that learns sees one image"):
        describe_image(files, None, Imagery((), laying=Laying(composite="mean-probability")))
