"""The confusion matrix against scikit-learn, and comparisons of rasters against plain arrays."""

import json
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from making import make_legend
from sklearn import metrics

from citycover.classes import raster
from citycover.classes.legend import Legend, LegendClass, legends_that_fit, read_legend
from citycover.classes.raster import count_ids
from citycover.classes.table import ClassTable, common_legend, table_between
from citycover.errors import ConfigError
from citycover.evaluate.confusion import Confusion, confusion_of
from citycover.evaluate.rasters import compare_rasters

UTM = Affine(1, 0, 5e5, 0, -1, 5.8e6)


def write(path: Path, values: np.ndarray, **changes: Any) -> Path:
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": values.shape[0], "width": values.shape[1], "count": 1,
        "dtype": values.dtype.name, "crs": "EPSG:32633", "transform": UTM,
    }  # fmt: skip
    with rasterio.open(path, "w", **(profile | changes)) as dataset:
        dataset.write(values, 1)
    return path


def legend_of(ids: list[int], nodata: int | None = None, name: str = "any") -> Legend:
    classes = tuple(LegendClass(id=i, name=f"class {i}", color="#000000") for i in ids)
    return Legend(name=name, nodata=nodata, classes=classes)


def coarse(side: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 5, (side, side + 7), np.uint8)


@settings(max_examples=25)
@given(
    st.integers(2, 6).flatmap(
        lambda k: st.tuples(st.just(k), *[arrays(np.uint8, 60, elements=st.integers(1, k))] * 2)
    )
)
def test_metrics_agree_with_scikit_learn(given_: tuple[int, np.ndarray, np.ndarray]) -> None:
    classes, truth, mapped = given_
    found = confusion_of(truth, mapped, make_legend(classes))
    names = list(range(1, classes + 1))
    either = np.union1d(truth, mapped)
    matrix = metrics.confusion_matrix(truth, mapped, labels=names)
    np.testing.assert_array_equal(found.counts, matrix)
    assert found.overall_accuracy == pytest.approx(metrics.accuracy_score(truth, mapped))
    jaccard = metrics.jaccard_score(truth, mapped, labels=either, average=None, zero_division=0)
    assert found.miou == pytest.approx(jaccard.mean())
    weighted = metrics.jaccard_score(truth, mapped, labels=names, average="weighted", zero_division=0)
    assert found.fwiou == pytest.approx(weighted)
    with warnings.catch_warnings():  # classes that only the map has; and kappa of one class, which is 0 / 0
        warnings.simplefilter("ignore")
        assert found.mean_class_recall == pytest.approx(metrics.balanced_accuracy_score(truth, mapped))
        kappa = metrics.cohen_kappa_score(truth, mapped)
    assert found.kappa == pytest.approx(kappa, nan_ok=True)
    nan = {"labels": names, "average": None, "zero_division": np.nan}
    for ours, theirs in (
        (found.users_accuracy, metrics.precision_score(truth, mapped, **nan)),
        (found.producers_accuracy, metrics.recall_score(truth, mapped, **nan)),
        (found.f1, metrics.f1_score(truth, mapped, **nan)),
    ):
        np.testing.assert_allclose(ours, theirs)


ODD = st.sampled_from([-(2**63), -7, -1, 0, 1, 3, 255, 256, 7000, 2**31, 2**53 + 1, 2**63 - 1])


@settings(max_examples=25)
@given(
    st.lists(ODD, min_size=1, max_size=5, unique=True),
    arrays(np.int64, (7, 9), elements=ODD),
    arrays(np.int64, (7, 9), elements=ODD),
)
def test_any_ids_are_counted_and_strangers_have_no_class(
    ids: list[int], truth: np.ndarray, mapped: np.ndarray
) -> None:
    legend = legend_of(ids)
    found = confusion_of(truth, mapped, legend)
    for k, one in enumerate(legend.ids):
        for j, other in enumerate(legend.ids):
            assert found.counts[k, j] == ((truth == one) & (mapped == other)).sum()
    assert found.left_out == (np.isin(truth, ids) & ~np.isin(mapped, ids)).sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.uint64])
