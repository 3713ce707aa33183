from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citycover.scene.when import acquisition_time

NEXT_YEAR = datetime.now(UTC).year + 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("T29UNU_20221005T115411_B02_60m.jp2", "2022-10-05T11:54:11Z"),
        ("ortho_2019-06-01.tif", "2019-06-01"),
        ("ortho_2019_06_01.tif", "2019-06-01"),
        ("m_4709963_se_14_1_20120722.tif", "2012-07-22"),
        ("LC08_L2SP_193024_20210615_20210622_02_T1_SR_B4.TIF", "2021-06-15"),
        ("LC80320272014265LGN00_B5.TIF", "2014-09-22"),
        ("ortho_20230230_20230301.tif", "2023-03-01"),
        ("tile_2048_1024.tif", None),
        ("tile_2010_1024.tif", None),
        ("patch_1920_0215.tif", None),
        ("patch_1920_0230.tif", None),
        ("ortho_20230230.tif", None),
        ("LE70220492001000EDC00.tif", None),
        ("LE70220492001367EDC00.tif", None),
        ("LE70220492001366EDC00.tif", None),
        (f"ortho_{NEXT_YEAR}0615.tif", None),
        ("19991340.tif", None),
    ],
)
def test_dates_in_names_are_days_that_were(name: str, expected: str | None) -> None:
    assert acquisition_time(name, {}) == expected


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("2021:06:30 10:11:12", "2021-06-30T10:11:12Z"),
        ("2021:02:30 10:11:12", None),
        ("0000:00:00 00:00:00", None),
        ("2021:06:30 25:61:00", "2021-06-30"),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_nonsense_in_tags_is_no_date(tag: str, expected: str | None) -> None:
    assert acquisition_time("x.tif", {"TIFFTAG_DATETIME": tag}) == expected


@given(st.text(alphabet="0123456789_-T:LCE A", max_size=40), st.text(alphabet="0123456789: -", max_size=24))
def test_whatever_is_said_is_a_moment_or_nothing(name: str, tag: str) -> None:
    found = acquisition_time(name, {"TIFFTAG_DATETIME": tag})
    assert found is None or datetime.fromisoformat(found).year >= 1900
