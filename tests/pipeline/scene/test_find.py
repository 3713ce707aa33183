import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasters import write

from citycover.errors import SceneError
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files
from citycover.scene.find import rasters_of
from citycover.scene.masking import Masking
from citycover.scene.trust import Trust


def sheet(path: Path, col: int = 0, bands: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(
        path, np.ones((bands, 20, 30), np.uint8), transform=Affine(1, 0, 5e5 + 30 * col, 0, -1, 5.8e6)
    )


def names(*given: str | Path, trust: Trust = Trust()) -> list[str]:  # noqa: B008 - a value
    return [Path(one.path).name for one in rasters_of(given, trust)]


def item(name: str, assets: dict[str, Any], time: str | None = "2024-05-31T10:00:00Z") -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": None,
        "links": [],
        "properties": {"datetime": time},
        "assets": assets,
    }


def asset(href: str, *bands: tuple[str, str], roles: tuple[str, ...] = ("data",)) -> dict[str, Any]:
    eo = [{"name": name, "common_name": common} for name, common in bands]
    return {"href": href, "roles": list(roles), "eo:bands": eo}


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_folder_is_its_rasters(tmp_path: Path) -> None:
    for name in (
        "b.tif",
        "a.TIFF",
        "c.jp2",
        ".hidden.tif",
        "a.tif.aux.xml",
        "readme.txt",
        "all.vrt",
        "in/d.tif",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.TIFF", "b.tif", "c.jp2"]
    for name in ("b.tif", "a.TIFF", "c.jp2"):
        (tmp_path / name).unlink()
    assert names(tmp_path) == ["all.vrt"]


def test_a_pattern_is_what_it_matches_and_a_file_of_that_name_is_itself(tmp_path: Path) -> None:
    for name in ("x1.tif", "x2.tif", "in/x3.tif", "x[12].tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(f"{tmp_path}/x?.tif") == ["x1.tif", "x2.tif"]
    assert names(f"{tmp_path}/**/x3.tif") == ["x3.tif"]
    assert names(f"{tmp_path}/x[12].tif") == ["x[12].tif"]
    with pytest.raises(SceneError, match=r"no file matches .*y"):
        names(f"{tmp_path}/y*.tif")


def test_an_address_of_this_machine_is_a_path(tmp_path: Path) -> None:
    """Else nobody would see that the file changes."""
    path = sheet(tmp_path / "a b.tif")
    (info,) = describe_files([path.as_uri()])
    assert (info.path, info.size) == (str(path), path.stat().st_size)


def test_a_folder_of_sheets_is_a_scene(tmp_path: Path) -> None:
    for col in range(3):
        sheet(tmp_path / f"tile_{col}.tif", col, 3)
    assert describe_scene([tmp_path], None).shape == (20, 90)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match=r"folder without raster files; .* pattern"):
        describe_files([tmp_path / "empty"])


def test_a_tile_index_names_files_from_its_own_folder(tmp_path: Path) -> None:
    sheet(tmp_path / "tiles/a1.tif"), sheet(tmp_path / "tiles/a2.tif", 1)
    feature = {"type": "Feature", "geometry": None}
    features = [feature | {"properties": {"location": f"tiles/a{n}.tif"}} for n in (2, 1)]
    index = save(tmp_path / "index.geojson", {"type": "FeatureCollection", "features": features})
    assert names(index) == ["a2.tif", "a1.tif"]
    assert describe_scene([index], None).shape == (20, 60)
    features[0]["properties"] = {"place": "x"}
    with pytest.raises(SceneError, match=r"without a column 'location'.*gdaltindex"):
        names(save(index, {"type": "FeatureCollection", "features": features[:1]}))


@pytest.mark.parametrize("place", [None, 3, ""])
def test_a_feature_of_a_tile_index_without_a_file_is_told_of(tmp_path: Path, place: Any) -> None:
    sheet(tmp_path / "a.tif")
    features = [
        {"type": "Feature", "geometry": None, "properties": {"location": p}} for p in ("a.tif", place)
    ]
    index = save(tmp_path / "index.geojson", {"type": "FeatureCollection", "features": features})
    with pytest.raises(SceneError, match=r"location of feature 2 of 2 is .*, no name of a file"):
        names(index)


def test_an_index_names_files_in_archives(tmp_path: Path) -> None:
    sheet(tmp_path / "a.tif")
    archive = shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path, "a.tif")
    feature = {"type": "Feature", "geometry": None, "properties": {"location": f"/vsizip/{archive}/a.tif"}}
    index = save(tmp_path / "index.geojson", {"type": "FeatureCollection", "features": [feature]})
    (info,) = describe_files([index])
    assert info.path == f"/vsizip/{archive}/a.tif"