def test_small_and_unsigned_numbers_are_looked_up_like_any(dtype: Any) -> None:
    info = np.iinfo(dtype)
    labels = np.random.default_rng(0).integers(info.min, info.max, (300, 300), dtype, endpoint=True)
    labels[:40] = np.array([5, 100, info.max, info.min], dtype)[np.arange(300) % 4]
    ids = [5, 100, -1, min(int(info.max), 2**63 - 2)]
    table = ClassTable.onto(legend_of(ids))
    expected = np.full(labels.shape, -2)
    for rank, id_ in enumerate(ids):
        if info.min <= id_ <= info.max:
            expected[labels == dtype(id_)] = rank
    if info.max >= 255 and 255 not in ids:
        expected[labels == 255] = -1  # nodata of a product, where the legend names none
    np.testing.assert_array_equal(table.ranks_of(labels), expected)


def test_matrices_add_up_and_nodata_is_left_out() -> None:
    truth, mapped = coarse(80), coarse(80, 1)
    truth[:10] = 0
    mapped[:, :5] = 0
    legend = make_legend()
    whole = confusion_of(truth, mapped, legend)
    halves = confusion_of(truth[:40], mapped[:40], legend) + confusion_of(truth[40:], mapped[40:], legend)
    np.testing.assert_array_equal(whole.counts, halves.counts)
    assert (whole.compared, whole.left_out) == (70 * 82, 70 * 5) == (halves.compared, halves.left_out)


def test_a_report_is_valid_json_also_where_nothing_was_compared() -> None:
    report = Confusion.empty(5).report(make_legend())
    again = json.loads(json.dumps(report, allow_nan=False))
    assert again["overall_accuracy"] is again["miou"] is again["fwiou"] is again["kappa"] is None
    assert [c["iou"] for c in again["classes"]] == [None] * 5
    fields = {"id", "name", "iou", "f1", "users_accuracy", "producers_accuracy", "pixels"}
    assert set(again["classes"][0]) == fields


def test_kappa_of_a_whole_country_does_not_overflow() -> None:
    small = Confusion(np.array([[40, 10], [5, 45]]))
    assert Confusion(small.counts * 10**9).kappa == pytest.approx(small.kappa)


def test_a_coarse_raster_is_compared_at_the_pixels_of_the_truth(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 4, (8, 9), np.uint8)
    fine = values.repeat(10, 0).repeat(10, 1)
    ours = write(tmp_path / "coarse.tif", values, transform=UTM * Affine.scale(10), nodata=0)
    theirs = write(tmp_path / "fine.tif", fine, nodata=0)
    table = {1: 2, 2: 1, 3: 3}
    found = compare_rasters(ours, theirs, make_legend(), table, table)
    assert found.overall_accuracy == 1 and found.compared == fine.size


