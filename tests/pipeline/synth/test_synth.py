"""The practice city: seamless, repeatable, georeferenced, and not separable by a threshold."""

import errno
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from citycover.classes.legend import read_legend
from citycover.errors import ConfigError, MachineError, ProductError
from citycover.geometry.window import Window
from citycover.synth import write
from citycover.synth.city import city_ground, city_window
from citycover.synth.labels import LabelMaker, coarse_labels
from citycover.synth.materials import S2_BANDS
from citycover.synth.parameters import CITY, SYNTH_VERSION, CoarseLabels
from citycover.synth.sensors import S2_GSD, S2_OFFSET, S2_QUANTIFICATION, second_window, sentinel2_window
from citycover.synth.write import SynthResult, write_city

SIZE = (301, 450)
PERFECT = CoarseLabels(
    visibility=(1.0,) * 6,
    confusion=tuple(tuple(float(i == j) for j in range(6)) for i in range(6)),
    change=(60, 0),
)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> SynthResult:
    return write_city(
        tmp_path_factory.mktemp("city"), SIZE, seed=5, sentinel2=True, second_sensor=True, threads=1
    )


def read(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as dataset:
        return dataset.read()


# ---- pieces = whole


@pytest.mark.parametrize(
    ("row", "col", "height", "width"), [(0, 0, 96, 70), (61, 37, 64, 130), (-90, 150, 33, 41)]
)
def test_a_window_is_a_piece_of_any_larger_one(row: int, col: int, height: int, width: int) -> None:
    whole = Window(-100, -20, 300, 280)
    image, truth = city_window(7, whole)
    part, part_truth = city_window(7, Window(row, col, height, width))
    cut = np.s_[row + 100 : row + 100 + height, col + 20 : col + 20 + width]
    assert np.array_equal(part, image[(slice(None), *cut)])
    assert np.array_equal(part_truth, truth[cut])


def test_other_sensors_are_seamless_too() -> None:
    whole = sentinel2_window(7, Window(0, 0, 240, 180))
    part = sentinel2_window(7, Window(120, 60, 120, 120))
    for band, gsd in S2_GSD.items():
        cut = np.s_[120 // gsd :, 60 // gsd :]
        assert np.array_equal(part[band], whole[band][cut])
    assert np.array_equal(
        second_window(7, Window(48, 64, 80, 60)), second_window(7, Window(0, 0, 128, 124))[:, 48:, 64:]
    )


def test_the_layout_of_plates_leaves_no_trace(
    city: SynthResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_PLATE", 256)
    monkeypatch.setattr(write, "_S2_PLATE", 240)
    other = write_city(tmp_path, SIZE, seed=5, sentinel2=True, second_sensor=True, threads=3)
    for a, b in zip(city.files, other.files, strict=True):
        assert np.array_equal(read(a), read(b)), a.name


def test_a_smaller_city_is_the_corner_of_a_larger_one(city: SynthResult, tmp_path: Path) -> None:
    small = write_city(tmp_path, (200, 230), seed=5, threads=1)
    for name in ("image.tif", "truth.tif"):
        assert np.array_equal(read(small.folder / name), read(city.folder / name)[:, :200, :230])
    inner = {"labels_10m.tif": np.s_[:, :19, :22], "labels_30m.tif": np.s_[:, :6, :7]}  # border cells differ
    for name, cut in inner.items():
        assert np.array_equal(read(small.folder / name)[cut], read(city.folder / name)[cut])


def test_the_same_seed_gives_the_same_bytes_and_another_another_city(tmp_path: Path) -> None:
    results = [
        write_city(tmp_path / str(i), 96, seed=seed, threads=t)
        for i, (seed, t) in enumerate(((1, 1), (1, 2), (2, 1)))
    ]
    for name in ("image.tif", "truth.tif", "labels_10m.tif", "labels_30m.tif"):
        first, again, other = ((r.folder / name).read_bytes() for r in results)
        assert first == again
        assert first != other


# ---- files


def test_image_and_classes_say_what_they_are(city: SynthResult) -> None:
    legend = read_legend("city")
    with rasterio.open(city.folder / "image.tif") as image:
        assert image.shape == SIZE
        assert image.crs == "EPSG:32633"
        assert image.transform[:6] == (1, 0, 392_000, 0, -1, 5_820_000)
        assert image.dtypes == ("uint8",) * 4
        assert image.descriptions == ("red", "green", "blue", "nir")
        assert image.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert image.colorinterp[3] == ColorInterp.undefined  # not alpha
        assert image.nodata is None
        assert image.tags()["CITYCOVER_SYNTH_VERSION"] == SYNTH_VERSION
        assert image.tags()["CITYCOVER_SYNTH_SEED"] == "5"
    for name, gsd, shape in (("truth", 1, SIZE), ("labels_10m", 10, (31, 45)), ("labels_30m", 30, (11, 15))):
        with rasterio.open(city.folder / f"{name}.tif") as classes:
            assert classes.shape == shape
            assert classes.crs == "EPSG:32633"
            assert classes.transform[:6] == (gsd, 0, 392_000, 0, -gsd, 5_820_000)
            assert classes.nodata == legend.product_nodata == 0
            assert set(np.unique(classes.read(1))) <= set(legend.ids)
            table = classes.colormap(1)
            assert all(table[c.id] == (*c.rgb, 255) for c in legend.classes)


def test_shares_are_counted_from_the_truth(city: SynthResult) -> None:
    truth = read(city.folder / "truth.tif")
    for c in read_legend("city").classes:
        assert city.shares[c.name] == pytest.approx((truth == c.id).mean())
    assert city.mpx_per_s > 0


def test_sentinel2_is_a_group_of_twelve_files_that_cover_odd_sizes(city: SynthResult) -> None:
    files = sorted((city.folder / "sentinel2").iterdir())
    assert len(files) == 12
    ground = city_ground(5, Window(0, 0, 360, 480))
    for path in files:
        band = path.name.split("_")[2]
        gsd = S2_GSD[band]
        with rasterio.open(path) as dataset:
            assert path.name.endswith(f"_{band}_{gsd}m.tif")
            assert dataset.shape == (-(-SIZE[0] // gsd), -(-SIZE[1] // gsd))
            assert dataset.transform[:6] == (gsd, 0, 392_000, 0, -gsd, 5_820_000)
            assert (dataset.crs, dataset.dtypes, dataset.nodata) == ("EPSG:32633", ("uint16",), 0)
            assert dataset.descriptions == (band,)
            assert dataset.scales[0] == pytest.approx(1e-4)
            assert dataset.offsets[0] == pytest.approx(-0.1)
            numbers = dataset.read(1)
        radiance = ground.radiance(S2_BANDS.index(band))
        mean = radiance.reshape(360 // gsd, gsd, 480 // gsd, gsd).mean(axis=(1, 3))
        error = (numbers.astype(float) - S2_OFFSET) / S2_QUANTIFICATION - mean[
            : numbers.shape[0], : numbers.shape[1]
        ]
        assert np.abs(error).max() < 5 * 0.0008
        assert numbers.min() > S2_OFFSET


def test_the_second_sensor_has_its_own_grid_and_sees_the_same_place(city: SynthResult) -> None:
    with rasterio.open(city.folder / "sensor_b" / "image.tif") as dataset:
        assert dataset.shape == (241, 360)  # ceil(301 / 1.25), 450 / 1.25
        assert dataset.transform[:6] == (1.25, 0, 392_000, 0, -1.25, 5_820_000)
        assert dataset.descriptions == ("red", "green", "blue", "nir")
        second = dataset.read()
    first = read(city.folder / "image.tif")
    for a, b in zip(first, second, strict=True):  # both averaged to cells of 5 m
        one = a[:300].reshape(60, 5, 90, 5).mean(axis=(1, 3))
        two = b[:240].reshape(60, 4, 90, 4).mean(axis=(1, 3))
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.95
        assert abs(one.mean() - two.mean()) > 5


# ---- coarse labels


def majority(truth: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Brute force: the most frequent class of each cell, the cells lying off by the documented offset."""
    down, right = CITY.labels.offset
    out = np.zeros((-(-truth.shape[0] // size), -(-truth.shape[1] // size)), np.uint8)
    for i, j in np.ndindex(*out.shape):
        rows = np.clip(np.arange(i * size, (i + 1) * size) + down, 0, truth.shape[0] - 1)
        cols = np.clip(np.arange(j * size, (j + 1) * size) + right, 0, truth.shape[1] - 1)
        out[i, j] = np.bincount(truth[rows][:, cols].ravel(), minlength=7).argmax()
    return out


def make_labels(
    truth: NDArray[np.uint8], cuts: list[int], parameters: CoarseLabels
) -> list[NDArray[np.uint8]]:
    maker = LabelMaker(3, (truth.shape[0], truth.shape[1]), parameters)
    bounds = [0, *cuts, truth.shape[0]]
    rows = [row for a, b in pairwise(bounds) for row in maker.add(truth[a:b])]
    assert [i for i, _, _ in rows] == list(range(-(-truth.shape[0] // 30)))
    parts = zip((10, 30), (np.concatenate([r[k] for r in rows]) for k in (1, 2)), strict=True)
    return [part[: -(-truth.shape[0] // g), : -(-truth.shape[1] // g)] for g, part in parts]


@settings(max_examples=15)
@given(
    st.tuples(st.integers(1, 130), st.integers(1, 75)),
    st.sets(st.integers(1, 129), max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_without_errors_a_label_is_the_majority_of_its_shifted_cell(
    shape: tuple[int, int], cuts: set[int], seed: int
) -> None:
    truth = np.random.default_rng(seed).integers(1, 7, shape, dtype=np.uint8)
    inside = sorted(c for c in cuts if c < shape[0])
    for size, labels in zip((10, 30), make_labels(truth, inside, PERFECT), strict=True):
        assert np.array_equal(labels, majority(truth, size))


def test_labels_do_not_depend_on_how_the_truth_arrives(city: SynthResult) -> None:
    truth = read(city.folder / "truth.tif")[0]
    for g, labels in zip((10, 30), coarse_labels(5, truth), strict=True):
        assert np.array_equal(labels, read(city.folder / f"labels_{g}m.tif")[0])


@pytest.mark.parametrize("cover", [2, 4, 6])
def test_labels_are_confused_as_often_as_documented(cover: int) -> None:
    truth = np.full((1500, 3000), cover, np.uint8)
    fresh = CoarseLabels(change=(60, 0.0))
    ten, _ = make_labels(truth, [], fresh)
    shares = np.bincount(ten.ravel(), minlength=7)[1:] / ten.size
    assert shares == pytest.approx(np.array(CITY.labels.confusion[cover - 1]), abs=0.012)
    # Clumps: a neighbour errs with its neighbour more often than chance has it.
    wrong = ten != cover
    together = (wrong[:, :-1] & wrong[:, 1:]).mean()
    assert together > 1.2 * wrong.mean() ** 2


def test_confusion_rows_are_shares() -> None:
    assert np.array(CITY.labels.confusion).sum(axis=1) == pytest.approx(np.ones(6))
    assert np.array(CITY.labels.confusion).shape == (6, 6)


# ---- difficulty


def features(image: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    red, green, blue, nir = image.astype(np.float64)
    return {
        "red": red, "green": green, "blue": blue, "nir": nir,
        "ndvi": (nir - red) / (nir + red),
        "ndwi": (green - nir) / (green + nir),
        "brightness": red + green + blue,
        "excess green": (2 * green - red - blue) / (red + green + blue),
    }  # fmt: skip


def best_interval_f1(values: NDArray[np.float64], wanted: NDArray[np.bool_], bins: int = 256) -> float:
    """The best F1 of any rule `low <= value < high`; one-sided thresholds are among them."""
    low, high = values.min(), values.max()
    place = np.minimum(((values - low) / (high - low) * bins).astype(np.intp), bins - 1).ravel()
    hits = np.concatenate([[0], np.bincount(place[wanted.ravel()], minlength=bins).cumsum()])
    taken = np.concatenate([[0], np.bincount(place, minlength=bins).cumsum()])
    right = hits[None, :] - hits[:, None]
    f1 = 2 * right / (taken[None, :] - taken[:, None] + hits[-1]).clip(1)
    return float(np.triu(f1, 1).max())


@pytest.mark.parametrize("seed", [0, 100])
def test_no_class_is_separable_by_a_threshold_alone(seed: int) -> None:
    image, truth = city_window(seed, Window(0, 0, 1024, 1024))
    for c in read_legend("city").classes:
        wanted = truth == c.id
        assert wanted.mean() > 0.005, f"seed {seed} shows too little {c.name}"
        for name, values in features(image).items():
            assert best_interval_f1(values, wanted) < 0.9, f"{c.name} by {name}"


def test_the_search_for_thresholds_finds_one() -> None:
    values = np.linspace(0, 1, 1000)
    assert best_interval_f1(values, values > 0.7) > 0.99
    assert best_interval_f1(values, (values > 0.2) & (values < 0.4)) > 0.97


# ---- streaming, and what goes wrong


def test_only_a_few_plates_are_ahead_of_the_writer() -> None:
    asked = 0

    def windows():
        nonlocal asked
        for i in range(40):
            asked += 1
            yield Window(i, 0, 1, 1)

    with ThreadPoolExecutor(2) as pool:
        drawn = write._draw(pool, 2, lambda seed, window: seed + window.row, 1, windows())
        for n, (window, value) in enumerate(drawn):
            assert (window.row, value) == (n, n + 1)
            assert asked <= n + 4


def test_progress_ends_at_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_PLATE", 64)
    shares: list[float] = []
    write_city(tmp_path, (100, 70), seed=0, progress=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("size", "seed", "threads", "says"),
    [
        (0, 0, 1, "give 1 to"),
        ((10, 600_000), 0, 1, "give 1 to"),
        (8, -1, 1, "seed -1"),
        (8, 0, 0, "0 threads"),
    ],
)
def test_senseless_requests_are_refused(
    size: int | tuple[int, int], seed: int, threads: int, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        write_city(tmp_path, size, seed, threads=threads)
    assert list(tmp_path.iterdir()) == []


def test_a_city_is_not_replaced_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_PLATE", 64)
    write_city(tmp_path, 40, seed=0)
    before = (tmp_path / "image.tif").read_bytes()
    with pytest.raises(ProductError, match=r"image\.tif"):
        write_city(tmp_path, 40, seed=1)
    assert (tmp_path / "image.tif").read_bytes() == before
    write_city(tmp_path, 40, seed=1, overwrite=True)
    assert (tmp_path / "image.tif").read_bytes() != before


def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "_put", full)
    monkeypatch.setattr(write, "_PLATE", 64)
    with pytest.raises(MachineError, match="No space left"):
        write_city(tmp_path, 40, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "city").write_text("not a folder")
    with pytest.raises(MachineError, match="choose another folder"):
        write_city(tmp_path / "city", 40, seed=0)
