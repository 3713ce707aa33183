import json
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import Polygon, box, mapping
from strategies import grids, windows

from citycover.errors import ConfigError
from citycover.geometry.window import Window
from citycover.scene.area import Area, area_of_box, read_area

GRID = GeoBox((200, 300), Affine(10, 0, 500_000, 0, -10, 5_800_000), "EPSG:32633")


def write(path: Path, *geometries: object, crs: str | None = "EPSG:32633") -> Path:
    features = [{"type": "Feature", "properties": {}, "geometry": mapping(g)} for g in geometries]
    data = {"type": "FeatureCollection", "features": features}
    if crs:
        data["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(data))
    return path


def test_a_box_in_the_scenes_crs_is_snapped_outward() -> None:
    area = area_of_box((500_015, 5_799_005, 500_121, 5_799_500), GRID)
    assert area.part == Window(50, 1, 50, 12) and area.geometry is None


def test_a_box_in_degrees_encloses_the_same_ground() -> None:
    area = area_of_box((15.0, 52.335, 15.02, 52.349), GRID)
    assert 100 < area.part.width < 150 and area.part.col == 0


def test_polygons_are_masked_as_rasterio_rasterises_them(tmp_path: Path) -> None:
    shapes = [
        Polygon([(500_100, 5_799_900), (501_500, 5_799_700), (500_700, 5_798_600)]),
        box(502_000, 5_799_000, 502_500, 5_799_400),
    ]
    area = read_area(write(tmp_path / "a.geojson", *shapes), GRID)
    whole = rasterio.features.geometry_mask(shapes, (200, 300), GRID.transform, invert=True)
    part = area.part
    mask = area.mask((part.row, part.col))
    np.testing.assert_array_equal(mask(Window(0, 0, part.height, part.width)), whole[part.slices])
    assert whole.sum() == whole[part.slices].sum()
    piece = Window(7, -5, 40, 60)
    np.testing.assert_array_equal(
        mask(piece), np.pad(whole, 100)[piece.shift(part.row + 100, part.col + 100).slices]
    )


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("not json", "not GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "no polygon"),
        ('{"type": "Point", "coordinates": [15, 52]}', "no polygon"),
        (json.dumps(mapping(box(0, 0, 1, 1))), "does not overlap"),
    ],
)
def test_areas_that_cannot_be_are_refused(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(ConfigError, match=word):
        read_area(path, GRID)


def test_a_folder_is_no_vector_file(tmp_path: Path) -> None:
    (tmp_path / "a.gdb").mkdir()
    with pytest.raises(ConfigError, match=r"a\.gdb is a folder; needed is a file of features.*ogr2ogr"):
        read_area(tmp_path / "a.gdb", GRID)


def whole_mask(area: Area) -> np.ndarray:
    part = area.part
    return area.mask((part.row, part.col))(Window(0, 0, part.height, part.width))


def degrees_file(path: Path, *geometries: object) -> Path:
    return write(path, *geometries, crs=None)


@pytest.mark.parametrize("bounds", [(-25, 35, 180, 75), (-180, -90, 180, 90), (0, -90, 360, 90)])
def test_a_continent_or_the_world_holds_all_of_a_scene(tmp_path: Path, bounds: tuple[float, ...]) -> None:
    area = read_area(degrees_file(tmp_path / "a.geojson", box(*bounds)), GRID)
    assert area.part == Window(0, 0, 200, 300) and whole_mask(area).all()
    assert area_of_box(bounds, GRID).part == Window(0, 0, 200, 300)


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [("EPSG:3857", (-2e7, -2e8, 2e7, 2e8)), ("EPSG:3035", (-6e6, -6e6, 14e6, 12e6))],
)
def test_the_world_in_metres_holds_all_of_a_scene(
    tmp_path: Path, crs: str, bounds: tuple[float, ...]
) -> None:
    """Corners so far away have no place in the scene's zone, or a wrong one."""
    area = read_area(write(tmp_path / "a.geojson", box(*bounds), crs=crs), GRID)
    assert area.part == Window(0, 0, 200, 300) and whole_mask(area).all()


def test_half_a_continent_ends_where_its_border_lies(tmp_path: Path) -> None:
    area = read_area(degrees_file(tmp_path / "a.geojson", box(15.02, 0, 120, 80)), GRID)
    mask = np.zeros((200, 300), np.bool_)
    mask[area.part.slices] = whole_mask(area)
    x, y = GRID.transform * tuple(v + 0.5 for v in np.meshgrid(np.arange(300), np.arange(200)))
    lon, _ = Transformer.from_crs("EPSG:32633", "OGC:CRS84", always_xy=True).transform(x, y)
    np.testing.assert_array_equal(mask, lon > 15.02)


@pytest.mark.parametrize(
    ("bounds", "columns"),
    [((179.8, -17.2, -179.8, -16.9), (0.25, 0.75)), ((179.8, -17.2, 180.2, -16.9), (0.25, 0.75)),
     ((-180, -90, 180, 90), (0, 1)), ((-180, -90, -179.9, 90), (0.5, 0.63))],
)  # fmt: skip
def test_boxes_cross_the_date_line(bounds: tuple[float, ...], columns: tuple[float, float]) -> None:
    fiji = GeoBox((100, 400), Affine(0.002, 0, 179.6, 0, -0.002, -16.95), "EPSG:4326")
    part = area_of_box(bounds, fiji).part
    assert (part.col / 400, part.col_end / 400) == pytest.approx(columns, abs=0.01)


