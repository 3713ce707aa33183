"""What lies beside an image and says something of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from citycover.files.identity import FileMark
from citycover.files.sidecars import meaning_of, sidecars_of

PLACE = "<GeoTransform> 400000, 1, 0, 5800000, 0, -1</GeoTransform>"

STATISTICS = (
    '<Metadata><MDI key="STATISTICS_MAXIMUM">255</MDI><MDI key="STATISTICS_MINIMUM">1</MDI></Metadata>'
)

BAND = f'<PAMRasterBand band="1">{STATISTICS}<Histograms><HistItem/></Histograms>{{}}</PAMRasterBand>'


def dataset(*parts: str) -> str:
    return "<PAMDataset>\n  " + "\n  ".join(parts) + "\n</PAMDataset>\n"


def test_names_are_those_that_gdal_looks_for() -> None:
    small, large = sidecars_of("/im/a.tif"), sidecars_of("/im/A.TIF")
    assert {"/im/a.tfw", "/im/a.tifw", "/im/a.wld", "/im/a.TFW", "/im/a.tif.msk", "/im/a.tif.aux.xml"} <= {
        *small
    }
    assert {"/im/A.tfw", "/im/A.TFW", "/im/A.TIF.aux.xml"} <= {*large} and len(small) == len(large)
    assert "/im/a.jgw" in sidecars_of("/im/a.jpeg") and "/im/a.j2w" in sidecars_of("/im/a.jp2")
    assert sidecars_of("s3://im/a.tif") == sidecars_of("/vsizip/im.zip/a.tif") == ()


def test_statistics_say_nothing_of_an_image_and_all_else_does(tmp_path: Path) -> None:
    path = tmp_path / "a.tif.aux.xml"
    said = {}
    for name, text in {
        "nothing": None,
        "statistics": dataset(BAND.format("")),
        "empty": "<PAMDataset/>",
        "place": dataset(PLACE),
        "place and statistics": dataset(BAND.format(""), PLACE),
        "elsewhere": dataset(PLACE.replace("400000", "500000")),
        "nodata": dataset(BAND.format("<NoDataValue>0</NoDataValue>")),
        "a time": dataset('<Metadata><MDI key="TIFFTAG_DATETIME">2024</MDI></Metadata>'),
        "damaged": "<PAMDataset>",
        "entities": '<!DOCTYPE a [<!ENTITY b "c">]>' + dataset(PLACE),
    }.items():
        if text is not None:
            path.write_text(text)
        said[name] = meaning_of(path)
    assert said["nothing"] == said["statistics"] == said["empty"] == ""
    assert said["place"] == said["place and statistics"]
    others = [said[name] for name in ("place", "elsewhere", "nodata", "a time", "damaged", "entities")]
    assert len({*others, ""}) == 7


@pytest.mark.parametrize("before", [None, dataset(PLACE)])
def test_a_mark_holds_until_something_else_is_said(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "a.tif.aux.xml"
    if before is not None:
        path.write_text(before)
    mark = FileMark.of(str(path), 0)
    assert mark.holds()
    path.write_text(dataset(BAND.format(""), *([PLACE] if before else [])))
    assert mark.holds()
    path.write_text(dataset(PLACE.replace("400000", "500000")))
    assert not mark.holds()
    path.unlink()
    assert mark.holds() is (before is None)
