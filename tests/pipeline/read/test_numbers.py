from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from making import make_card
from rasters import write

from citycover.errors import SceneError
from citycover.model.card import BandGroup, Dtype
from citycover.model.unit import Unit
from citycover.read.numbers import check_numbers
from citycover.scene.assemble import describe_scene
from citycover.scene.measure import Measure

REFLECTANCE = np.random.default_rng(0).uniform(0.01, 0.45, (3, 60, 80))


def said(path: Path, values: np.ndarray, high: float | None = 10000, name: str = "a.tif") -> str | None:
    group = BandGroup(
        bands=("red", "green", "blue"),
        dtypes=("uint8", "uint16", "int16", "float32"),
        value_range=None if high is None else (0, high),
    )
    scene_path = write(path / name, values, photometric="rgb")
    card = make_card(64, 0, 8, groups=(group,))
    return check_numbers(describe_scene([scene_path], card), card)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_numbers_of_the_models_scale_pass(tmp_path: Path, dtype: str) -> None:
    assert said(tmp_path, (REFLECTANCE * 10000).astype(dtype)) is None
    assert said(tmp_path, (REFLECTANCE * 255).astype(dtype), high=255) is None
    assert said(tmp_path, REFLECTANCE.astype("float32"), high=None) is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reflectance_of_one_is_refused_with_the_way_on(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(SceneError, match="--scale 10000 --offset 0"):
        said(tmp_path, REFLECTANCE.astype(dtype))


@pytest.mark.parametrize("name", ["LC08_L2SP_193024_20210615_20210622_02_T1_SR_stack.TIF", "a.tif"])
def test_landsat_is_refused_by_name_and_by_numbers(tmp_path: Path, name: str) -> None:
    numbers = ((REFLECTANCE + 0.2) / 0.0000275).astype("uint16")
    with pytest.raises(SceneError, match=r"as Landsat.*--scale 0.275 --offset -2000"):
        said(tmp_path, numbers, name=name)


def test_eight_bits_in_sixteen_and_sixteen_for_eight_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"as of 8 bits.*stretched.*say so: --scale 1 --offset 0"):
        said(tmp_path, (REFLECTANCE * 255).astype("uint16"))
    with pytest.raises(SceneError, match="outside; model 'test' was made for 0 to 255; say what they mean"):
        said(tmp_path, (REFLECTANCE * 10000).astype("uint16"), high=255)
    assert "10% of them outside" in (said(tmp_path, (REFLECTANCE * 10000).astype("uint16"), high=4050) or "")


def test_what_the_user_says_of_numbers_is_believed(tmp_path: Path) -> None:
    """Snow, or dark water: they look like another scale, and are not."""
    for numbers in (REFLECTANCE * 255, 7000 + REFLECTANCE * 1000):
        scene = describe_scene([write(tmp_path / "a.tif", numbers.astype("uint16"), photometric="rgb")], None)
        card = make_card(64, 0, 8, groups=(a_group("reflectance", (0, 10000), "uint16"),))
        with pytest.raises(SceneError):
            check_numbers(describe_scene(list(scene.groups[0].paths), card), card)
        told = describe_scene(list(scene.groups[0].paths), card, measure=Measure(0.0001))
        assert check_numbers(told, card) is None


@pytest.mark.parametrize(
    ("scale", "offset", "refused"),
    [
        (-1, 0, True),
        (1, -20_000, True),
        (1, 20_000, True),
        (1000, 0, True),
        (1, -1000, False),  # dark, and some of it below 0
        (1, 8000, False),  # snow, brighter than white
        (1, 11_000, False),
        (1, 0, False),
    ],
)
def test_numbers_that_are_all_far_from_the_models_are_refused_whoever_says_so(
    tmp_path: Path, scale: float, offset: float, refused: bool
) -> None:
    numbers = (REFLECTANCE * 10000).astype("int16")
    numbers[0, :2, :5] = 0
    card = make_card(64, 0, 8, groups=(a_group("dn", (0, 10000), "int16"),))
    path = write(tmp_path / "a.tif", numbers, photometric="rgb")
    scene = describe_scene([path], card, measure=Measure(scale, offset, "dn"))
    if refused:
        with pytest.raises(SceneError, match="none near those; model 'test' was made for 0 to 10000; say"):
            check_numbers(scene, card)
    else:
        check_numbers(scene, card)


def test_deep_water_may_lie_below_all_that_a_model_learned(tmp_path: Path) -> None:
    water = np.random.default_rng(0).integers(-90, -5, (3, 60, 80)).astype("int16")
    card = make_card(64, 0, 8, groups=(a_group("reflectance", (0, 10000), "int16"),))
    path = write(tmp_path / "a.tif", water, photometric="rgb")
    said = check_numbers(describe_scene([path], card, measure=Measure(0.0001)), card)
    assert "100% of them outside" in (said or "")


