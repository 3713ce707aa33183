from __future__ import annotations

from pathlib import Path

import pytest
from serving import write_product

from citycover.classes.legend import read_legend
from citycover.errors import ConfigError
from citycover.evidence.catalogue import product_asked_for, product_names

SAOTOME = ((6.6, 0.2, 6.7, 0.3),)
WITH_FILES = [name for name in product_names() if name != "dynamic-world"]


@pytest.mark.parametrize("name", WITH_FILES)
def test_every_product_has_its_legend_and_its_files(name: str) -> None:
    edited = product_asked_for(name)
    assert edited is not None
    assert edited.year == max(edited.product.years)
    legend = read_legend(edited.product.legend)
    assert legend.nodata == edited.product.nodata[0]
    for year in edited.product.years:
        of_year = product_asked_for(f"{name}:{year}")
        assert of_year is not None
        (tile,) = of_year.tiles(SAOTOME)
        assert str(year) in tile.source or tile.band > 1 or year == 2000
        assert "{" not in tile.source + of_year.credit(tile).attribution
        assert of_year.credit(tile).licence == "CC-BY-4.0"


def test_worldcover_is_where_it_is_published() -> None:
    edited = product_asked_for("worldcover")
    assert edited is not None
    (tile,) = edited.tiles(SAOTOME)
    assert tile.source.endswith(".amazonaws.com/v200/2021/map/ESA_WorldCover_10m_2021_v200_N00E006_Map.tif")
    assert edited.words == "worldcover:2021"


def test_a_band_may_be_a_year() -> None:
    edited = product_asked_for("glc_fcs30:2005")
    assert edited is not None
    (tile,) = edited.tiles(SAOTOME)
    assert (tile.file, tile.band) == ("GLC_FCS30D_20002022_E5N5_Annual_V1.1.tif", 6)
    assert not tile.fetched


@pytest.mark.parametrize("named", ["labels.tif", "folder/labels", "/vsis3/bucket/labels", "a.b"])
def test_files_are_no_names(named: str) -> None:
    assert product_asked_for(named) is None


def test_a_file_that_is_there_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("worldcover").touch()
    assert product_asked_for("worldcover") is None


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"product 'worldcovre'; known by name: dynamic-world, esri, glc_fcs30"
    ):
        product_asked_for("worldcovre")


def test_a_year_that_there_is_not_lists_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"has no year 1999; it has 2020, 2021; give --labels worldcover:2021"
    ):
        product_asked_for("worldcover:1999")


def test_a_product_without_files_says_how_to_get_one() -> None:
    with pytest.raises(ConfigError, match=r"export the most frequent .* with the legend dynamic-world"):
        product_asked_for("dynamic-world")


def test_a_scene_beyond_the_product_is_told() -> None:
    edited = product_asked_for("worldcover")
    assert edited is not None
    with pytest.raises(ConfigError, match=r"covers -180,-60,180,84, the scene is in 0.00,-80.00,1.00,-79.00"):
        edited.tiles(((0, -80, 1, -79),))


def test_a_product_of_the_user_is_a_file(tmp_path: Path) -> None:
    path = write_product(tmp_path / "mine.toml", "https://example.org/x")
    edited = product_asked_for(f"{path}:2020")
    assert edited is not None
    assert (edited.name, edited.year) == ("mine", 2020)
    path.write_text('title = "Tiles"')
    with pytest.raises(ConfigError, match="legend: is missing"):
        product_asked_for(path)
    write_product(path, "x").write_text(path.read_text().partition("[tiling]")[0])
    with pytest.raises(ConfigError, match="either a tiling and years, or an export"):
        product_asked_for(path)
