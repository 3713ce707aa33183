"""A map as a file of polygons."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from affine import Affine
from mapped import UTM, patchy, write_product
from numpy.typing import NDArray
from pyproj import Geod

from citycover.derive.vectorize import vectorize
from citycover.errors import ConfigError

CLASSES = patchy((60, 80))


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write_product(tmp_path / "product", CLASSES)


def read_back(path: Path) -> tuple[NDArray[np.object_], dict[str, NDArray[Any]]]:
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names if name != "bbox"}
        return shapely.from_wkb(columns.pop("geometry")), columns
    meta, _, wkb, values = pyogrio.raw.read(path)
    return shapely.from_wkb(wkb), dict(zip(meta["fields"].tolist(), values, strict=True))


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "fgb"])
def test_a_file_burnt_again_is_the_map(product: Path, tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    found = vectorize(product, tmp_path / f"areas.{ending}")
    outlines, columns = read_back(found.path)
    burnt = rasterio.features.rasterize(
        zip(outlines, columns["class"].tolist(), strict=True), out_shape=CLASSES.shape, transform=UTM
    )
    np.testing.assert_array_equal(burnt, CLASSES)
    assert len(outlines) == found.polygons == len(set(columns["id"].tolist()))
    np.testing.assert_allclose(columns["area_m2"], shapely.area(outlines))
    assert found.square_metres == pytest.approx(4 * (CLASSES > 0).sum())
    np.testing.assert_allclose(columns["confidence"], 128 / 255)
    assert set(columns["name"].tolist()) == {f"class {k}" for k in range(1, 6)}
    assert [path.name for path in tmp_path.iterdir() if path.name != "product"] == [found.path.name]


def test_lines_of_geojson_are_in_degrees(product: Path, tmp_path: Path) -> None:
    found = vectorize(product, tmp_path / "areas.geojsonl")
    lines = [json.loads(line) for line in found.path.read_text().splitlines()]
    assert len(lines) == found.polygons
    assert {"id", "class", "name", "area_m2", "confidence"} == set(lines[0]["properties"])
    west, south, east, north = shapely.total_bounds(
        [shapely.geometry.shape(line["geometry"]) for line in lines]
    )
    assert 15 <= west < east < 15.01 and 52 < south < north < 53


def test_geoparquet_says_its_crs_and_bounds(product: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = vectorize(product, tmp_path / "areas.parquet")
    geo = json.loads(parquet.read_metadata(found.path).metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0" and column["crs"]["id"] == {"authority": "EPSG", "code": 32633}
    outlines, _ = read_back(found.path)
    assert column["bbox"] == shapely.total_bounds(outlines).tolist()
    boxes = parquet.read_table(found.path)["bbox"].to_pylist()
    assert [tuple(box.values()) for box in boxes] == [tuple(b) for b in shapely.bounds(outlines).tolist()]
    import geopandas

    frame = geopandas.read_parquet(found.path, bbox=(5e5, 5.8e6 - 20, 5e5 + 60, 5.8e6))
    assert frame.crs.to_epsg() == 32633 and 0 < len(frame) < found.polygons


def test_nothing_below_the_smallest_area_is_left(product: Path, tmp_path: Path) -> None:
    found = vectorize(product, tmp_path / "areas.gpkg", min_area=40)
    outlines, columns = read_back(found.path)
    assert columns["area_m2"].min() >= 40
    assert found.square_metres == pytest.approx(4 * (CLASSES > 0).sum())
    assert found.polygons < vectorize(product, tmp_path / "all.gpkg").polygons / 3
    assert shapely.coverage_is_valid(shapely.segmentize(outlines, 2.0))


def test_simpler_lines_leave_no_gap(product: Path, tmp_path: Path) -> None:
    full, _ = read_back(vectorize(product, tmp_path / "full.gpkg", min_area=40).path)
    simple, _ = read_back(vectorize(product, tmp_path / "simple.gpkg", min_area=40, simplify=6).path)
    assert len(simple) == len(full)
    assert len(shapely.get_coordinates(simple)) < len(shapely.get_coordinates(full))
    assert shapely.coverage_is_valid(simple)
    pairs = shapely.STRtree(simple).query(simple, predicate="overlaps")
    assert pairs.shape[1] == 0


@pytest.mark.parametrize("simplify", [161, 1e30])
def test_lines_are_not_smoothed_beyond_the_map(product: Path, tmp_path: Path, simplify: float) -> None:
    with pytest.raises(ConfigError, match=r"more than the map is long \(160 m\)"):
        vectorize(product, tmp_path / "areas.gpkg", simplify=simplify)
    assert vectorize(product, tmp_path / "areas.gpkg", simplify=160).polygons


def test_areas_on_degrees_are_geodesic(tmp_path: Path) -> None:
    step = 0.001
    product = write_product(
        tmp_path / "product", CLASSES, crs="EPSG:4326", transform=Affine(step, 0, 8, 0, -step, 60)
    )
    outlines, columns = read_back(vectorize(product, tmp_path / "areas.gpkg").path)
    geod = Geod(ellps="WGS84")
    # Parallels are no geodesics: points along them, a pixel apart.
    measured = [abs(geod.geometry_area_perimeter(g)[0]) for g in shapely.segmentize(outlines, step)]
    np.testing.assert_allclose(columns["area_m2"], measured, rtol=1e-4)


def test_a_map_of_nodata_alone_is_a_file_without_features(tmp_path: Path) -> None:
    product = write_product(tmp_path / "product", np.zeros((9, 9), np.uint8))
    found = vectorize(product, tmp_path / "areas.gpkg")
    assert found.polygons == 0 and pyogrio.read_info(found.path)["features"] == 0


def test_half_a_product_is_refused(product: Path, tmp_path: Path) -> None:
    (product / "confidence.tif").unlink()
    with pytest.raises(ConfigError, match=r"no confidence\.tif.*part of a product"):
        vectorize(product, tmp_path / "areas.gpkg")
    assert not (tmp_path / "areas.gpkg").exists()


def test_what_cannot_be_written_is_refused(product: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.parquet, \.gpkg"):
        vectorize(product, tmp_path / "areas.shp")
    with pytest.raises(ConfigError, match="not negative"):
        vectorize(product, tmp_path / "areas.gpkg", min_area=float("nan"))
