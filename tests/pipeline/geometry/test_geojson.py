"""GeoJSON as people and programs write it: what is none says which feature, and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
import shapely

from citycover.errors import ConfigError
from citycover.geometry.geojson import parse_geojson

RING = [[0, 0], [4, 0], [4, 3], [0, 0]]

UNEVEN = [[0, 0], [4, 0, 7], [4, 3], [0, 0]]
"""Of which one position alone has a height."""


def parse(document: Any) -> Any:
    return parse_geojson(json.dumps(document).encode(), "--aoi a.geojson")


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


@pytest.mark.parametrize(
    "geometry",
    [
        polygon(RING), polygon(UNEVEN), {"type": "MultiPolygon", "coordinates": [[UNEVEN]]},
        {"type": "GeometryCollection", "geometries": [polygon(UNEVEN)]},
    ],
)  # fmt: skip
def test_heights_do_not_matter_wherever_they_are(geometry: dict[str, Any]) -> None:
    feature = {"type": "Feature", "properties": {"a": 1}, "geometry": geometry}
    for document in (geometry, feature, {"type": "FeatureCollection", "features": [feature]}):
        (found,) = parse(document).geometries
        assert shapely.force_2d(found).equals(shapely.Polygon(RING))


WRONG: dict[str, tuple[Any, str]] = {
    "words": (
        polygon([["a", "b"], *RING]),
        'feature 1 of 1: ["a", "b"] stands in its coordinates where a pos',
    ),
    "nothing": (polygon([[None, 1], *RING]), "[null, 1] stands"),
    "not a number": (polygon([[float("nan"), 1], *RING]), "[NaN, 1] stands"),
    "a list too few": (
        {"type": "Polygon", "coordinates": RING},
        "0 stands in its coordinates where a position",
    ),
    "a list too many": (
        polygon([RING]),
        "stands in its coordinates where a position [x, y] in numbers should",
    ),
    "too few corners": (polygon(RING[:2]), "its coordinates draw no Polygon"),
    "no coordinates": ({"type": "Polygon"}, "null stands in its coordinates"),
    "no such type": ({"type": "Polygone", "coordinates": [RING]}, "is no geometry, such as a Polygon"),
    "a type that is none": (
        {"type": "Feature", "geometry": {"type": ["Polygon"]}},
        '{"type": ["Polygon"]} is no geometry',
    ),
    "a feature whose type is none": (
        {"type": "FeatureCollection", "features": [{"type": {}, "geometry": polygon(RING)}]},
        "is no geometry",
    ),
    "a number within": ({"type": "GeometryCollection", "geometries": [3]}, "3 is no geometry"),
    "a list": ([1, 2], "it begins with [1, 2], which has no type"),
    "no features": ({"type": "FeatureCollection"}, "under features is no list of features"),
    "features that are none": ({"type": "FeatureCollection", "features": [3]}, "is no list of features"),
    "properties that are none": (
        {"type": "Feature", "properties": [1], "geometry": None},
        "the properties of a feature are [1]",
    ),
    "a CRS by its code": (
        polygon(RING) | {"crs": {"type": "EPSG", "properties": {"code": 32633}}},
        'which names none; needed is {"type": "name"',
    ),
    "a CRS that is a number": (polygon(RING) | {"crs": 5}, "its crs is 5, which names none"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_none_says_why(name: str) -> None:
    document, said = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert str(caught.value).startswith("--aoi a.geojson is not GeoJSON: ") and said in str(caught.value)


def test_the_feature_that_is_none_is_counted() -> None:
    features = [{"type": "Feature", "geometry": one} for one in (polygon(RING), None, polygon(3))]
    with pytest.raises(ConfigError, match=r"feature 3 of 3: 3 stands in its coordinates"):
        parse({"type": "FeatureCollection", "features": features})


@pytest.mark.parametrize(
    ("content", "said"), [(b"{", "line 1 column 2"), ('{"type": 1}'.encode("utf-16"), "is not UTF-8")]
)
def test_what_is_no_text_is_none(content: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_geojson(content, "--aoi a.geojson")
