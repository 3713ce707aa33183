from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from making import make_card
from rasters import write

from citycover.errors import ConfigError, SceneError
from citycover.geometry.window import Window
from citycover.model.card import BandGroup, ModelCard
from citycover.model.unit import Unit
from citycover.read.numbers import check_numbers
from citycover.read.raster import RasterReader
from citycover.scene.assemble import describe_scene
from citycover.scene.measure import Measure, conversion, measure_of
from citycover.scene.scene import Scene

LANDSAT = "LC08_L2SP_193024_20210615_20210622_02_T1_SR_stack.TIF"

REFLECTANCE = np.random.default_rng(0).uniform(0.01, 0.45, (3, 40, 50))


def card(unit: Unit = "reflectance", dtypes: tuple[str, ...] = ("uint16", "float32")) -> ModelCard:
    group = BandGroup(
        bands=("red", "green", "blue"), dtypes=dtypes, value_range=(0, 10000),
        unit=unit, unit_scale=0.0001 if unit == "reflectance" else 1.0,
    )  # fmt: skip
    return make_card(64, 0, 8, groups=(group,))


def tagged(path: Path, values: np.ndarray, scale: float, offset: float, unit: str | None = None) -> Path:
    write(path, values, photometric="rgb", nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale,) * 3, (offset,) * 3
        if unit:
            dataset.units = (unit,) * 3
    return path


def read(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    (group,) = scene.groups
    reader = RasterReader(group)
    values, valid = np.zeros((*group.shape, 3), group.dtype), np.zeros(group.shape, np.bool_)
    reader.read_into(Window(0, 0, *group.shape), values, valid)
    reader.close()
    return values.transpose(2, 0, 1), valid


@given(st.integers(1, 60000), st.sampled_from([(0.0001, 0.0), (0.0001, -0.1), (0.0000275, -0.2), (1.0, 0.0)]))
def test_a_conversion_is_exact_to_the_last_digit(number: int, said: tuple[float, float]) -> None:
    gain, bias = conversion("x", Measure(*said), None, card().groups[0])
    assert gain * number + bias == pytest.approx((said[0] * number + said[1]) * 10000, abs=1e-6)
    assert (gain, bias) in {(1.0, 0.0), (1.0, -1000.0), (0.275, -2000.0), (10000.0, 0.0)}


def test_tags_of_a_file_make_its_numbers_those_of_the_model(tmp_path: Path) -> None:
    numbers = ((REFLECTANCE + 0.1) * 10000).astype(np.uint16)
    numbers[:, 3, 4] = 0
    path = tagged(tmp_path / "x.tif", numbers, 0.0001, -0.1)
    values, valid = read(describe_scene([path], card()))
    assert not valid[3, 4] and valid.sum() == 40 * 50 - 1
    np.testing.assert_array_equal(values[:, valid], numbers[:, valid].astype(np.float32) - 1000)
    values, _ = read(describe_scene([path], card(dtypes=("uint16",))))
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values[:, valid], np.maximum(numbers[:, valid].astype(int) - 1000, 0))


def test_a_model_without_a_unit_is_given_what_stands_in_the_file(tmp_path: Path) -> None:
    numbers = (REFLECTANCE * 10000).astype(np.uint16)
    values, _ = read(describe_scene([tagged(tmp_path / "x.tif", numbers, 0.0001, -0.1)], card("dn")))
    np.testing.assert_array_equal(values, numbers)


def test_what_the_user_says_comes_before_what_the_file_says(tmp_path: Path) -> None:
    path = tagged(tmp_path / "x.tif", REFLECTANCE.astype(np.float32), 7, 3)
    for unit, measure in (
        ("reflectance", Measure()),
        ("dn", Measure(10000)),
        ("reflectance", Measure(1, 0, "reflectance")),
    ):
        values, _ = read(describe_scene([path], card(unit), measure=measure))
        np.testing.assert_allclose(values, REFLECTANCE * 10000, rtol=1e-6)


def test_landsat_is_converted_by_its_name(tmp_path: Path) -> None:
    numbers = ((REFLECTANCE + 0.2) / 0.0000275).astype(np.uint16)
    scene = describe_scene([write(tmp_path / LANDSAT, numbers, photometric="rgb")], card())
    values, _ = read(scene)
    np.testing.assert_allclose(values, REFLECTANCE * 10000, atol=0.3)
    assert check_numbers(scene, card()) is None


def test_nan_is_invalid_also_where_whole_numbers_are_made(tmp_path: Path) -> None:
    numbers = REFLECTANCE.astype(np.float32)
    numbers[1, 2, 3] = np.nan
    path = write(tmp_path / "x.tif", numbers, photometric="rgb")
    values, valid = read(describe_scene([path], card(dtypes=("uint16",)), measure=Measure()))
    assert values.dtype == np.uint16 and not valid[2, 3] and valid.sum() == 40 * 50 - 1


