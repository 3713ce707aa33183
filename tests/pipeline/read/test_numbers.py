from pathlib import Path

import numpy as np
import pytest
from making import make_card
from rasters import write

from citycover.errors import SceneError
from citycover.model.card import BandGroup
from citycover.read.numbers import check_numbers
from citycover.scene.assemble import describe_scene

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


def test_landsat_by_name_is_refused_and_by_numbers_warned_of(tmp_path: Path) -> None:
    numbers = ((REFLECTANCE + 0.2) / 0.0000275).astype("uint16")
    with pytest.raises(SceneError, match=r"--scale 0.275 --offset -2000"):
        said(tmp_path, numbers, name="LC08_L2SP_193024_20210615_20210622_02_T1_SR_stack.TIF")
    assert "Landsat" in (said(tmp_path, numbers) or "")


def test_eight_bits_in_sixteen_and_sixteen_for_eight_are_warned_of(tmp_path: Path) -> None:
    assert "8 bits" in (said(tmp_path, (REFLECTANCE * 255).astype("uint16")) or "")
    assert "outside" in (said(tmp_path, (REFLECTANCE * 10000).astype("uint16"), high=255) or "")


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
