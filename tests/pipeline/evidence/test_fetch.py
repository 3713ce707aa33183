"""Labels by name, from a server on this machine that goes by the public names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.windows import from_bounds
from serving import serving, write_product

from citycover.errors import ConfigError, MachineError
from citycover.evidence.fetch import find_labels
from citycover.files.cache import cache_folder
from citycover.files.gdal import REMOTE_OPTIONS

CELLS = 2000
"""Along a side of a tile, a degree: 55 m each."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(REMOTE_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.01")
    return tmp_path / "cache"


def write_tile(path: Path, west: float, south: float) -> NDArray[np.uint8]:
    numbers = np.array([10, 20, 30, 50, 80, 250], np.uint8)
    cells = np.random.default_rng(1).choice(numbers, (CELLS, CELLS))
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": CELLS, "height": CELLS,
               "tiled": True, "blockxsize": 256, "blockysize": 256, "crs": "EPSG:4326",
               "transform": Affine(1 / CELLS, 0, west, 0, -1 / CELLS, south + 1)}  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(cells, 1)
    return cells


def scene(west: float, south: float, side: float = 0.02) -> GeoBox:
    return GeoBox((200, 200), Affine(side / 200, 0, west, 0, -side / 200, south + side), "EPSG:4326")


def test_the_part_that_a_scene_needs_is_read_and_kept(tmp_path: Path) -> None:
    cells = write_tile(tmp_path / "tile.tif", 6, 0)
    with serving({"N00E006.tif": tmp_path / "tile.tif"}) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        (found,) = find_labels(product, scene(6.51, 0.31))
        asked = len(server.asked)
        assert asked > 0
        assert server.sent < (tmp_path / "tile.tif").stat().st_size / 10
        assert find_labels(product, scene(6.52, 0.32)) == (found,)
        assert len(server.asked) == asked, "the neighbour lies in the same excerpt"
    assert (found.legend, found.path.parent) == ("worldcover", cache_folder() / "labels" / "tiles" / "2020")
    assert found.credit is not None
    assert found.credit.source == f"{server.url}/N00E006.tif"
    assert found.credit.attribution == "© Tiles 2020"
    with rasterio.open(found.path) as kept:
        window = from_bounds(*kept.bounds, transform=Affine(1 / CELLS, 0, 6, 0, -1 / CELLS, 1))
        top, left = round(window.row_off), round(window.col_off)
        expected = cells[top : top + kept.height, left : left + kept.width]
        np.testing.assert_array_equal(kept.read(1), np.where(expected == 250, 0, expected))
        assert kept.nodata == 0
        assert kept.bounds.left < 6.51 - 0.004
        assert kept.bounds.right > 6.53 + 0.004


def stac_product(path: Path, address: str) -> Path:
    """As `write_product`, by way of STAC items."""
    product = write_product(path, address)
    text = product.read_text().replace("{tile}.tif", "items/{tile}.json")
    product.write_text(text + '\nasset = "map"\n')
    return product


def test_a_tile_is_found_by_its_stac_item(tmp_path: Path) -> None:
    cells = write_tile(tmp_path / "tile.tif", 6, 0)
    item = tmp_path / "item.json"
    item.write_text('{"type": "Feature", "assets": {"map": {"href": "../cogs/any.tif"}}}')
    served = {"items/N00E006.json": item, "cogs/any.tif": tmp_path / "tile.tif"}
    with serving(served, failing=2) as server:
        product = stac_product(tmp_path / "tiles.toml", server.url)
        (found,) = find_labels(product, scene(6.99, 0.31))  # beside it lies a tile that there is not
        count = len(server.asked)
        assert {"/items/N00E006.json", "/cogs/any.tif", "/items/N00E007.json"} == set(server.asked)
        assert find_labels(product, scene(6.99, 0.31)) == (found,)
        assert len(server.asked) == count
    assert found.credit is not None
    with rasterio.open(found.path) as kept:
        window = from_bounds(*kept.bounds, transform=Affine(1 / CELLS, 0, 6, 0, -1 / CELLS, 1))
        top, left = round(window.row_off), round(window.col_off)
        expected = cells[top : top + kept.height, left : left + kept.width]
        np.testing.assert_array_equal(kept.read(1), np.where(expected == 250, 0, expected))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ('{"assets": {"data": {"href": "x.tif"}}}', "no STAC item with an asset 'map'"),
        ("<html>", "no STAC item with an asset 'map'"),
        ('{"assets": {"map": {"href": "file:///etc/passwd"}}}', "needed is an address on the web"),
    ],
)
def test_an_item_that_does_not_do_is_told(tmp_path: Path, item: str, said: str) -> None:
    (tmp_path / "item.json").write_text(item)
    with serving({"items/N00E006.json": tmp_path / "item.json"}) as server:
        product = stac_product(tmp_path / "tiles.toml", server.url)
        with pytest.raises(MachineError, match=said):
            find_labels(product, scene(6.51, 0.31))