def test_a_map_on_another_grid_and_crs_is_seen_at_the_centres_of_the_truth(tmp_path: Path) -> None:
    mapped, truth = coarse(70, 3), coarse(30, 4)
    transform = Affine(2.7e-5, 0, 15.0003, 0, -1.8e-5, 52.35075)
    ours = write(tmp_path / "map.tif", mapped, crs="EPSG:4326", transform=transform)
    x0, y0 = pyproj.Transformer.from_crs(4326, 32633, always_xy=True).transform(15.0015, 52.3500)
    place = Affine(2, 0, round(x0), 0, -2, round(y0))
    theirs = write(tmp_path / "truth.tif", truth, transform=place)
    rows, cols = np.indices(truth.shape) + 0.5
    x, y = place * (cols, rows)
    lon, lat = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(x, y)
    col, row = (np.floor(v).astype(int) for v in ~transform * (lon, lat))
    inside = (row >= 0) & (row < mapped.shape[0]) & (col >= 0) & (col < mapped.shape[1])
    seen = np.where(inside, mapped[row.clip(0, mapped.shape[0] - 1), col.clip(0, mapped.shape[1] - 1)], 0)
    assert 0 < inside.sum() < truth.size, "the case has both"
    expected = confusion_of(truth, seen, make_legend())
    found = compare_rasters(ours, theirs, make_legend())
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.left_out == expected.left_out == (~inside).sum()


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("kind", ["tag", "mask"])
def test_nodata_of_both_files_counts_by_tag_and_by_mask(tmp_path: Path, kind: str, shifted: bool) -> None:
    mapped, truth = coarse(), coarse(seed=1)
    hidden_map, hidden_truth = np.zeros(mapped.shape, bool), np.zeros(mapped.shape, bool)
    hidden_map[:, 3:9], hidden_truth[10:15] = True, True
    legend = make_legend()
    paths = []
    for name, values, hidden in (("map", mapped, hidden_map), ("truth", truth, hidden_truth)):
        tagged = np.where(hidden, 4, np.minimum(values, 3)) if kind == "tag" else values
        path = write(tmp_path / f"{name}.tif", tagged.astype(np.uint8), nodata=4 if kind == "tag" else None)
        if kind == "mask":
            with rasterio.open(path, "r+") as dataset:
                dataset.write_mask(~hidden)
        paths.append(path)
        values[:] = np.where(hidden, 0, tagged)
    if shifted:  # onto another grid: the truth loses its last column, and the map is warped
        with rasterio.open(paths[1]) as dataset:
            profile, values = dataset.profile, dataset.read(1)[:, :-1]
            mask = dataset.read_masks(1)[:, :-1]
        profile["width"] -= 1
        paths[1] = tmp_path / "cut.tif"
        with rasterio.open(paths[1], "w", **profile) as dataset:
            dataset.write(values, 1)
            if kind == "mask":
                dataset.write_mask(mask)
        mapped, truth = mapped[:, :-1], truth[:, :-1]
    found, expected = compare_rasters(*paths, legend), confusion_of(truth, mapped, legend)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.left_out == expected.left_out == 6 * 35


def test_what_the_map_does_not_cover_is_left_out_though_it_has_no_nodata(tmp_path: Path) -> None:
    ours = write(tmp_path / "map.tif", coarse()[:, :20])
    theirs = write(tmp_path / "truth.tif", coarse())
    found = compare_rasters(ours, theirs, legend_of([0, 1, 2, 3, 4]))
    assert (found.compared, found.left_out) == (40 * 20, 40 * 27)
    assert found.overall_accuracy == 1


def test_strips_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = write(tmp_path / "map.tif", coarse(), transform=UTM * Affine.translation(0.4, -3))
    theirs = write(tmp_path / "truth.tif", coarse(seed=1))
    whole = compare_rasters(ours, theirs, make_legend())
    monkeypatch.setattr(raster, "_STRIP_PIXELS", 100)
    np.testing.assert_array_equal(compare_rasters(ours, theirs, make_legend()).counts, whole.counts)


def test_memory_does_not_depend_on_the_height_of_a_wide_raster(tmp_path: Path) -> None:
    """Measured on 40,000 columns, of which most are not stored and read as nodata."""
    peaks = []
    for rows in (250, 1000):
        path = tmp_path / f"{rows}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=rows, width=40_000, count=1, dtype="uint8", crs="EPSG:32633",
            transform=UTM, nodata=0, tiled=True, SPARSE_OK=True,
        ) as dataset:  # fmt: skip
            dataset.write(coarse(), 1, window=((0, 40), (0, 47)))
        tracemalloc.start()
        found = compare_rasters(path, path, make_legend())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.compared == 40 * 47
    assert peaks[1] < 1.05 * peaks[0]


def test_whole_numbers_in_a_float_raster_are_classes_and_others_are_not(tmp_path: Path) -> None:
    values = coarse().astype(np.float32)
    values[0, 0] = np.nan
    truth = write(tmp_path / "truth.tif", coarse())
    found = compare_rasters(write(tmp_path / "map.tif", values), truth, make_legend())
    assert found.overall_accuracy == 1 and found.left_out == 1
    with pytest.raises(ConfigError, match="numbers that are not whole"):
        compare_rasters(write(tmp_path / "half.tif", values + 0.5), truth, make_legend())


