import json
from pathlib import Path

import numpy as np
import pytest
import rasterio.features
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import Polygon, box, mapping

from citycover.errors import ConfigError
from citycover.geometry.window import Window
from citycover.scene.area import area_of_box, read_area

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


def test_other_vector_files_are_read_in_their_own_crs(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame(geometry=[box(500_100, 5_799_000, 500_300, 5_799_100)], crs="EPSG:32633")
    frame.to_crs("EPSG:3857").to_file(tmp_path / "a.gpkg")
    assert abs(read_area(tmp_path / "a.gpkg", GRID).part.width - 20) <= 2