def test_numbers_that_are_converted_are_judged_as_the_network_sees_them(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", REFLECTANCE.astype(np.float32), photometric="rgb")
    for unit, option in (("reflectance", "--scale 1 --offset 0"), ("dn", "--scale 10000 --offset 0")):
        with pytest.raises(SceneError, match=f"reflectance of 0 to 1.*convert it: {option}"):
            check_numbers(describe_scene([path], card(unit)), card(unit))
    assert check_numbers(describe_scene([path], card(), measure=Measure()), card()) is None
    wrong = check_numbers(describe_scene([path], card(), measure=Measure(100)), card())
    assert wrong is not None and "outside" in wrong


@pytest.mark.parametrize(
    ("given_", "said"),
    [((0.0, 0.0), "--scale takes a number that is not 0"), ((1.0, float("inf")), "--offset a number"),
     ((1.0, 0.0, "feet"), "--unit takes dn, reflectance, dB, m; got 'feet'")],
)  # fmt: skip
def test_what_means_nothing_is_refused(given_: tuple, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Measure(*given_)


def test_another_unit_is_refused(tmp_path: Path) -> None:
    path = tagged(tmp_path / "x.tif", REFLECTANCE.astype(np.float32), 2, 0, "dB")
    with pytest.raises(SceneError, match=r"numbers of x.tif are dB, the model needs .*--unit reflectance"):
        describe_scene([path], card())
    with pytest.raises(SceneError, match="are reflectance, the model needs dn"):
        describe_scene([path], card("dn"), measure=Measure(1, 0, "reflectance"))


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("T29UNU_20221005T115411_B02_60m.jp2", Measure(0.0001, -0.1, "reflectance")),
        ("T33UUU_20170216T102101_B02.jp2", None),  # of a day before the offset, or processed anew with it
        ("T29UNU_20221005T115411_B02_60m.tif", None),  # somebody made it, with the offset or without
        ("20240601_101010_24_2406_3B_AnalyticMS_SR_8b_clip.tif", Measure(0.0001, 0, "reflectance")),
        ("20240601_101010_24_2406_3B_AnalyticMS_8b_SR.tif", Measure(0.0001, 0, "reflectance")),
        ("20170831_172754_101c_3B_AnalyticMS_DN_udm.tif", None),
        ("LC08_L2SP_193024_20210615_20210622_02_T1_SR_B4.TIF", Measure(0.0000275, -0.2, "reflectance")),
        ("LC08_L2SP_193024_20210615_20210622_02_T1_SR_QA_AEROSOL.TIF", None),
    ],
)
def test_what_a_name_says_of_numbers(name: str, means: Measure | None) -> None:
    assert measure_of(name, 1, 0, None) == means
    assert measure_of(name, 0.5, 0, None) == Measure(0.5)  # tags go before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LC80320272014265LGN00_B2.TIF", "are counts of Landsat level 1.*MTL.txt"),
        ("LE07_L1TP_193024_20000615_20200917_02_T1_B3.TIF", "are counts of Landsat level 1"),
        ("20170831_172754_101c_3B_AnalyticMS.tif", r"are radiance of PlanetScope.*AnalyticMS_SR"),
        ("20170831_172754_101c_3B_AnalyticMS_clip.tif", "are radiance of PlanetScope"),
    ],
)
def test_names_of_numbers_that_are_no_reflectance(tmp_path: Path, name: str, said: str) -> None:
    path = write(tmp_path / name, (REFLECTANCE[:1] * 10000).astype(np.uint16), photometric="minisblack")
    with pytest.raises(SceneError, match=said):
        describe_scene([path], card(), bands=("1", "1", "1"))
    assert describe_scene([path], card("dn"), bands=("1", "1", "1"))
    asked = describe_scene([path], card(), bands=("1", "1", "1"), measure=Measure(2e-5, -0.1))
    assert asked.conversions


def test_a_unit_alone_is_said_too(tmp_path: Path) -> None:
    path = tagged(tmp_path / "x.tif", REFLECTANCE.astype(np.float32), 1, 0, "reflectance")
    values, _ = read(describe_scene([path], card()))
    np.testing.assert_allclose(values, REFLECTANCE * 10000, rtol=1e-6)
    path = tagged(tmp_path / "y.tif", REFLECTANCE.astype(np.float32), 1, 0, "m")
    with pytest.raises(SceneError, match=r"numbers of y.tif are m, the model needs reflectance"):
        describe_scene([path], card())


def test_0_is_nodata_of_sentinel2_as_it_is_delivered(tmp_path: Path) -> None:
    numbers = ((REFLECTANCE[:1] + 0.1) * 10000).astype(np.uint16)
    numbers[0, 3, 4] = 0
    options = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    path = write(tmp_path / "T29UNU_20221005T115411_B04_10m.jp2", numbers, **options)
    _, valid = read(describe_scene([path], None))
    assert not valid[3, 4] and valid.sum() == valid.size - 1
