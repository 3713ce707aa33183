"""What the files of a user name in turn, for every verb: mosaics of classes, virtual vectors."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from conftest import Result, write_scene
from labelled import write_labelled_city
from mapped import patchy, write_product

from citycover.classes.legend import read_legend
from citycover.errors import ConfigError
from citycover.product.open import open_product
from citycover.scene.trust import Trust
from citycover.view.maps import find_maps

Run = Callable[..., Result]

VERBS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "evaluate": lambda vrt, _: ("evaluate", vrt, "--truth", vrt, "--map-legend", "base4"),
    "evaluate --truth": lambda vrt, out: (
        "evaluate", out / "elsewhere/map.tif", "--truth", vrt, "--map-legend", "base4"),
    "sample": lambda vrt, out: ("sample", vrt, "-o", out / "p.csv", "--points", 20, "--map-legend", "base4"),
    "stats": lambda vrt, _: ("stats", vrt, "--map-legend", "base4"),
    "vectorize": lambda vrt, out: ("vectorize", vrt, "-o", out / "v.geojsonl", "--map-legend", "base4"),
    "compare": lambda vrt, _: ("compare", vrt, vrt, "--map-legend", "base4"),
}  # fmt: skip


def write_map(path: Path) -> Path:
    values = np.random.default_rng(0).integers(1, 5, (1, 12, 16)).repeat(5, 1).repeat(5, 2)
    return write_scene(path, values.shape[1:], 1, values=values, descriptions=())


def write_vrt(path: Path, source: str, shape: tuple[int, int] = (60, 80)) -> Path:
    """A mosaic of one file."""
    with rasterio.open(path.parent / source) as dataset:
        crs, numbers = dataset.crs.to_wkt(), ", ".join(map(str, dataset.transform.to_gdal()))
    rect = f'xOff="0" yOff="0" xSize="{shape[1]}" ySize="{shape[0]}"'
    path.write_text(
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}"><SRS>{crs.replace("<", "&lt;")}</SRS>'
        f'<GeoTransform>{numbers}</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand>'
        f"<SrcRect {rect}/><DstRect {rect}/></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    return path


@pytest.fixture
def naming(tmp_path: Path) -> Path:
    """A map that is a mosaic of a file elsewhere."""
    write_map(tmp_path / "elsewhere/map.tif")
    (tmp_path / "mine").mkdir()
    return write_vrt(tmp_path / "mine/map.vrt", "../elsewhere/map.tif")


@pytest.mark.parametrize("verb", VERBS)
def test_a_map_may_not_name_files_elsewhere(citycover: Run, naming: Path, tmp_path: Path, verb: str) -> None:
    given = VERBS[verb](naming, tmp_path)
    refused = citycover(*given)
    assert refused.code == 2
    assert f"names {tmp_path}/elsewhere/map.tif outside its own folder; nothing was read" in refused.err
    allowed = citycover(*given, "--allow-path", tmp_path / "elsewhere")
    assert allowed.code == 0, allowed.err


@pytest.mark.parametrize("verb", VERBS)
def test_a_mosaic_of_classes_that_lost_a_tile_is_no_map(citycover: Run, tmp_path: Path, verb: str) -> None:
    write_map(tmp_path / "elsewhere/map.tif")
    write_map(tmp_path / "tile.tif")
    write_map(tmp_path / "other.tif")
    vrt = write_vrt(tmp_path / "map.vrt", "tile.tif")
    again = vrt.read_text().replace("tile.tif", "other.tif")
    inner = again[again.index("<SimpleSource>") : again.index("</VRTRasterBand>")]
    vrt.write_text(vrt.read_text().replace("</VRTRasterBand>", inner + "</VRTRasterBand>"))
    (tmp_path / "tile.tif").unlink()
    refused = citycover(*VERBS[verb](vrt, tmp_path))
    assert refused.code == 2
    assert "1 of its sources cannot be read" in refused.err and "gdalbuildvrt" in refused.err


@pytest.mark.parametrize("verb", VERBS)
def test_a_class_raster_that_only_fetches_is_refused(citycover: Run, tmp_path: Path, verb: str) -> None:
    write_map(tmp_path / "elsewhere/map.tif")
    wms = tmp_path / "map.tif"
    wms.write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9/${z}/${x}/${y}.png</ServerUrl></Service>'
        "<DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>256</LowerRightX>"
        "<LowerRightY>256</LowerRightY><SizeX>256</SizeX><SizeY>256</SizeY></DataWindow>"
        "<BandsCount>1</BandsCount></GDAL_WMS>"
    )
    refused = citycover(*VERBS[verb](wms, tmp_path))
    assert refused.code == 2 and "need --allow-remote" in refused.err


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_city(tmp_path_factory.mktemp("city"), 300)


@pytest.mark.parametrize("verb", ["map", "plan", "sharpen", "train"])
def test_labels_may_not_name_files_elsewhere(citycover: Run, city: Path, tmp_path: Path, verb: str) -> None:
    (city / "mine").mkdir(exist_ok=True)
    with rasterio.open(city / "labels_10m.tif") as dataset:
        vrt = write_vrt(city / "mine/labels.vrt", "../labels_10m.tif", dataset.shape)
    given = {
        "map": ("map", city / "image.tif", "--model", city / "model.pt", "-o", tmp_path / "o"),
        "plan": ("plan", city / "image.tif", "--model", city / "model.pt", "--no-probe"),
        "sharpen": ("sharpen", city / "image.tif", "-o", tmp_path / "o"),
        "train": (
            "train",
            "--recipe",
            "l2hnet-light",
            "--image",
            city / "image.tif",
            "-o",
            tmp_path / "o",
            "--plan",
        ),
    }[verb]
    legend = ("--legend", "city") if verb == "train" else ("--labels-legend", "city")
    given = (*given, "--labels", vrt, *legend)
    refused = citycover(*given)
    assert refused.code == 2
    assert f"labels {vrt} names {city}/labels_10m.tif outside its own folder" in refused.err
    if verb != "sharpen":  # it has no dry run; that it may with the option is seen in its own tests
        allowed = citycover(*given, "--allow-path", city)
        assert allowed.code == 0, allowed.err


VECTORS = {
    "OGR's virtual format": "<OGRVRTDataSource><OGRVRTLayer name='secret'><SrcDataSource>{}</SrcDataSource>"
    "</OGRVRTLayer></OGRVRTDataSource>",
    "a service": "<OGRWFSDataSource><URL>http://127.0.0.1:9/wfs?{}</URL></OGRWFSDataSource>",
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("what", VECTORS)
def test_a_vector_file_may_not_name_others(
    citycover: Run, tmp_path: Path, scene: Path, what: str, zipped: bool
) -> None:
    square = [[500_010, 5_799_950], [500_050, 5_799_950], [500_050, 5_799_990], [500_010, 5_799_950]]
    secret = tmp_path / "secret.geojson"
    secret.write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    vrt = tmp_path / "area.vrt"
    vrt.write_text(VECTORS[what].format(secret))
    if zipped:
        vrt = tmp_path / "area.zip"
        with zipfile.ZipFile(vrt, "w", zipfile.ZIP_DEFLATED) as archive:  # else its text is that of the zip
            archive.write(tmp_path / "area.vrt", "area.vrt")
    write_map(tmp_path / "map.tif")
    for given in (
        ("map", scene, "-o", tmp_path / "out", "--aoi", vrt),
        ("stats", tmp_path / "map.tif", "--map-legend", "base4", "--zones", vrt),
    ):
        refused = citycover(*given)
        assert refused.code == 2
        assert "only names other files or services; nothing was read of them" in refused.err


def test_features_called_like_the_format_are_no_virtual_ones(
    citycover: Run, tmp_path: Path, scene: Path
) -> None:
    """ogr2ogr calls the layer of a GeoJSON OGRGeoJSON, and writes it into GML and KML."""
    pytest.importorskip("pyogrio")
    area = tmp_path / "area.kml"
    area.write_text(
        '<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder>'
        "<name>OGRGeoJSON</name><Placemark><Polygon><outerBoundaryIs><LinearRing><coordinates>"
        "14.9,52.3 15.1,52.3 15.1,52.4 14.9,52.4 14.9,52.3</coordinates></LinearRing></outerBoundaryIs>"
        "</Polygon></Placemark></Folder></Document></kml>"
    )
    assert citycover("plan", scene, "--aoi", area, "--no-probe").code == 0


TABLES = {
    "VirtualOGR": "CREATE VIRTUAL TABLE t USING VirtualOGR('{}')",
    "VirtualText": "create virtual table if not exists 't' using VirtualText('{}', 'UTF-8', 1, COMMA)",
    "comments": "CREATE VIRTUAL TABLE t USING/*rtree(*/VirtualOGR('{}')",
    "words": "CREATE VIRTUAL TABLE t USING VirtualOGR('{}', 't USING rtree(x)')",
}


@pytest.mark.parametrize("file", ["landcover.tif", "confidence.tif", "entropy.tif"])
def test_layers_of_a_product_may_not_name_files_elsewhere(tmp_path: Path, file: str) -> None:
    product = write_product(tmp_path / "product", patchy((60, 80)))
    write_map(tmp_path / "elsewhere/map.tif")
    vrt = write_vrt(product / "it.vrt", "../elsewhere/map.tif")
    vrt.rename(product / file)
    with pytest.raises(ConfigError, match=r"map\.tif outside its own folder"):
        open_product(product)
    assert open_product(product, Trust(folders=(tmp_path,)))["classes"].shape == (60, 80)


LAYERS: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "vectorize": lambda product, out: ("vectorize", product, "-o", out / "v.geojsonl"),
    "refine": lambda product, out: ("refine", product, "-o", out / "refined", "--majority", 3),
    "compare": lambda product, _: ("compare", product, product, "--min-confidence", 0.5),
    "evaluate": lambda product, out: ("evaluate", product, "--truth", out / "elsewhere/map.tif"),
}


@pytest.mark.parametrize("verb", LAYERS)
def test_the_confidence_of_a_product_may_not_be_a_file_elsewhere(
    citycover: Run, tmp_path: Path, verb: str
) -> None:
    product = write_product(tmp_path / "product", patchy((60, 80)))
    write_map(tmp_path / "elsewhere/map.tif")
    write_vrt(product / "it.vrt", "../elsewhere/map.tif").rename(product / "confidence.tif")
    refused = citycover(*LAYERS[verb](product, tmp_path))
    assert refused.code == 2 and f"{tmp_path}/elsewhere/map.tif outside its own folder" in refused.err


@pytest.mark.parametrize("file", ["landcover.tif", "confidence.tif", "entropy.tif"])
def test_a_map_that_is_viewed_may_not_name_files_elsewhere(tmp_path: Path, file: str) -> None:
    product = write_product(tmp_path / "product", patchy((60, 80)))
    write_map(tmp_path / "elsewhere/map.tif")
    write_vrt(product / "it.vrt", "../elsewhere/map.tif").rename(product / file)
    with pytest.raises(ConfigError, match=r"map\.tif outside its own folder"):
        find_maps([product])
    assert find_maps([product], trust=Trust(folders=(tmp_path,)))


def test_probabilities_may_not_be_a_file_elsewhere(citycover: Run, tmp_path: Path) -> None:
    product = write_product(tmp_path / "product", patchy((60, 80)), legend=read_legend("landcover5"))
    write_map(tmp_path / "elsewhere/map.tif")
    (tmp_path / "mine").mkdir()
    given = ("evaluate", product, "--truth", product, "--merge", "first", "--to", "base4")
    vrt = write_vrt(tmp_path / "mine/p.vrt", "../elsewhere/map.tif")
    refused = citycover(*given, "--probabilities", vrt)
    assert refused.code == 2 and f"{tmp_path}/elsewhere/map.tif outside its own folder" in refused.err


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("what", TABLES)
def test_a_table_may_not_lie_in_another_file(
    citycover: Run, tmp_path: Path, scene: Path, what: str, zipped: bool
) -> None:
    pytest.importorskip("pyogrio")
    area = tmp_path / "area.sqlite"
    with closing(sqlite3.connect(area)) as database:
        database.execute("PRAGMA writable_schema = 1")
        database.execute(
            "INSERT INTO sqlite_master VALUES ('table', 't', 't', 0, ?)",
            [TABLES[what].format(tmp_path / "secret.geojson")],
        )
        database.commit()
    if zipped:
        with zipfile.ZipFile(tmp_path / "area.zip", "w") as archive:
            archive.write(area, "area.sqlite")
        area = tmp_path / "area.zip"
    refused = citycover("map", scene, "-o", tmp_path / "out", "--aoi", area)
    assert refused.code == 2
    assert ("is a packed database" if zipped else "whose rows may lie in other files") in refused.err


def test_indices_of_a_database_are_its_own(citycover: Run, tmp_path: Path, scene: Path) -> None:
    """A GeoPackage has an R-tree."""
    pyogrio = pytest.importorskip("pyogrio")
    area = tmp_path / "area.gpkg"
    square = shapely.box(500_000, 5_799_900, 500_100, 5_800_000)
    pyogrio.raw.write(
        area, shapely.to_wkb(np.array([square])), [np.array([1])], ["a"], geometry_type="Polygon",
        crs="EPSG:32633", layer='a "b"',
    )  # fmt: skip
    with closing(sqlite3.connect(area)) as database:
        (kinds,) = database.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE '%USING rtree%'")
        assert kinds == (1,)
    got = citycover("plan", scene, "--aoi", area, "--no-probe")
    assert got.code == 0, got.err