def test_an_item_without_a_network_names_the_files_to_fetch(tmp_path: Path) -> None:
    product = stac_product(tmp_path / "tiles.toml", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"items/N00E006\.json cannot be read.*run again: N00E006\.tif"):
        find_labels(product, scene(6.51, 0.31))


def test_a_server_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    write_tile(tmp_path / "tile.tif", 6, 0)
    with serving({"N00E006.tif": tmp_path / "tile.tif"}, failing=3) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        assert len(find_labels(product, scene(6.51, 0.31))) == 1


def test_a_server_that_stays_busy_ends_with_what_to_fetch_by_hand(tmp_path: Path) -> None:
    write_tile(tmp_path / "tile.tif", 6, 0)
    with serving({"N00E006.tif": tmp_path / "tile.tif"}, failing=1000) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        with pytest.raises(MachineError, match=r"503.*put these files into .*cache.*N00E006\.tif") as caught:
            find_labels(product, scene(6.51, 0.31))
    assert caught.value.exit_code == 4
    assert list(cache_folder().rglob("*.tif")) == []


def test_without_a_network_a_tile_that_was_put_there_does(tmp_path: Path) -> None:
    product = write_product(tmp_path / "tiles.toml", "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"http://127\.0\.0\.1:9/N00E006\.tif"):
        find_labels(product, scene(6.51, 0.31))
    folder = cache_folder() / "labels" / "tiles" / "2020"
    folder.mkdir(parents=True)
    write_tile(folder / "N00E006.tif", 6, 0)
    (found,) = find_labels(product, scene(6.51, 0.31))
    (folder / "N00E006.tif").unlink()
    assert find_labels(product, scene(6.51, 0.31)) == (found,)


def test_tiles_of_files_without_an_address_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fetched by hand; put these .*GLC_FCS30D_20002022_E5N5_Annual_V1"):
        find_labels("glc_fcs30:2005", scene(6.51, 0.31))


def test_a_scene_across_tiles_gets_them_all_but_those_of_the_sea(tmp_path: Path) -> None:
    write_tile(tmp_path / "tile.tif", 6, 0)
    with serving({"N00E006.tif": tmp_path / "tile.tif"}) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        across = scene(6.99, 0.99)  # four tiles, three of them not there
        (found,) = find_labels(product, across)
        asked = set(server.asked)
        assert asked == {f"/{name}.tif" for name in ("N00E006", "N00E007", "N01E006", "N01E007")}
        count = len(server.asked)
        assert find_labels(product, across) == (found,)
        assert len(server.asked) == count, "that there is nothing is remembered"


def test_a_scene_in_the_sea_is_told(tmp_path: Path) -> None:
    with serving({}) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        with pytest.raises(ConfigError, match=r"has no file where the scene lies \(N00E006\.tif\).*the sea"):
            find_labels(product, scene(6.51, 0.31))
    assert list(cache_folder().rglob("*.none")) == []


def test_what_an_address_answers_is_read_as_a_geotiff_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret.tif"
    write_tile(secret, 6, 0)
    vrt = tmp_path / "tile.vrt"
    vrt.write_text(
        f'<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with serving({"N00E006.tif": vrt}) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        with pytest.raises(MachineError, match="cannot be read"):
            find_labels(product, scene(6.51, 0.31))


def test_a_scene_without_a_place_has_no_labels_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the scene does not say it"):
        find_labels("worldcover", GeoBox((9, 9), Affine(1, 0, 0, 0, -1, 0), None))


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, cache: Path) -> None:
    write_tile(tmp_path / "tile.tif", 6, 0)
    cache.write_text("a file where the folder should be")
    with serving({"N00E006.tif": tmp_path / "tile.tif"}) as server:
        product = write_product(tmp_path / "tiles.toml", server.url)
        with pytest.raises(MachineError, match="CITYCOVER_CACHE"):
            find_labels(product, scene(6.51, 0.31))


def test_real_tiles_are_read_by_their_blocks(real_data: Path) -> None:
    """WorldCover of Sao Tome under its public name: a city of 10 km, of a tile of 300 km."""
    tile = real_data / "landcover" / "worldcover_saotome" / "ESA_WorldCover_10m_2020_v100_N00E006_Map.tif"
    public = "v100/2020/map/ESA_WorldCover_10m_2020_v100_N00E006_Map.tif"
    with serving({public: tile}) as server:
        address = f"{server.url}/{public.replace('N00E006', '{tile}')}"
        product = cache_folder().parent / "worldcover.toml"
        product.write_text(
            Path("configs/labels/worldcover.toml").read_text().split("[years")[0]
            + f'[years.2020]\nfile = "{address}"\n'
        )
        (found,) = find_labels(product, scene(6.70, 0.30, 0.09))
        assert {path.lstrip("/") for path in server.asked} == {public}
        assert server.sent < 1_500_000, "of 3.4 MB, most of it the sea and the index of blocks"
    with rasterio.open(found.path) as kept, rasterio.open(tile) as whole:
        window = from_bounds(*kept.bounds, transform=whole.transform).round_offsets().round_lengths()
        np.testing.assert_array_equal(kept.read(1), whole.read(1, window=window))
