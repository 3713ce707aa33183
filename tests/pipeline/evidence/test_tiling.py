from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from citycover.evidence.tiling import DegreeTiling, ZoneTiling

WORLDCOVER = DegreeTiling(kind="degrees", side=3, corner="south-west", name="{ns}{lat:02d}{ew}{lon:03d}")
FCS30 = DegreeTiling(kind="degrees", side=5, corner="north-west", name="{ew}{lon}{ns}{lat}")
ZONES = ZoneTiling(kind="zones")

longitudes = st.floats(-179.9, 179.8).map(lambda x: round(x, 3))
latitudes = st.floats(-79.9, 83.8).map(lambda x: round(x, 3))


def test_tiles_are_called_as_their_publishers_call_them() -> None:
    assert list(WORLDCOVER.names((6.6, 0.2, 6.7, 0.3))) == ["N00E006"]
    assert list(WORLDCOVER.names((-58.5, -34.7, -58.3, -34.5))) == ["S36W060"]
    assert list(FCS30.names((116.1, 28.9, 116.4, 29.2))) == ["E115N30"]  # the Poyang lake
    assert list(FCS30.names((-0.2, -0.3, -0.1, -0.2))) == ["W5N0"]
    assert list(ZONES.names((16.3, 48.1, 16.4, 48.3))) == ["33U"]
    assert list(ZONES.names((5.2, 60.3, 5.4, 60.4))) == ["32V"]  # Bergen, in the zone of Oslo
    assert list(ZONES.names((15.5, 78.2, 15.7, 78.3))) == ["33X"]


@given(longitudes, latitudes)
def test_the_tile_of_a_place_holds_it(lon: float, lat: float) -> None:
    name, *beside = WORLDCOVER.names((lon, lat, lon + 1e-6, lat + 1e-6))
    south = int(name[1:3]) * (-1 if name[0] == "S" else 1)
    west = int(name[4:]) * (-1 if name[3] == "W" else 1)
    assert south <= lat < south + 3
    assert west <= lon < west + 3
    assert len(beside) in {0, 1, 3}


@given(longitudes, latitudes, st.floats(0.001, 9), st.floats(0.001, 9))
def test_a_box_meets_the_tiles_of_its_points(lon: float, lat: float, width: float, height: float) -> None:
    east, north = min(lon + width, 180), min(lat + height, 84)
    for tiling in (WORLDCOVER, FCS30, ZONES):
        names = list(tiling.names((lon, lat, east, north)))
        assert len(names) == len(set(names))
        for x in (lon, (lon + east) / 2):
            for y in (lat, (lat + north) / 2):
                assert set(tiling.names((x, y, x + 1e-9, y + 1e-9))) <= set(names)


@pytest.mark.parametrize(
    "name", ["{lat", "{0}", "{lon.real}", "{lat:0999999d}", "{ns:02d}", "{tile}", "{lat!r}"]
)
def test_a_name_that_is_no_format_of_a_corner_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        DegreeTiling(kind="degrees", side=1, corner="south-west", name=name)
