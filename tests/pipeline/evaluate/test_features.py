"""Points and polygons as truth: reading them, and comparing them with a raster."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from making import make_legend
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from citycover.classes import raster as classraster
from citycover.classes.raster import ClassRaster
from citycover.classes.table import NO_CLASS, ClassTable
from citycover.errors import ConfigError
from citycover.evaluate.confusion import confusion_of, count_pairs
from citycover.evaluate.evaluate import evaluate
from citycover.evaluate.features import Truth, compare_polygons, map_at_points, read_truth
from citycover.evaluate.request import EvaluationRequest

UTM = pyproj.CRS.from_epsg(32633)
TRANSFORM = Affine(2, 0, 5e5, 0, -2, 5.8e6)
GRID = GeoBox((40, 50), TRANSFORM, "EPSG:32633")
LEGEND = make_legend()
TABLE = ClassTable.onto(LEGEND)


def class_map(path: Path, shape: tuple[int, int] = (40, 50)) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(0).integers(0, 5, shape, np.uint8)  # 0 is nodata
    with rasterio.open(
        path, "w", driver="GTiff", height=shape[0], width=shape[1], count=1, dtype="uint8",
        crs="EPSG:32633", transform=TRANSFORM, nodata=0,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return path, values


def centres(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = TRANSFORM * (cols + 0.5, rows + 0.5)
    return x, y


def geojson(path: Path, geometries: list[Any], classes: list[Any], **more: Any) -> Path:
    to = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform
    features = [
        {
            "type": "Feature",
            "geometry": shapely.transform(g, lambda xy: np.column_stack(to(*xy.T))).__geo_interface__,
            "properties": {"class": c},
        }
        for g, c in zip(geometries, classes, strict=True)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features} | more))
    return path


def test_points_meet_the_pixel_they_lie_in(tmp_path: Path) -> None:
    path, values = class_map(tmp_path / "map.tif")
    rng = np.random.default_rng(1)
    x, y = rng.uniform(5e5 - 20, 5e5 + 120, 300), rng.uniform(5.8e6 - 100, 5.8e6 + 20, 300)
    rows = np.column_stack([x, y, rng.integers(1, 6, 300)])
    table = "x,y,class\n" + "".join(f"{a!r},{b!r},{int(c)}\n" for a, b, c in rows.tolist())
    (tmp_path / "points.csv").write_text(table)
    row, col = np.floor((5.8e6 - y) / 2).astype(int), np.floor((x - 5e5) / 2).astype(int)
    inside = (row >= 0) & (row < 40) & (col >= 0) & (col < 50)
    seen = np.where(inside, values[row.clip(0, 39), col.clip(0, 49)], 0)
    expected = confusion_of(rows[:, 2].astype(int), seen, LEGEND)
    points = read_truth(tmp_path / "points.csv", GRID)
    with ClassRaster(path) as raster:
        mapped = map_at_points(raster, points, TABLE)
    found = count_pairs(points.ranks("class", LEGEND, TABLE), mapped, 5)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.left_out == expected.left_out > 0


@pytest.mark.parametrize("strip", [97, 2**22])
@pytest.mark.parametrize("elsewhere", [NO_CLASS, 3])
def test_polygons_meet_all_pixels_whose_centre_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strip: int, elsewhere: int
) -> None:
    monkeypatch.setattr(classraster, "_STRIP_PIXELS", strip)
    path, values = class_map(tmp_path / "map.tif")
    rng = np.random.default_rng(2)
    spots = [
        shapely.Point(5e5 + a, 5.8e6 - b).buffer(r) for a, b, r in rng.uniform(3, 90, (12, 3)) / (1, 1, 6)
    ]
    polygons = Truth(path, np.array(spots, object), {}, are_points=False)
    ranks = rng.integers(-1, 5, 12).astype(np.int16)
    truth = np.full(values.shape, elsewhere)
    for spot, rank in zip(spots, ranks, strict=True):
        truth[geometry_mask([spot], values.shape, TRANSFORM, invert=True)] = rank
    with ClassRaster(path) as raster:
        found = compare_polygons(raster, polygons, ranks, TABLE, 5, elsewhere)
    expected = confusion_of(truth + 1, values, LEGEND)
    np.testing.assert_array_equal(found.counts, expected.counts)
    assert found.left_out == expected.left_out


def test_every_format_and_crs_gives_the_same_points(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, y = centres(rng.integers(0, 40, 30), rng.integers(0, 50, 30))
    names = [LEGEND.names[k] for k in rng.integers(0, 5, 30)]
    points = [shapely.Point(a, b) for a, b in zip(x, y, strict=True)]
    files = [geojson(tmp_path / "points.geojson", points, names)]
    lon, lat = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True).transform(x, y)
    rows = [f"{b!r};{a!r};{n.upper()}" for a, b, n in zip(lon.tolist(), lat.tolist(), names, strict=True)]
    files.append(tmp_path / "points.csv")
    files[-1].write_text("\n".join(["\ufeffLatitude;Longitude;class", *rows]))
    files.append(tmp_path / "points.gpkg")
    far_x, far_y = pyproj.Transformer.from_crs(UTM, 3857, always_xy=True).transform(x, y)
    pyogrio.raw.write(
        files[-1],
        shapely.to_wkb(shapely.points(far_x, far_y)),
        [np.array([int(n[-1]) for n in names], np.float64)],
        ["class"],
        geometry_type="Point",
        crs="EPSG:3857",
    )
    for file in files:
        features = read_truth(file, GRID)
        np.testing.assert_allclose(shapely.get_coordinates(features.geometries), np.c_[x, y], atol=1e-4)
        ranks = features.ranks("class", LEGEND, TABLE)
        assert [LEGEND.names[k] for k in ranks] == names


def test_a_wrong_crs_in_the_file_is_overruled(tmp_path: Path) -> None:
    spot = shapely.Point(5e5, 5.8e6).buffer(5)
    crs = {"type": "name", "properties": {"name": "EPSG:3857"}}
    text = {"type": "Feature", "geometry": spot.__geo_interface__, "properties": {"class": 1}, "crs": crs}
    (tmp_path / "spot.geojson").write_text(json.dumps(text))
    right = read_truth(tmp_path / "spot.geojson", GRID, "EPSG:32633")
    assert right.geometries[0].equals_exact(spot, 1e-6)
    with pytest.raises(ConfigError, match=r"no polygon with an area near the map.*--truth-crs"):
        read_truth(tmp_path / "spot.geojson", GRID)


def test_parts_of_multipolygons_keep_their_attributes_and_empty_geometries_drop(tmp_path: Path) -> None:
    two = shapely.MultiPolygon([shapely.box(5e5, 5.8e6, 5e5 + 4, 5.8e6 + 4), shapely.box(6e5, 5e6, 7e5, 6e6)])
    path = geojson(tmp_path / "a.geojson", [shapely.box(0, 0, 1, 1), two], [None, "class 2"])
    data = json.loads(path.read_text())
    data["features"].insert(0, {"type": "Feature", "geometry": None, "properties": {"class": 4}})
    path.write_text(json.dumps(data))
    features = read_truth(path, GRID)
    assert features.ranks("class", LEGEND, TABLE).tolist() == [NO_CLASS, 1, 1]


def test_a_polygon_of_a_continent_covers_the_map_and_a_bow_tie_its_two_halves(tmp_path: Path) -> None:
    ring = [(-25, 35), (180, 35), (180, 75), (-25, 75), (-25, 35)]
    content = {"type": "Feature", "geometry": shapely.Polygon(ring).__geo_interface__, "properties": {}}
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    (whole,) = read_truth(tmp_path / "a.geojson", GRID).geometries
    assert not geometry_mask([whole], (40, 50), TRANSFORM).any()
    bow = shapely.Polygon([(5e5, 5.8e6), (5e5 + 100, 5.8e6 - 80), (5e5 + 100, 5.8e6), (5e5, 5.8e6 - 80)])
    (halves,) = read_truth(geojson(tmp_path / "b.geojson", [bow], [1]), GRID).geometries
    assert halves.area == pytest.approx(4000, rel=1e-3)


def test_classes_that_the_legend_does_not_have_are_listed(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", [shapely.Point(5e5, 5.8e6)] * 4, [1, 60, "60", "swamp"])
    features = read_truth(path, GRID)
    with pytest.raises(ConfigError, match=r"swamp \(1 times\), 60 \(2 times\).*--legend"):
        features.ranks("class", LEGEND, TABLE)
    with pytest.raises(ConfigError, match="no field 'kind'; it has class"):
        features.ranks("kind", LEGEND, TABLE)


def test_a_csv_of_semicolons_may_have_decimal_commas(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufefflon;lat;class;stratum_ha;note\n15,000015;-52,3;3;1,5;a, 1,5\n")
    truth = read_truth(tmp_path / "a.csv", GRID, "EPSG:32633")
    assert shapely.get_coordinates(truth.geometries).tolist() == [[15.000015, -52.3]]
    assert [truth.column(name)[0] for name in ("class", "stratum_ha", "note")] == ["3", "1.5", "a, 1,5"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "lon,class\n1,2\n", "no columns lon and lat"),
        ("a.csv", "x,y,class\n", "with rows below"),
        ("a.csv", "x,y,class\n1,2,3\n4,north,1\n", "line 3: x '4' and y 'north' are not both numbers"),
        ("nan.csv", "x,y,class\nnan,2,3\n", "line 2: .* are not both numbers"),
        ("a.geojson", '{"type": "Topology"}', "is not GeoJSON"),
        ("a.geojson", "[1, 2", "is not GeoJSON"),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}', "points only or polygons only"),
        ("a.gpkg", "no GeoPackage", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_truth(tmp_path / name, GRID)


def test_points_mixed_with_polygons_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    spots = [shapely.Point(5e5, 5.8e6), shapely.box(5e5, 5.8e6, 5e5 + 9, 5.8e6 + 9)]
    with pytest.raises(ConfigError, match="points only or polygons only"):
        read_truth(geojson(tmp_path / "a.geojson", spots, [1, 1]), GRID)
    with pytest.raises(ConfigError, match="does not exist"):
        read_truth(tmp_path / "b.geojson", GRID)
    with pytest.raises(ConfigError, match="'nowhere' is no CRS"):
        read_truth(geojson(tmp_path / "c.geojson", spots[:1], [1]), GRID, "nowhere")


def test_polygons_that_miss_the_map_are_refused(tmp_path: Path) -> None:
    path, _ = class_map(tmp_path / "map.tif")
    polygons = Truth(path, np.array([shapely.box(0, 0, 9, 9)], object), {}, are_points=False)
    with ClassRaster(path) as raster, pytest.raises(ConfigError, match="in common nowhere"):
        compare_polygons(raster, polygons, np.zeros(1, np.int16), TABLE, 5)


def test_building_polygons_of_massachusetts_judge_a_map_of_their_own(real_data: Path, tmp_path: Path) -> None:
    """Rasterised by rasterio and read back as a map, the footprints agree with themselves in every pixel."""
    truth = real_data / "vhr/massachusetts/massachusetts_buildings.gpkg"
    with rasterio.open(real_data / "vhr/massachusetts/22978945_15.tif") as image:
        grid, profile = GeoBox(image.shape, image.transform, image.crs.to_wkt()), image.profile
    _, _, shapes, _ = pyogrio.raw.read(truth)
    inside = geometry_mask(shapely.from_wkb(shapes), grid.shape, grid.transform, invert=True)
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", height=grid.shape[0], width=grid.shape[1], count=1,
        dtype="uint8", crs=profile["crs"], transform=grid.transform,
    ) as dataset:  # fmt: skip
        dataset.write(np.where(inside, 1, 2).astype(np.uint8), 1)
    legend = tmp_path / "houses.toml"
    classes = ['[[classes]]\nid = 1\nname = "Building"\ncolor = "#c8474b"']
    classes.append('[[classes]]\nid = 2\nname = "Other"\ncolor = "#cccccc"')
    legend.write_text("nodata = 0\n" + "\n".join(classes))
    request = EvaluationRequest(
        mapped=tmp_path / "map.tif",
        truth=truth,
        map_legend=str(legend),
        truth_crs="EPSG:26986",
        elsewhere="Other",
    )
    found = evaluate(request)
    assert found.kind == "polygons"
    assert found.confusion.compared == inside.size
    assert found.confusion.overall_accuracy == 1
    assert found.confusion.counts.sum(1).tolist() == [inside.sum(), (~inside).sum()]
