"""Labels on any grid, plans of chips, and what is read for them."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import write_scene
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import Resampling, reproject
from training_sets import make_city, training_set_of

from citycover.classes.legend import read_legend
from citycover.classes.raster import count_ids
from citycover.classes.table import NO_CLASS
from citycover.errors import ConfigError, MachineError, SceneError
from citycover.geometry.window import Window
from citycover.job.request import Imagery
from citycover_models.data.augment import Augment
from citycover_models.data.batches import LabelledBatch, training_batches
from citycover_models.data.cells import Cells, hold_out
from citycover_models.data.chips import ChipReader
from citycover_models.data.labels import IGNORE, LabelRaster, _consensus
from citycover_models.data.layouts import read_folder, read_list
from citycover_models.data.pairs import ImageAndLabels
from citycover_models.data.prepare import TrainingSet, prepare_training_set
from citycover_models.data.sampling import SamplePlan, plan_samples
from citycover_models.data.statistics import Measured, measure_statistics

GRID = Affine(1, 0, 500_000, 0, -1, 5_800_000)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_city(tmp_path_factory.mktemp("city"))


def write_labels(path: Path, codes: np.ndarray, transform: Affine, **changes: object) -> str:
    profile = {
        "driver": "GTiff", "height": codes.shape[0], "width": codes.shape[1], "count": 1,
        "dtype": codes.dtype.name, "crs": "EPSG:32633", "transform": transform, **changes,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(codes, 1)
    return str(path)


def learn(image: Path, *labels: str, legend: str = "worldcover", to: str | None = "base4", **more: object):
    return prepare_training_set([ImageAndLabels(str(image), labels)], [legend], to, **more)


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        (("nir", "red", "green"), "this training needs red, green, blue and nothing answers to blue"),
        (("red", "red", "green", "blue"), "which this training needs once"),
        ((None, None), "give the files that hold them, or leave the image out"),
        ((None,) * 5, "pass --bands 1,2,3"),
        (("palette",), "this training needs bands"),
    ],
)
def test_bands_that_an_image_lacks_are_those_of_a_training_not_of_a_model(
    tmp_path: Path, bands: tuple[str | None, ...], words: str
) -> None:
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": len(bands), "dtype": "uint8"}
    if bands == ("palette",):
        profile["photometric"] = "palette"
    with rasterio.open(tmp_path / "x.tif", "w", crs="EPSG:32633", transform=GRID, **profile) as image:
        image.write(np.random.default_rng(0).integers(1, 200, (len(bands), 64, 64), np.uint8))
        image.descriptions = bands
        if bands == ("palette",):
            image.write_colormap(1, {i: (i, i, i, 255) for i in range(256)})
    labels = write_labels(tmp_path / "l.tif", np.full((8, 8), 10, np.uint8), GRID * Affine.scale(8))
    with pytest.raises(SceneError) as refused:
        learn(tmp_path / "x.tif", labels)
    assert words in str(refused.value) and "model" not in str(refused.value)


def test_labels_in_another_crs_are_what_gdal_warps(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (90, 120))
    codes = np.random.default_rng(0).choice([10, 30, 50, 80, 0], (30, 40)).astype(np.uint8)
    with rasterio.open(image) as source:
        west, south, east, north = rasterio.warp.transform_bounds(source.crs, "EPSG:4326", *source.bounds)
        transform = Affine((east - west) / 40, 0, west, 0, (south - north) / 30, north)
        labels = write_labels(tmp_path / "l.tif", codes, transform, crs="EPSG:4326", nodata=0)
        wanted = np.zeros((90, 120), np.uint8)
        reproject(
            codes, wanted, src_transform=transform, src_crs="EPSG:4326", src_nodata=0,
            dst_transform=source.transform, dst_crs=source.crs, resampling=Resampling.nearest, tolerance=0,
        )  # fmt: skip
    training_set = learn(image, labels)
    got = training_set.pairs[0].label_reader().read(Window(0, 0, 90, 120))
    table = {
        0: IGNORE,
        10: 1,
        30: 2,
        50: 3,
        80: 0,
    }  # channels of base4: water, tree, low vegetation, built-up
    expected = np.vectorize(table.get)(wanted)
    assert (got != expected).mean() < 0.01  # the approximating transformer may move a border by a pixel
    assert set(np.unique(got)) == set(np.unique(expected))


def test_labels_of_the_image_grid_are_read_as_they_are(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (60, 70))
    codes = np.random.default_rng(0).choice([10, 30, 50, 80], (60, 70)).astype(np.uint8)
    reader = learn(image, write_labels(tmp_path / "l.tif", codes, GRID)).pairs[0].label_reader()
    got = reader.read(Window(5, 9, 20, 30))
    np.testing.assert_array_equal(got, np.vectorize({10: 1, 30: 2, 50: 3, 80: 0}.get)(codes[5:25, 9:39]))


def test_neighbouring_label_sheets_make_one(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (40, 40))
    left = write_labels(tmp_path / "a.tif", np.full((40, 20), 10, np.uint8), GRID)
    right = write_labels(
        tmp_path / "b.tif", np.full((40, 20), 80, np.uint8), GRID * Affine.translation(20, 0)
    )
    got = learn(image, left, right).pairs[0].label_reader().read(Window(0, 0, 40, 40))
    assert (got[:, :20] == 1).all() and (got[:, 20:] == 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_consensus_is_what_counting_votes_gives(seed: int, agree: int) -> None:
    votes = np.random.default_rng(seed).choice([0, 1, 2, IGNORE], (4, 5, 6)).astype(np.uint8)
    got = _consensus(votes, agree)
    for y, x in np.ndindex(5, 6):
        labels, counts = np.unique([v for v in votes[:, y, x] if v != IGNORE], return_counts=True)
        best = [int(k) for k, n in zip(labels, counts, strict=True) if n == counts.max()]
        wanted = best[0] if len(best) == 1 and counts.max() >= agree else IGNORE
        assert got[y, x] == wanted


def test_consensus_of_three_products(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    products = [write_labels(tmp_path / f"{k}.tif", np.full((30, 30), v, np.uint8), GRID)
                for k, v in enumerate((10, 10, 80))]  # fmt: skip
    got = learn(image, *products, agree=2).pairs[0].label_reader().read(Window(0, 0, 30, 30))
    assert (got == 1).all()
    with pytest.raises(ConfigError, match="--agree 4"):
        learn(image, *products, agree=4)


def test_unknown_codes_are_listed_with_a_legend_that_fits(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    labels = write_labels(tmp_path / "l.tif", np.full((30, 30), 41, np.uint8), GRID)
    with pytest.raises(ConfigError, match=r"41 \(900 px\).*nlcd"):
        learn(image, labels)


def test_labels_elsewhere_are_refused(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    codes = np.full((30, 30), 10, np.uint8)
    away = write_labels(tmp_path / "l.tif", codes, GRID * Affine.translation(500, 0))
    with pytest.raises(ConfigError, match="do not overlap"):
        learn(image, away)
    assert count_ids(away, "labels", under=lessons_grid(image)) == {}
    nothing = write_labels(tmp_path / "n.tif", codes * 0, GRID, nodata=0)
    with pytest.raises(ConfigError, match="no labelled pixel"):
        learn(image, nothing)


def lessons_grid(image: Path):
    from citycover.scene.assemble import describe_scene

    return describe_scene([image], None).grid


def test_labels_of_half_the_image_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    labels = write_labels(tmp_path / "l.tif", np.full((30, 15), 10, np.uint8), GRID)
    with caplog.at_level(logging.WARNING):
        learn(image, labels)
    assert "labels cover 50%" in caplog.text


def test_labels_that_hold_the_whole_world_cover_the_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    world = Affine(1, 0, -180, 0, -1, 90)  # of which a UTM zone knows a part
    labels = write_labels(tmp_path / "l.tif", np.full((180, 360), 10, np.uint8), world, crs="EPSG:4326")
    with caplog.at_level(logging.WARNING):
        got = learn(image, labels).pairs[0].label_reader().read(Window(0, 0, 30, 30))
    assert (got == 1).all() and "labels cover" not in caplog.text


def test_labels_may_stand_on_their_head(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    codes = np.random.default_rng(0).choice([10, 30, 50, 80], (30, 30)).astype(np.uint8)
    upright = learn(image, write_labels(tmp_path / "a.tif", codes, GRID))
    flipped = GRID * Affine.translation(0, 30) * Affine.scale(1, -1)
    turned = learn(image, write_labels(tmp_path / "b.tif", codes[::-1].copy(), flipped))
    one, two = (each.pairs[0].label_reader().read(Window(0, 0, 30, 30)) for each in (upright, turned))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("nodata", [None, float("nan")])
def test_labels_that_are_no_number_are_no_label(tmp_path: Path, nodata: float | None) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    codes = np.full((30, 30), 10, np.float32)
    codes[:, :9] = np.nan
    labels = write_labels(tmp_path / "l.tif", codes, GRID, nodata=nodata)
    got = learn(image, labels).pairs[0].label_reader().read(Window(0, 0, 30, 30))
    assert (got[:, :9] == IGNORE).all() and (got[:, 9:] == 1).all()


def test_labels_of_several_bands_are_refused(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (30, 30))
    colours = write_scene(tmp_path / "colours.tif", (30, 30), bands=3)
    with pytest.raises(ConfigError, match="one band of class numbers"):
        learn(image, str(colours))


def test_a_file_that_is_not_there_is_not_a_question_of_bands(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "l.tif", np.full((30, 30), 10, np.uint8), GRID)
    with pytest.raises(SceneError, match="no such file") as caught:
        learn(tmp_path / "nowhere.tif", labels)
    assert "--bands" not in str(caught.value)


def test_an_image_without_valid_pixels_is_refused(tmp_path: Path) -> None:
    image = write_scene(tmp_path / "x.tif", (40, 40), values=np.zeros((4, 40, 40)), nodata=0)
    training_set = learn(image, write_labels(tmp_path / "l.tif", np.full((40, 40), 10, np.uint8), GRID))
    plan = plan_samples(
        training_set.pairs, 4, chip=16, chips_per_epoch=2, balance="uniform", validation=0, seed=0
    )
    with pytest.raises(ConfigError, match="images are nodata where they have labels"):
        measure_statistics(training_set.pairs, plan)


def learn_two(tmp_path: Path, **second: object) -> tuple[TrainingSet, SamplePlan]:
    """Two images with labels, one chip each an epoch."""
    labels = write_labels(tmp_path / "l.tif", np.full((40, 40), 10, np.uint8), GRID)
    images = [write_scene(tmp_path / "a.tif", (40, 40)), write_scene(tmp_path / "b.tif", (40, 40), **second)]
    items = [ImageAndLabels(str(image), (labels,)) for image in images]
    training_set = prepare_training_set(items, ["worldcover"], "base4")
    plan = plan_samples(
        training_set.pairs, 4, chip=16, chips_per_epoch=8, balance="uniform", validation=0, seed=0
    )
    return training_set, plan


def test_images_of_several_types_learn_together_in_a_worker(tmp_path: Path) -> None:
    training_set, plan = learn_two(tmp_path, dtype="uint16")
    assert training_set.group.dtypes[-1] == "float32" and {"uint8", "uint16"} < set(training_set.group.dtypes)
    assert {chip.pair for chip in plan.epoch(0)} == {0, 1}
    reader = ChipReader(training_set.pairs, (0, 0, 0, 0))
    (batch,) = training_batches(reader, plan, batch=8, first=0, last=1, workers=1)
    assert batch.images.dtype == torch.float32


def test_few_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citycover_models.data.chips._OPEN", 1)
    training_set, plan = learn_two(tmp_path)
    reader = ChipReader(training_set.pairs, (0, 0, 0, 0))
    for chip in plan.epoch(0):
        reader.read(chip)
        assert list(reader._open) == [chip.pair]


def test_parts_of_an_image_that_cannot_be_read_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training_set, plan = learn_two(tmp_path)
    image = Path(training_set.pairs[0].name)
    with rasterio.open(image) as source:
        values, profile = source.read(), source.profile
    with rasterio.open(image, "w", **profile | {"compress": "deflate"}) as sink:
        sink.write(values)
    with rasterio.open(image) as source:
        at = int(source.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    content = bytearray(image.read_bytes())
    content[at : at + 20] = bytes(20)
    image.write_bytes(content)
    reader = ChipReader(training_set.pairs, (0, 0, 0, 0))
    channels = np.stack([reader.read(chip)[1] for chip in plan.epoch(0) if chip.pair == 0])
    assert (channels == IGNORE).any()
    assert caplog.text.count(f"parts of {image} cannot be read") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_cannot_read_is_said_in_one_line(tmp_path: Path, workers: int) -> None:
    training_set, plan = learn_two(tmp_path)
    (tmp_path / "l.tif").unlink()
    reader = ChipReader(training_set.pairs, (0, 0, 0, 0))
    with pytest.raises(ConfigError, match=r"l\.tif cannot be opened") as caught:
        list(training_batches(reader, plan, batch=2, first=0, last=1, workers=workers))
    assert "\n" not in str(caught.value)


def test_a_killed_worker_is_said(tmp_path: Path) -> None:
    training_set, plan = learn_two(tmp_path)

    class Dying(ChipReader):
        def read(self, chip: object) -> object:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(MachineError, match="--workers 0"):
        list(training_batches(Dying(training_set.pairs, (0,) * 4), plan, batch=2, first=0, last=1, workers=1))


def test_labels_of_another_decade_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = write_scene(tmp_path / "x_20230801.tif", (30, 30))
    labels = write_labels(tmp_path / "l_20110801.tif", np.full((30, 30), 10, np.uint8), GRID)
    with caplog.at_level(logging.WARNING):
        learn(image, labels)
    assert "12 years away" in caplog.text


def test_bands_must_be_there_and_the_same(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "l.tif", np.full((30, 30), 10, np.uint8), GRID)
    grey = write_scene(tmp_path / "g.tif", (30, 30), bands=1, descriptions=("a",))
    with pytest.raises(SceneError, match="--bands"):
        learn(grey, labels)
    assert len(learn(grey, labels, seen=Imagery((), ("1",))).group.bands) == 1
    colour = write_scene(tmp_path / "c.tif", (30, 30))
    rgb = write_scene(tmp_path / "d.tif", (30, 30), bands=3)
    both = [ImageAndLabels(str(p), (labels,)) for p in (colour, rgb)]
    assert prepare_training_set(both, ["worldcover"], "base4").group.names == ("red", "green", "blue")


# --- plans -------------------------------------------------------------------------------------------------


def plan_of(shape: tuple[int, int], seed: int, chip: int = 16, validation: float = 0.2) -> SamplePlan:
    rng = np.random.default_rng(seed)
    side = 8
    cells = -(-shape[0] // side), -(-shape[1] // side)
    block = 2 * chip
    held = rng.random((-(-shape[0] // block), -(-shape[1] // block))) < validation
    held.flat[0] = False
    counts = rng.integers(0, 3, (*cells, 3)).astype(np.float32) + 0.01
    return SamplePlan((Cells(shape, side, counts, held, block),), chip, 20, "classes", seed)


def test_what_has_no_label_is_not_held_out() -> None:
    counts = np.zeros((32, 32, 2), np.float32)
    counts[:, :16, 1] = 1  # the left half of an image of 8 x 8 blocks of 4 x 4 cells
    counts[:4, 16, 1] = 1e-3  # and a trace beside it
    cells = Cells((256, 256), 8, counts, np.zeros((8, 8), np.bool_), 32)
    for seed in range(20):
        found = hold_out(cells, np.zeros((8, 8), np.bool_), 0.25, np.random.default_rng(seed))
        assert found.sum() == 8 and not found[:, 4:].any()


@pytest.mark.parametrize(("size", "held"), [(40, 0), (79, 0), (80, 0), (96, 1), (160, 3)])
def test_slivers_are_no_blocks_to_hold_out(size: int, held: int) -> None:
    cells = Cells(
        (size, size),
        8,
        np.ones((-(-size // 8),) * 2 + (1,), np.float32),
        np.zeros((-(-size // 64),) * 2, np.bool_),
        64,
    )
    for seed in range(20):
        found = hold_out(cells, np.zeros(cells.held_out.shape, np.bool_), 0.3, np.random.default_rng(seed))
        assert found.sum() == held
        for row, col in np.argwhere(found):
            assert min(size - 64 * row, size - 64 * col) >= 32, "a chip fits"


@given(st.integers(40, 150), st.integers(40, 150), st.integers(0, 2**32 - 1))
def test_chips_lie_inside_and_touch_nothing_that_is_held_out(height: int, width: int, seed: int) -> None:
    plan = plan_of((height, width), seed)
    held = plan.cells[0].held_out.repeat(32, 0).repeat(32, 1)[:height, :width]
    for chip in plan.epoch(0):
        window = chip.window
        assert window.row >= 0 and window.row_end <= height and window.col >= 0 and window.col_end <= width
        assert not held[window.slices].any()
    for chip in plan.validation:
        assert held[chip.window.slices].all()


def test_a_plan_depends_on_its_seed_alone(city: Path) -> None:
    pairs = training_set_of(city).pairs
    options = {"chip": 32, "chips_per_epoch": 8, "balance": "uniform", "validation": 0.1}
    one, same, other = (plan_samples(pairs, 6, seed=s, **options) for s in (1, 1, 2))
    assert list(one.epoch(3)) == list(same.epoch(3)) != list(other.epoch(3))
    assert list(one.epoch(3)) != list(one.epoch(4))
    assert one.describe() == same.describe()


def test_balance_draws_rare_classes_as_often_as_common_ones() -> None:
    counts = np.zeros((20, 20, 2), np.float32)
    counts[..., 0] = 1
    counts[3, 4] = (0, 1)
    plan = SamplePlan((Cells((160, 160), 8, counts, np.zeros((5, 5), np.bool_), 32),), 16, 200, "classes", 0)
    rare = Window(24, 32, 8, 8)
    share = np.mean([chip.window.clip(rare) == rare for chip in plan.epoch(0)])
    assert 0.4 < share < 0.65
    assert plan.describe()["label_shares"] == [0.9975, 0.0025]


def test_counted_labels_are_those_of_the_raster(city: Path) -> None:
    plan = plan_samples(
        training_set_of(city).pairs, 6, chip=32, chips_per_epoch=4, balance="uniform", validation=0, seed=0
    )
    with rasterio.open(city / "labels_10m.tif") as source:
        fine = source.read(1).repeat(10, 0).repeat(10, 1)[:192, :192]
    shares = np.bincount(fine.ravel(), minlength=7)[1:] / fine.size
    np.testing.assert_allclose(plan.describe()["label_shares"], shares, atol=0.01)
    assert plan.validation == ()


def test_a_chip_is_what_the_files_hold(city: Path) -> None:
    training_set = training_set_of(city)
    plan = plan_samples(
        training_set.pairs, 6, chip=32, chips_per_epoch=4, balance="uniform", validation=0.1, seed=0
    )
    chip = plan.draw(0, 0)
    pixels, channels = ChipReader(training_set.pairs, (0, 0, 0, 0)).read(chip)
    window = rasterio.windows.Window(chip.window.col, chip.window.row, 32, 32)
    with rasterio.open(city / "image.tif") as source, rasterio.open(city / "labels_10m.tif") as labels:
        np.testing.assert_array_equal(pixels.transpose(2, 0, 1), source.read(window=window))
        fine = labels.read(1).repeat(10, 0).repeat(10, 1)
    np.testing.assert_array_equal(channels + 1, fine[chip.window.slices])


def test_invalid_pixels_teach_nothing(tmp_path: Path) -> None:
    values = np.full((4, 40, 40), 90)
    values[:, :, 20:] = 0
    image = write_scene(tmp_path / "x.tif", (40, 40), values=values, nodata=0)
    training_set = learn(image, write_labels(tmp_path / "l.tif", np.full((40, 40), 10, np.uint8), GRID))
    plan = plan_samples(
        training_set.pairs, 4, chip=64, chips_per_epoch=2, balance="uniform", validation=0.1, seed=0
    )
    pixels, channels = ChipReader(training_set.pairs, (7, 7, 7, 7)).read(plan.draw(0, 0))
    assert (channels[:40, :20] == 1).all()
    assert (channels[:, 20:] == IGNORE).all() and (channels[40:] == IGNORE).all()
    assert (pixels[channels == IGNORE] == 7).all()
    for scale in (1.0, 2.0, 0.5):  # the numbers between a pixel and none are not looked at either
        statistics = measure_statistics(training_set.pairs, replace(plan, scales=(scale,)))
        assert statistics.mean == (90.0,) * 4 and statistics.std == (0.001,) * 4


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0, 1.9, 3.0])
def test_held_out_chips_are_seen_as_those_that_are_learned_from(city: Path, scale: float) -> None:
    """Of the same ground and in as many pixels, whole in a block that no other chip touches."""
    plan = plan_samples(
        training_set_of(city).pairs, 6, chip=32, chips_per_epoch=20, balance="uniform", validation=0.25,
        seed=0, scales=(scale,), held_scale=scale,
    )  # fmt: skip
    (cells,), side = plan.cells, round(32 / scale)
    held = cells.held_out.repeat(cells.block, 0).repeat(cells.block, 1)
    assert cells.block == 2 * side
    assert len(plan.held_out) >= 2
    for chip in plan.held_out:
        assert (chip.window.height, chip.window.width, chip.side) == (side, side, 32)
        assert held[chip.window.slices].all()
    drawn = list(plan.epoch(0))
    assert {chip.window.height for chip in drawn} == {side}
    assert not any(held[chip.window.slices].any() for chip in drawn)


def test_small_numbers_keep_their_digits_and_rounding_is_no_deviation() -> None:
    mean, deviation = np.array([123.45678, 1.2e-4, 0.3]), np.array([12.345678, 4.5678e-6, 1e-9])
    found = Measured(mean, deviation).rounded
    assert found.mean == (123.457, 1.2e-4, 0.3) and found.std == (12.346, 4.57e-6, 0.001)


def test_processes_share_the_chips_of_a_step(city: Path) -> None:
    training_set = training_set_of(city)
    plan = plan_samples(
        training_set.pairs, 6, chip=32, chips_per_epoch=8, balance="uniform", validation=0.1, seed=0
    )
    reader = ChipReader(training_set.pairs, (0, 0, 0, 0))
    (whole,) = training_batches(reader, plan, batch=4, first=1, last=2, workers=0)
    halves = [
        next(training_batches(reader, plan, batch=4, first=1, last=2, workers=0, rank=rank, world=2))
        for rank in (0, 1)
    ]
    assert torch.equal(whole.images[0::2], halves[0].images) and torch.equal(
        whole.images[1::2], halves[1].images
    )


def test_image_and_labels_turn_together() -> None:
    labels = torch.arange(8 * 8).reshape(1, 8, 8).repeat(6, 1, 1)
    images = labels[:, None].repeat(1, 2, 1, 1).float()
    generator = torch.Generator().manual_seed(0)
    got = Augment(symmetries=True)(
        LabelledBatch(images, labels), torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1), generator
    )
    assert torch.equal(got.images[:, 1].long(), got.labels)
    assert len({tuple(map(tuple, label.tolist())) for label in got.labels}) > 1
    assert all(sorted(label.flatten().tolist()) == list(range(64)) for label in got.labels)


def test_light_varies_by_chip_and_not_the_labels() -> None:
    batch = LabelledBatch(torch.full((3, 2, 4, 4), 100, dtype=torch.uint8), torch.zeros(3, 4, 4).long())
    mean, std = torch.full((1, 2, 1, 1), 90.0), torch.full((1, 2, 1, 1), 10.0)
    augment = Augment(symmetries=False, brightness=0.5, contrast=0.2)
    one, same = (augment(batch, mean, std, torch.Generator().manual_seed(s)) for s in (1, 1))
    assert torch.equal(one.images, same.images) and torch.equal(one.labels, batch.labels)
    levels = one.images[:, 0, 0, 0]
    assert len(set(levels.tolist())) == 3 and (levels - 100).abs().max() <= 10 * (0.5 + 0.2) + 1


# --- layouts -----------------------------------------------------------------------------------------------


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_layouts_are_found_out(tmp_path: Path) -> None:
    put(tmp_path / "a", "m_1_naip-new.tif", "m_1_nlcd.tif", "m_1_lc.tif")
    chesapeake = read_folder(tmp_path / "a")
    assert chesapeake.legend == "nlcd" and chesapeake.items[0].truth == str(tmp_path / "a" / "m_1_lc.tif")
    put(tmp_path / "b", "HR_image/p_1.tif", "HR_image/p_10.tif", "LR_label_4class/p_1_nlcd.tif",
        "LR_label_4class/p_10_nlcd.tif", "CCLC/p_1_lc.tif")  # fmt: skip
    paraformer = read_folder(tmp_path / "b")
    assert paraformer.legend == "vcnet4" and read_legend("base4").table_from("vcnet4")[5] == 4
    assert [Path(i.labels[0]).name for i in paraformer.items] == ["p_1_nlcd.tif", "p_10_nlcd.tif"]
    assert paraformer.items[1].truth is None
    put(tmp_path / "truth", "HR_image/p.tif", "HR_label/p.tif", "LR_label/p.tif")
    (item,) = read_folder(tmp_path / "truth").items
    assert Path(item.labels[0]).parent.name == "LR_label" and Path(item.truth or "").parent.name == "HR_label"
    put(tmp_path / "poland", "HR_image/p.tif", "ESA_GLC10_label/p.tif", "FROM_GLC10_label/p.tif")
    with pytest.raises(ConfigError, match="ESA_GLC10_label, FROM_GLC10_label; one is needed"):
        read_folder(tmp_path / "poland")
    put(tmp_path / "c", "train/images/7.tif", "train/labels/7.tif", "val/images/8.tif", "val/labels/8.tif")
    skwanda = read_folder(tmp_path / "c")
    assert skwanda.legend == "skwanda8" and len(skwanda.items) == 1
    put(tmp_path / "d", "images/x.tif", "labels/x.tif")
    assert read_folder(tmp_path / "d").legend is None
    put(tmp_path / "e", "pictures/x.jpg")
    with pytest.raises(ConfigError, match="none of the layouts"):
        read_folder(tmp_path / "e")
    with pytest.raises(ConfigError, match=r"no folder .*HR_image"):
        read_folder(tmp_path / "d", "paraformer")
    with pytest.raises(ConfigError, match="naip-new"):
        read_folder(tmp_path / "d", "chesapeake")
    put(tmp_path / "d", "images/y.tif")
    with pytest.raises(ConfigError, match=r"y\.tif has no label"):
        read_folder(tmp_path / "d")


def test_lists_name_files_beside_them(tmp_path: Path) -> None:
    put(tmp_path, "x.tif", "a.tif", "b.tif", "t.tif")
    (tmp_path / "l.csv").write_text("image_fn,label_fn,gt_label_fn\nx.tif,a.tif;b.tif,t.tif\n")
    (item,) = read_list(tmp_path / "l.csv").items
    image, one, two, truth = (str(tmp_path / n) for n in ("x.tif", "a.tif", "b.tif", "t.tif"))
    assert item == ImageAndLabels(image, (one, two), truth)
    (tmp_path / "s3.csv").write_text("image_fn,label_fn\ns3://city/x.tif,https://city.org/a.tif\n")
    assert read_list(tmp_path / "s3.csv").items == (
        ImageAndLabels("s3://city/x.tif", ("https://city.org/a.tif",)),
    )
    (tmp_path / "m.csv").write_text("image,label\nx.tif,a.tif\n")
    with pytest.raises(ConfigError, match="image, label; needed"):
        read_list(tmp_path / "m.csv")
    (tmp_path / "o.csv").write_text("image_fn,label_fn\nx.tif\n")
    with pytest.raises(ConfigError, match="row 1 needs both"):
        read_list(tmp_path / "o.csv")
    (tmp_path / "n.csv").write_text("image_fn,label_fn\nx.tif,nowhere.tif\n")
    with pytest.raises(ConfigError, match=r"nowhere\.tif"):
        read_list(tmp_path / "n.csv")


def test_label_tables_drop_what_the_legend_does_not_learn() -> None:
    raster = LabelRaster.of("x", read_legend("nlcd"), read_legend("base4"))
    assert dict(raster.ranks)[12] == NO_CLASS and dict(raster.ranks)[41] == 1