def test_a_polygon_on_both_sides_of_the_date_line_is_mapped_whole(tmp_path: Path) -> None:
    grid = GeoBox((100, 400), Affine(200, 0, 780_000, 0, -200, 8_100_000), "EPSG:32760")
    halves = box(179.8, -18, 180, -16), box(-180, -18, -179.8, -16)
    split = read_area(degrees_file(tmp_path / "a.geojson", *halves), grid)
    one = read_area(degrees_file(tmp_path / "b.geojson", box(179.8, -18, 180.2, -16)), grid)
    assert split.part == one.part
    np.testing.assert_array_equal(whole_mask(split), whole_mask(one))


def test_a_scene_at_the_pole_takes_an_area_around_it(tmp_path: Path) -> None:
    grid = GeoBox((60, 60), Affine(1e5, 0, -3e6, 0, -1e5, 3e6), "EPSG:3031")
    area = read_area(degrees_file(tmp_path / "a.geojson", box(-180, -90, 180, -75)), grid)
    mask = np.zeros((60, 60), np.bool_)
    mask[area.part.slices] = whole_mask(area)
    x, y = np.meshgrid(np.arange(-29.5, 30) * 1e5, np.arange(29.5, -30, -1) * 1e5)
    _, lat = Transformer.from_crs("EPSG:3031", "OGC:CRS84", always_xy=True).transform(x, y)
    np.testing.assert_array_equal(mask, lat < -75)


def test_metres_without_a_crs_are_taken_in_that_of_the_scene(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shape = box(500_100, 5_799_000, 500_300, 5_799_100)
    area = read_area(write(tmp_path / "a.geojson", shape, crs=None), GRID)
    assert area.part == Window(90, 10, 10, 20)
    assert "no degrees: they are taken in that of the scene" in caplog.text


def test_a_scene_on_a_local_grid_takes_areas_in_its_own_numbers(tmp_path: Path) -> None:
    site = GeoBox((200, 300), Affine(1, 0, 0, 0, -1, 200), 'LOCAL_CS["site grid",UNIT["metre",1]]')
    assert area_of_box((10, 150, 30, 190), site).part == Window(10, 10, 40, 20)
    shape = box(10, 150, 30, 190)
    assert read_area(write(tmp_path / "a.geojson", shape, crs=None), site).part == Window(10, 10, 40, 20)
    with pytest.raises(ConfigError, match="no place on the Earth"):
        read_area(write(tmp_path / "b.geojson", shape), site)


def test_a_byte_order_mark_and_a_bow_tie_are_read(tmp_path: Path) -> None:
    bow = Polygon([(500_000, 5_800_000), (500_400, 5_799_600), (500_400, 5_800_000), (500_000, 5_799_600)])
    assert bow.area == 0
    path = write(tmp_path / "a.geojson", bow)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    mask = whole_mask(read_area(path, GRID))
    assert mask.shape == (40, 40) and 0.45 < mask.mean() < 0.55


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"type": "Polygon", "coordinates": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "is not GeoJSON"),
        ('{"type": "FeatureCollection", "features": [3]}', "is not GeoJSON"),
    ],
)
def test_hostile_geojson_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_area(tmp_path / "a.geojson", GRID)


def test_an_outline_in_no_order_is_refused_before_it_is_repaired(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform((500_000, 5_798_000), (503_000, 5_800_000), (3000, 2))
    with pytest.raises(ConfigError, match="crosses itself more than 20000 times"):
        read_area(write(tmp_path / "a.geojson", Polygon(points)), GRID)


def test_too_much_geojson_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citycover.geometry.vector._MOST_BYTES", 100)
    with pytest.raises(ConfigError, match=r"of GeoJSON.*write it as GeoPackage"):
        read_area(write(tmp_path / "a.geojson", box(0, 0, 1, 1)), GRID)


def test_other_vector_files_are_read_in_their_own_crs(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame(geometry=[box(500_100, 5_799_000, 500_300, 5_799_100)], crs="EPSG:32633")
    frame.to_crs("EPSG:3857").to_file(tmp_path / "a.gpkg")
    assert abs(read_area(tmp_path / "a.gpkg", GRID).part.width - 20) <= 2


@given(st.data(), grids())
def test_the_box_of_a_window_is_that_window(data: st.DataObject, grid: GeoBox) -> None:
    window = data.draw(windows(grid.shape))
    west, north = grid.transform * (window.col, window.row)
    east, south = grid.transform * (window.col_end, window.row_end)
    area = area_of_box((west, south, east, north), grid)
    assert area.part == window


@given(st.data(), grids(30))
def test_a_box_that_reaches_beyond_the_scene_is_cut(data: st.DataObject, grid: GeoBox) -> None:
    inner = data.draw(windows(grid.shape))
    outer = inner.grow(data.draw(st.integers(0, 50)))
    west, north = grid.transform * (outer.col, outer.row)
    east, south = grid.transform * (outer.col_end, outer.row_end)
    height, width = grid.shape
    assert area_of_box((west, south, east, north), grid).part == outer.clip(Window(0, 0, height, width))