def test_rasters_without_a_crs_are_compared_pixel_by_pixel_or_refused(tmp_path: Path) -> None:
    bare = {"crs": None, "transform": Affine.identity()}
    ours = write(tmp_path / "map.tif", coarse(), **bare)
    theirs = write(tmp_path / "truth.tif", coarse(), **bare)
    assert compare_rasters(ours, theirs, make_legend()).overall_accuracy == 1
    with pytest.raises(ConfigError, match="not both have a CRS"):
        compare_rasters(ours, write(tmp_path / "small.tif", coarse(20), **bare), make_legend())


def test_unknown_ids_are_listed_with_counts_and_the_legend_that_fits(tmp_path: Path) -> None:
    values = np.full((6, 8), 10, np.uint8)
    values[0] = 95
    truth = write(tmp_path / "truth.tif", values)
    with pytest.raises(ConfigError, match=r"10 \(40 px\), 95 \(8 px\).*worldcover.*--legend"):
        compare_rasters(write(tmp_path / "map.tif", np.ones((6, 8), np.uint8)), truth, make_legend())
    with pytest.raises(ConfigError, match=r"^map .*: 95 \(8 px\).*--map-legend"):
        compare_rasters(truth, write(tmp_path / "one.tif", np.ones((6, 8), np.uint8)), make_legend(), {10: 1})


def test_rasters_apart_are_refused_with_both_extents(tmp_path: Path) -> None:
    ours = write(tmp_path / "map.tif", coarse(), transform=Affine(1, 0, 6e5, 0, -1, 5.8e6))
    with pytest.raises(ConfigError, match="do not overlap"):
        compare_rasters(ours, write(tmp_path / "truth.tif", coarse()), make_legend())
    empty = write(tmp_path / "empty.tif", np.zeros((40, 47), np.uint8), nodata=0)
    with pytest.raises(ConfigError, match=r"class in common nowhere.*1880 pixels"):
        compare_rasters(empty, tmp_path / "truth.tif", make_legend())


def test_a_file_that_is_no_raster_or_an_image_is_refused(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth.tif", coarse())
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(ConfigError, match="cannot be opened as a raster"):
        compare_rasters(tmp_path / "text.tif", truth, make_legend())
    heights = write(tmp_path / "dem.tif", np.arange(6000, dtype=np.int32).reshape(60, 100))
    with pytest.raises(ConfigError, match="image or a height model"):
        count_ids(heights)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_ids_are_counted_without_nodata(tmp_path: Path, dtype: str) -> None:
    values = coarse().astype(dtype)
    counts = count_ids(write(tmp_path / "a.tif", values, nodata=2))
    assert counts == {i: int((values == i).sum()) for i in (1, 3, 4)}


def test_legends_that_fit_hold_all_ids_and_come_smallest_first() -> None:
    fits = legends_that_fit({1, 2, 3, 15})
    assert "chesapeake7" in fits and "base4" not in fits
    sizes = [len(read_legend(name).ids) for name in fits]
    assert sizes == sorted(sizes)
    assert legends_that_fit([123_456]) == ()


def test_tables_join_legends_with_their_nodata() -> None:
    base, nlcd = read_legend("base4"), read_legend("nlcd")
    assert table_between(base, base) == {1: 1, 2: 2, 3: 3, 4: 4, 0: 0}
    assert table_between(nlcd, base)[12] == 0
    assert table_between(nlcd, base, "nlcd:wet_is_water")[12] == 1
    assert common_legend(nlcd, base) is base is common_legend(base, nlcd)
    with pytest.raises(ConfigError, match="--to LEGEND"):
        common_legend(read_legend("bigearthnet43"), read_legend("esri"))


def test_seven_and_thirteen_classes_of_one_tile_agree_in_a_common_legend(real_data: Path) -> None:
    folder = real_data / "landcover/chesapeake_1m"
    seven, thirteen = (
        folder / f"Baywide_{kind}_20132014_E1300000_N1770000.tif" for kind in ("7class", "13Class")
    )
    to = read_legend("landcover5")
    few, many = read_legend("chesapeake7"), read_legend("chesapeake13")
    table = table_between(few, to)
    through = {id_: table[other] for id_, other in table_between(many, few).items()}
    found = compare_rasters(seven, thirteen, to, table, through)
    assert found.overall_accuracy == 1 and found.left_out == 0
    assert found.compared == 10_664_933, "all pixels that either tags as valid"