def a_group(unit: Unit, limits: tuple[float, float] | None, *dtypes: Dtype) -> BandGroup:
    scale = 0.0001 if unit == "reflectance" else 1
    return BandGroup(
        bands=("red", "green", "blue"), dtypes=dtypes, value_range=limits, unit=unit, unit_scale=scale
    )


def judged(path: Path, values: np.ndarray, group: BandGroup, **changes: object) -> str | None:
    card = make_card(64, 0, 8, groups=(group,))
    scene = describe_scene([write(path, values, photometric="rgb", **changes)], card)
    return check_numbers(scene, card)


def test_fine_pixels_of_a_camera_are_no_reflectance_until_somebody_says_so(tmp_path: Path) -> None:
    """11 bits of a satellite camera, and the same numbers at 10 m, where they may be reflectance x 10000."""
    group = a_group("reflectance", (0, 20000), "uint16")
    counts = np.random.default_rng(1).integers(80, 1900, (3, 60, 80)).astype("uint16")
    with pytest.raises(SceneError, match=r"pixels of 1 m, and nothing says that they are reflectance.*11 or"):
        judged(tmp_path / "a.tif", counts, group)
    coarse = Affine(10, 0, 5e5, 0, -10, 5.8e6)
    assert judged(tmp_path / "b.tif", counts, group, transform=coarse) is None
    assert judged(tmp_path / "20240601_101010_24_2406_3B_AnalyticMS_SR.tif", counts, group) is None


def test_a_network_of_eight_bits_takes_no_other_numbers_though_its_card_names_no_range(
    tmp_path: Path,
) -> None:
    group = a_group("dn", None, "uint8", "float32")
    assert judged(tmp_path / "a.tif", (REFLECTANCE * 255).astype("float32"), group) is None
    with pytest.raises(SceneError, match=r"a scale of 0 to 1.*convert them: --scale 255 --offset 0"):
        judged(tmp_path / "b.tif", REFLECTANCE.astype("float32"), group)
    for odd in (REFLECTANCE * 10000, -REFLECTANCE * 50):  # sixteen bits, decibels
        with pytest.raises(SceneError, match="outside"):
            judged(tmp_path / "c.tif", odd.astype("float32"), group)


def test_power_is_no_backscatter_in_decibels(tmp_path: Path) -> None:
    group = a_group("dB", None, "float32")
    assert judged(tmp_path / "a.tif", (10 * np.log10(REFLECTANCE)).astype("float32"), group) is None
    with pytest.raises(SceneError, match=r"no decibels.*10 log10"):
        judged(tmp_path / "b.tif", REFLECTANCE.astype("float32"), group)


def test_an_old_name_with_a_new_offset_is_warned_of(tmp_path: Path) -> None:
    """Scenes from before baseline 04.00 are processed anew with it, under the same names."""
    group, coarse = a_group("reflectance", (0, 20000), "uint16"), Affine(10, 0, 5e5, 0, -10, 5.8e6)
    name = tmp_path / "T33UUU_20170216T102101_B02.tif"
    numbers = (REFLECTANCE * 10000).astype("uint16")
    assert judged(name, numbers, group, transform=coarse) is None
    told = judged(name, numbers + 1000, group, transform=coarse)
    assert "perhaps with the 1000" in (told or "") and "--scale 0.0001 --offset -0.1" in (told or "")


def test_every_group_is_judged(tmp_path: Path) -> None:
    """A warning of the first hides no refusal of the second."""
    groups = (
        BandGroup(name="a", bands=("red",), dtypes=("uint16",), value_range=(0, 4050)),
        BandGroup(name="b", bands=("green",), dtypes=("uint16", "float32"), value_range=(0, 10000)),
    )
    card = make_card(64, 0, 8, groups=groups)
    red = write(tmp_path / "red.tif", (REFLECTANCE[:1] * 10000).astype("uint16"))
    green = write(tmp_path / "green.tif", REFLECTANCE[1:2].astype("float32"))
    with pytest.raises(SceneError, match=r"green.tif are .* reflectance of 0 to 1"):
        check_numbers(describe_scene([red, green], card), card)


@pytest.mark.parametrize("tagged", [True, False])
def test_nodata_is_no_number(tmp_path: Path, tagged: bool) -> None:
    """Of the file, or given by `--nodata`."""
    numbers = (REFLECTANCE * 10000).astype("float32")
    numbers[:, :20] = -9999
    group = BandGroup(bands=("red", "green", "blue"), dtypes=("float32",), value_range=(0, 10000))
    path = write(tmp_path / "a.tif", numbers, photometric="rgb", nodata=-9999 if tagged else None)
    card = make_card(64, 0, 8, groups=(group,))
    given = None if tagged else -9999
    assert check_numbers(describe_scene([path], card, nodata=given), card) is None
