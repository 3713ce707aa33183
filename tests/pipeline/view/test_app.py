"""The server of the page, asked without a network: what it answers is what the map says."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from mapped import patchy, write_product
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from starlette.testclient import TestClient

from citycover.derive.areas import zonal_areas
from citycover.derive.compare import compare
from citycover.plan.layers import LAYERS
from citycover.view import app
from citycover.view.mercator import Tile
from citycover.view.server import open_app

LEVEL = 17
TILE = Tile(LEVEL, 43_000, 70_300)
AT = f"{LEVEL}/{TILE.col}/{TILE.row}.png"
CLASSES = patchy((256, 256))
LATER = patchy((256, 256), seed=9)
DEGREES = Transformer.from_crs("EPSG:3857", "OGC:CRS84", always_xy=True)


def write_dates(folder: Path) -> Path:
    """Two products whose pixels are those of a tile."""
    for name, classes in (("2018", CLASSES), ("2022", LATER)):
        sure = np.where(classes > 0, 40 * classes, 0).astype(np.uint8)
        write_product(
            folder / name, classes, sure, crs="EPSG:3857", transform=Affine(*TILE.grid.transform[:6])
        )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dates(tmp_path_factory.mktemp("dates"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    app, _ = open_app([folder], "127.0.0.1")
    with TestClient(app, base_url="http://127.0.0.1:8800") as client:
        yield client


def picture(client: TestClient, path: str) -> NDArray[np.uint8]:
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png", answer.text
    return np.array(Image.open(io.BytesIO(answer.content)).convert("RGBA"))


def bounds() -> str:
    west, south, east, north = TILE.grid.boundingbox
    lon, lat = DEGREES.transform([west, east], [south, north])
    return f"{lon[0]:.9f},{lat[0]:.9f},{lon[1]:.9f},{lat[1]:.9f}"


def centre(row: int, col: int) -> tuple[float, float]:
    found: tuple[float, float] = DEGREES.transform(*(TILE.grid.transform * (col + 0.5, row + 0.5)))
    return found


def test_the_page_asks_this_server_alone(client: TestClient) -> None:
    page = client.get("/")
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"view.js", "view.css", "maplibre-gl.js", "maplibre-gl.css"} <= set(names)
    for name in names:
        assert name == "data:," or client.get(f"/{name}").status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    own = page.text + client.get("/view.js").text + client.get("/view.css").text
    assert not re.search(r"https?:|//[a-z]+\.", own)


def test_the_page_is_told_maps_layers_and_legends(client: TestClient) -> None:
    told = client.get("/view.json").json()
    assert [one["name"] for one in told["maps"]] == ["2018", "2022"] and told["changes"] == [[0, 1], [0, 1]]
    first = told["maps"][0]
    assert [layer["name"] for layer in first["layers"]] == ["classes", "confidence"]
    assert [entry["id"] for entry in first["legend"]] == [1, 2, 3, 4, 5] and first["image"] is None
    assert first["native"] == LEVEL and first["random"] is False


def test_a_tile_has_the_colours_of_the_classes_pixel_for_pixel(client: TestClient) -> None:
    legend = client.get("/view.json").json()["maps"][0]["legend"]
    seen = picture(client, f"/map/0/classes/1/{AT}")
    off = picture(client, f"/map/0/classes/1/{AT}?off=2,4")
    for entry in legend:
        here = entry["id"] == CLASSES
        rgb = [int(entry["color"][k : k + 2], 16) for k in (1, 3, 5)]
        assert here.any() and (seen[here] == [*rgb, 255]).all()
        assert (off[here][:, 3] == (0 if entry["id"] in (2, 4) else 255)).all()
    assert (seen[CLASSES == 0][:, 3] == 0).all()


def test_a_tile_beside_the_map_is_empty(client: TestClient) -> None:
    assert picture(client, f"/map/0/classes/1/{LEVEL}/{TILE.col + 3}/{TILE.row}.png")[..., 3].max() == 0


def test_confidence_is_shown_where_there_is_any(client: TestClient) -> None:
    seen = picture(client, f"/map/0/confidence/1/{AT}")
    np.testing.assert_array_equal(seen[..., 3] > 0, CLASSES > 0)
    assert len(np.unique(seen[CLASSES > 0][:, :3], axis=0)) == 5


def test_change_is_what_differs(client: TestClient) -> None:
    seen = picture(client, f"/change/0/1/{AT}")
    known = (CLASSES > 0) & (LATER > 0)
    np.testing.assert_array_equal(seen[..., 3] == 255, known & (CLASSES != LATER))
    np.testing.assert_array_equal(seen[..., 3] > 0, known)


@pytest.mark.parametrize(("row", "col"), [(0, 0), (60, 3), (255, 255), (128, 77)])
def test_a_point_says_what_the_pixel_says(client: TestClient, row: int, col: int) -> None:
    longitude, latitude = centre(row, col)
    said = client.get(f"/point?at={longitude:.9f},{latitude:.9f}").json()
    for one, classes in zip(said, (CLASSES, LATER), strict=True):
        id_ = int(classes[row, col])
        assert one == (None if id_ == 0 else {"class": id_, "confidence": pytest.approx(40 * id_ / 255)})


def test_a_point_beside_the_map_has_nothing(client: TestClient) -> None:
    assert client.get("/point?at=0,0").json() == [None, None]


def test_areas_of_the_window_of_the_map_are_those_of_stats(client: TestClient, folder: Path) -> None:
    found = client.get(f"/areas/0?in={bounds()}").json()
    for row, exact in zip(found["classes"], zonal_areas(folder / "2018").rows(), strict=True):
        assert row["id"] == exact["class"]
        assert row["m2"] == pytest.approx(exact["area_m2"], rel=1e-6)
        assert row["confidence"] == pytest.approx(exact["confidence"], rel=1e-6)
    assert found["metres"] == pytest.approx(0.72, abs=0.02)


def test_changes_of_the_window_of_the_map_are_those_of_compare(client: TestClient, folder: Path) -> None:
    found = client.get(f"/changes/0/1?in={bounds()}").json()
    exact = compare(folder / "2018", folder / "2022")
    assert found["changed_m2"] == pytest.approx(exact.whole.changed, rel=1e-6)
    assert found["compared_m2"] == pytest.approx(exact.whole.compared, rel=1e-6)
    said = {(row["from"], row["to"]): row["m2"] for row in found["transitions"]}
    rows = [row for row in exact.rows() if row["from"] != row["to"]]
    assert len(said) == len(rows)
    for row in rows:
        assert said[row["from"], row["to"]] == pytest.approx(row["area_m2"], rel=1e-6)
    assert [row["m2"] for row in found["transitions"]] == sorted(said.values(), reverse=True)
    after = exact.whole.square_metres.sum(0).tolist()
    assert [row["after_m2"] for row in found["classes"]] == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize(
    "name", ["localhost:8800", "127.0.0.1:8800", "127.0.0.1", "[::1]:8800", "LOCALHOST."]
)
def test_names_of_this_machine_are_answered(client: TestClient, name: str) -> None:
    assert client.get("/", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example:8800", "127.0.0.1.evil.example", "192.168.1.7:8800", "", "::"]
)
def test_other_names_are_not(client: TestClient, name: str) -> None:
    answer = client.get("/view.json", headers={"host": name})
    assert answer.status_code == 421 and "2018" not in answer.text


@pytest.mark.parametrize("path", ["/map/0/classes/1/{}/0/0.png", f"/map/0/classes/1/{AT}?off={{}}"])
def test_an_address_longer_than_any_of_the_page_is_refused(client: TestClient, path: str) -> None:
    assert client.get(path.format("9" * 5000)).status_code == 414
    every = ",".join(str(id_) for id_ in range(256))
    assert client.get(f"/map/0/classes/1/{AT}?off={every}").status_code == 200


def test_beyond_loopback_addresses_and_the_name_given_are_answered(folder: Path) -> None:
    for host, good, bad in (
        ("0.0.0.0", "192.168.1.7:8800", "evil.example"),
        ("office.example", "office.example:8800", "evil.example"),
    ):
        with TestClient(open_app([folder], host)[0]) as client:
            assert client.get("/", headers={"host": good}).status_code == 200
            assert client.get("/", headers={"host": bad}).status_code == 421


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"/map/7/classes/1/{AT}", "no map 7"),
        (f"/map/0/entropy/1/{AT}", "no layer entropy"),
        (f"/map/0/classes/2/{AT}", "no band 2"),
        ("/map/0/classes/1/3/9/9.png", "no tile"),
        (f"/image/0/{AT}", "no image"),
        ("/point?at=1", "no 2 numbers"),
        ("/point?at=1,nan", "no 2 numbers"),
        ("/areas/0?in=1,2,3", "no 4 numbers"),
        ("/areas/0?in=3,2,1,4", "no window"),
    ],
)
def test_what_is_not_there_is_said(client: TestClient, path: str, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_a_map_that_is_deleted_meanwhile_is_said(tmp_path: Path) -> None:
    app, _ = open_app([write_dates(tmp_path)], "127.0.0.1")
    (tmp_path / "2018" / "landcover.tif").unlink()
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.get(f"/map/0/classes/1/{AT}")
        assert answer.status_code == 410 and "cannot be read any more" in answer.json()["error"]


def test_nothing_can_be_written(client: TestClient) -> None:
    for ask in (client.post, client.put, client.delete):
        assert ask("/view.json").status_code == 405


def test_no_layer_is_called_what_the_page_calls_something_else() -> None:
    page = (Path(app.__file__).parent / "page" / "view.js").read_text()
    own = set(re.findall(r"""layer [!=]== "(\w+)\"""", page))
    assert {"image", "between"} <= own
    assert own.isdisjoint(layer.name for layer in LAYERS)
