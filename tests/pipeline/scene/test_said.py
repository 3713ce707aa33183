from typing import Any

import pytest

from citycover.scene.said import nodata_said, said_of

WHERE = {"proj:code": "EPSG:32633", "proj:transform": [10, 0, 5e5, 0, -10, 5.8e6], "proj:shape": [20, 30]}
BAND = {"data_type": "uint16", "nodata": 0, "scale": 1e-4, "offset": -0.1}


def asset(**changes: Any) -> dict[str, Any]:
    return {"href": "a.tif", "raster:bands": [BAND]} | WHERE | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"proj:code": None, "proj:epsg": 32633},
        {"proj:code": None, "proj:projjson": {"type": "GeographicCRS"}, "proj:epsg": 32633},
        {"proj:transform": [*WHERE["proj:transform"], 0, 0, 1]},
        {"raster:bands": None, "bands": [BAND]},  # STAC 1.1
        {"raster:bands": None, "bands": [{"name": "red"}], "data_type": "uint16", "raster:scale": 1e-4},
        {"raster:bands": [{"data_type": "uint8"}]},  # bytes mean themselves
        {"href": "https://example.org/A.TIFF"},
    ],
)
def test_an_asset_that_says_all_is_planned_by_it(changes: dict[str, Any]) -> None:
    said = said_of(asset(**changes), {})
    assert said is not None
    assert said.grid.shape == (20, 30) and said.grid.crs.to_epsg() == 32633
    assert tuple(said.grid.transform)[:6] == (10, 0, 5e5, 0, -10, 5.8e6)


def test_an_item_says_it_for_assets_that_say_nothing_else() -> None:
    own = {"proj:shape": [10, 15], "proj:transform": [20, 0, 5e5, 0, -20, 5.8e6]}
    said = said_of({"href": "a.tif", "raster:bands": [BAND]} | own, WHERE)
    assert said is not None and said.grid.shape == (10, 15) and said.grid.transform.a == 20
    assert said_of({"href": "a.tif", "raster:bands": [BAND]}, {"proj:epsg": None, **WHERE}) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"proj:code": None},
        {"proj:code": "EPSG:0"},
        {"proj:code": "nowhere"},
        {"proj:shape": None},
        {"proj:shape": [20]},
        {"proj:shape": [0, 30]},
        {"proj:shape": [20.5, 30]},
        {"proj:shape": "20"},
        {"proj:transform": None},
        {"proj:transform": [10, 0, 5e5, 0, 0, 5.8e6]},
        {"proj:transform": [10, 5, 5e5, 5, -10, 5.8e6]},
        {"proj:transform": [10, 0, 5e5, 0, float("nan"), 5.8e6]},
        {"proj:transform": [10, 0, "x", 0, -10, 5.8e6]},
        {"raster:bands": [BAND | {"data_type": "cint16"}]},
        {"raster:bands": [{"data_type": "uint16"}]},  # tags of the file may say what numbers mean
        {"raster:bands": [BAND, {"nodata": 0}]},
        {"raster:bands": None},
        {"href": "a.vrt"},
        {"href": "a.nc"},
    ],
)
def test_one_that_does_not_is_opened(changes: dict[str, Any]) -> None:
    assert said_of(asset(**changes), {}) is None


def test_nodata_is_one_number_of_all_bands() -> None:
    assert nodata_said(asset()) == 0
    assert nodata_said(asset(**{"raster:bands": [BAND, BAND | {"nodata": 1}]})) is None
    assert nodata_said(asset(**{"raster:bands": [{"nodata": "nan"}]})) != 0
    assert nodata_said({"href": "a.tif"}) is None and nodata_said(asset(**{"raster:bands": [{}]})) is None