def test_an_item_that_names_other_bands_than_there_are_is_refused(tmp_path: Path) -> None:
    """Opacity aside: else red would be what the colours of the file say, and not the item."""
    path = save(tmp_path / "item.json", item("x", {"a": asset("a.tif", ("a", "nir"), ("b", "red"))}))
    sheet(tmp_path / "a.tif", bands=3)
    with pytest.raises(SceneError, match=r"a\.tif has 3 bands, and .*item\.json names 2: nir, red"):
        describe_files([path])
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha)
    (info,) = describe_files([path])
    assert info.descriptions == ("nir", "red", None)


def test_a_tile_index_in_a_geopackage(tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    import shapely

    sheet(tmp_path / "a1.tif")
    pyogrio.raw.write(
        tmp_path / "index.gpkg", np.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))], object),
        [np.array([str(tmp_path / "a1.tif")], object)], ["location"], geometry_type="Polygon",
        crs="EPSG:32633",
    )  # fmt: skip
    assert names(tmp_path / "index.gpkg") == ["a1.tif"]


@pytest.mark.parametrize(
    ("place", "said"),
    [("../secret.tif", "outside its own folder"), ("/etc/x.tif", "--allow-path /etc"),
     ("file:///etc/x.tif", "--allow-path /etc"),
     ("https://example.org/x.tif", "nothing was fetched.*--allow-remote")],
)  # fmt: skip
def test_an_index_and_an_item_name_nothing_elsewhere(tmp_path: Path, place: str, said: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    feature = {"type": "Feature", "geometry": None, "properties": {"location": place}}
    index = save(folder / "index.geojson", {"type": "FeatureCollection", "features": [feature]})
    found = save(folder / "item.json", item("x", {"red": asset(place, ("B04", "red"))}))
    for path in (index, found):
        with pytest.raises(SceneError, match=said):
            names(path)
        assert names(path, trust=Trust(True, (Path("/"),)))


def test_an_item_says_bands_and_date(tmp_path: Path) -> None:
    assets = {
        "preview": asset("p.png", ("x", "red"), roles=("thumbnail",)),
        "visual": asset("tci.tif", ("B04", "red"), ("B03", "green"), ("B02", "blue"), roles=("visual",)),
        "red": asset("one.tif", ("B04", "red")),
        "red-jp2": asset("one.jp2", ("B04", "red")),
        "re1": asset("two.tif", ("B05", "rededge")),
        "re2": asset("three.tif", ("B06", "rededge")),
        "metadata": {"href": "meta.xml", "roles": ["metadata"]},
    }
    path = save(tmp_path / "item.json", item("x", assets))
    for name in ("one", "two", "three"):
        sheet(tmp_path / f"{name}.tif")
    files = describe_files([path])
    assert [(info.name, info.bands[0].title, info.time) for info in files] == [
        ("one.tif", "red", "2024-05-31T10:00:00Z"),
        ("two.tif", "B05", "2024-05-31T10:00:00Z"),
        ("three.tif", "B06", "2024-05-31T10:00:00Z"),
    ]


def test_of_an_item_bands_and_masks_count_and_other_data_do_not(tmp_path: Path) -> None:
    """As Earth Search and the Planetary Computer write them."""
    plain = {"roles": ["data", "reflectance"]}
    nameless = {"bands": [{"data_type": "uint16", "raster:scale": 0.001}]}
    assets = {
        "red": asset("B04.tif", ("red", "red"), roles=("data", "reflectance")),
        "nir": asset("B08.tif", ("nir", "nir"), roles=("data", "reflectance")),
        "aot": {"href": "AOT.tif"} | plain,
        "wvp": {"href": "WVP.tif"} | plain | nameless,
        "scl": {"href": "SCL.tif"} | plain,
        "scl-jp2": {"href": "SCL.jp2"} | plain,
        "qa_pixel": {"href": "x_QA_PIXEL.TIF", "roles": ["cloud", "cloud-shadow"]},
        "qa": {"href": "x_ST_QA.TIF", "roles": ["data"]},
    }
    path = save(tmp_path / "item.json", item("x", assets))
    assert names(path) == ["B04.tif", "B08.tif", "SCL.tif", "x_QA_PIXEL.TIF"]
    for name in ("B04.tif", "B08.tif", "SCL.tif", "x_QA_PIXEL.TIF"):
        sheet(tmp_path / name)
    scene = describe_scene([path], None, masking=Masking(("scl", "qa_pixel")))
    assert [band.name for band in scene.groups[0].bands] == ["red", "nir"] and len(scene.masks) == 2
    for key in ("red", "nir"):
        del assets[key]["eo:bands"]
    save(path, item("x", assets))
    assert names(path) == [
        "B04.tif",
        "B08.tif",
        "AOT.tif",
        "WVP.tif",
        "SCL.tif",
        "x_QA_PIXEL.TIF",
        "x_ST_QA.TIF",
    ]


def test_items_are_sheets(tmp_path: Path) -> None:
    items = []
    for col in range(3):
        bands = ((("B04", "red"), "r"), (("B08", "nir"), "n"))
        items.append(item(f"i{col}", {key: asset(f"{key}{col}.tif", band) for band, key in bands}))
        for key in "rn":
            sheet(tmp_path / f"{key}{col}.tif", col)
    collection = save(tmp_path / "items.json", {"type": "FeatureCollection", "features": items})
    scene = describe_scene([collection], None)
    assert scene.shape == (20, 90) and [b.name for b in scene.groups[0].bands] == ["red", "nir"]
    for number, one in enumerate(items):
        save(tmp_path / f"item{number}.json", one)
    links = [{"rel": "item", "href": f"./item{number}.json"} for number in range(3)]
    static = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "c",
        "links": [*links, {"rel": "root", "href": "c"}],
    }
    assert describe_scene([save(tmp_path / "collection.json", static)], None).identity == scene.identity


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is no JSON"),
        ({"stac_version": "1.0.0", "type": "Catalog", "links": []}, "links to no item"),
        (
            {"stac_version": "1.0.0", "type": "Catalog", "links": [{"rel": "child", "href": "x.json"}]},
            "recur|deep",
        ),
        (
            {"stac_version": "1.0.0", "type": "Catalog", "links": [{"rel": "item", "href": "y.json"}]},
            "does not exist",
        ),
        ({"stac_version": "1.0.0", "type": "Feature"}, "lacks 'assets'.*stac-validator"),
        ({"stac_version": "1.0.0", "type": "Feature", "assets": None}, "of another kind.*stac-validator"),
        (item("x", {"a": {"href": 3, "roles": ["data"]}}), "of another kind.*stac-validator"),
        (item("x", {"meta": {"href": "x.xml"}}), "no asset with the role data .*it has meta"),
        ({"a": 1}, "cannot be opened as a raster"),
    ],
)
def test_what_is_no_scene_says_why(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SceneError, match=said):
        describe_files([path])


@pytest.mark.parametrize("name", ["item.json", "S2B_MSIL2A.SAFE.zip", "LC09.tar", "scene.toml", "index.gpkg"])
def test_what_is_read_on_this_machine_alone_is_to_be_fetched(name: str) -> None:
    with pytest.raises(SceneError, match=r"across the network, and is no raster.* fetch it first"):
        names(f"https://example.org/a/{name}")
    assert names("https://example.org/a.zarr.zip", "/vsizip//vsicurl/https://example.org/a.zip") == [
        "a.zarr.zip", "a.zip",
    ]  # fmt: skip
