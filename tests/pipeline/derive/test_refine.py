"""A tidier map, made beside the one that it comes from."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mapped import on_map, patchy, write_product, write_zones
from numpy.typing import NDArray
from rio_cogeo.cogeo import cog_validate
from scipy import ndimage

from citycover.classes import raster
from citycover.classes.legend import read_legend
from citycover.classes.table import NO_CLASS
from citycover.derive.majority import majority
from citycover.derive.refine import Steps, refine
from citycover.errors import ConfigError, ProductError
from citycover.product.folder import holds_product
from citycover.product.open import open_product
from citycover.product.record import read_record

CLASSES = patchy((60, 80))


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write_product(tmp_path / "product", CLASSES)


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        values: NDArray[Any] = dataset.read(1)
        return values


def voted(ranks: NDArray[np.int16], side: int) -> NDArray[np.int16]:
    """One pixel after the other."""
    out, reach = ranks.copy(), side // 2
    for (row, col), own in np.ndenumerate(ranks):
        if own == NO_CLASS:
            continue
        part = ranks[max(0, row - reach) : row + reach + 1, max(0, col - reach) : col + reach + 1]
        votes = Counter(part[part != NO_CLASS].tolist())
        best = max(votes.values())
        out[row, col] = own if votes[int(own)] == best else min(k for k, n in votes.items() if n == best)
    return out


@given(
    arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 2)),
    st.sampled_from([3, 5]),
)
def test_the_majority_is_that_of_counting(ranks: NDArray[np.int16], side: int) -> None:
    np.testing.assert_array_equal(majority(ranks, side), voted(ranks, side))


def test_a_refined_product_is_whole(product: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in product.iterdir()}
    out = tmp_path / "refined"
    found = refine(product, out, Steps(majority=3, min_area=40))
    assert {path.name: path.read_bytes() for path in product.iterdir()} == before
    assert holds_product(out) and not list(out.glob(".*"))
    after = read(out / "landcover.tif")
    np.testing.assert_array_equal(after == 0, CLASSES == 0)
    assert found.pixels == (CLASSES > 0).sum() and found.changed == (after != CLASSES).sum() > 0
    for name in ("landcover.tif", "confidence.tif"):
        assert cog_validate(out / name, strict=True)[0]
    np.testing.assert_array_equal(read(out / "confidence.tif"), read(product / "confidence.tif"))
    for value in range(1, 6):
        labels, _ = ndimage.label(after == value)
        assert np.bincount(labels.ravel())[1:].min(initial=10) >= 10
    record = read_record(out / "run.json")
    assert record.refined[0]["steps"] == {"majority": 3, "min_area_m2": 40}
    assert record.refined[0]["from"] == str(product) and not record.given.identity
    assert record.shares["class 1"] == pytest.approx((after == 1).sum() / found.pixels)
    run = json.loads(open_product(out).attrs["run"])
    assert run["refined"][0]["changed_pixels"] == found.changed
    item = pystac.Item.from_file(str(out / "item.json"))
    assert "refined from" in item.properties["processing:lineage"] and "landcover" in item.assets
    assert item.properties["citycover:model"]["kind"] == record.standing
    assert {"landcover.qml", "confidence.qml"} <= {path.name for path in out.iterdir()}


def test_strips_do_not_matter(product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = on_map(shapely.Point(40.2, 30.3).buffer(11.1))
    burn = ((write_zones(tmp_path / "water.geojson", {"w": zone}), "class 2"),)
    steps = Steps(majority=7, min_area=60, burn=burn)
    refine(product, tmp_path / "one", steps)
    monkeypatch.setattr(raster, "_STRIP_PIXELS", 80 * 7)
    refine(product, tmp_path / "many", steps)
    for name in ("landcover.tif", "confidence.tif"):
        np.testing.assert_array_equal(read(tmp_path / "one" / name), read(tmp_path / "many" / name))


def test_trusted_vectors_have_the_last_word(product: Path, tmp_path: Path) -> None:
    zone = shapely.Point(20.2, 12.3).buffer(9.1)
    path = write_zones(tmp_path / "water.geojson", {"w": on_map(zone)})
    refine(product, tmp_path / "out", Steps(min_area=1000, burn=((path, "CLASS 2"),)))
    rows, cols = np.mgrid[0:60, 0:80] + 0.5
    inside = shapely.contains_xy(zone, cols, rows) & (CLASSES > 0)
    assert (read(tmp_path / "out/landcover.tif")[inside] == 2).all()
    confidence = read(tmp_path / "out/confidence.tif")
    assert (confidence[inside] == 255).all() and (confidence[~inside & (CLASSES > 0)] == 128).all()
    assert (confidence[CLASSES == 0] == 0).all()


def write_legend(path: Path) -> Path:
    path.write_text(
        'name = "two"\nnodata = 0\nremap = { test = { 1 = 1, 2 = 1, 3 = 7, 4 = 7, 5 = 0 } }\n'
        'classes = [ { id = 1, name = "open", color = "#00ff00" }, '
        '{ id = 7, name = "built", color = "#ff0000" } ]\n'
    )
    return path


def test_classes_are_merged_by_a_table(product: Path, tmp_path: Path) -> None:
    legend = write_legend(tmp_path / "two.toml")
    found = refine(product, tmp_path / "out", Steps(to=str(legend)))
    merged = np.array([0, 1, 1, 7, 7, 0], np.uint8)[CLASSES]
    np.testing.assert_array_equal(read(tmp_path / "out/landcover.tif"), merged)
    assert found.changed == 0 and read_record(tmp_path / "out/run.json").legend.names == ("open", "built")
    again = refine(tmp_path / "out", tmp_path / "again", Steps(majority=3))
    record = read_record(again.folder / "run.json")
    assert record.legend.name == "two" and len(record.refined) == 2


def test_the_original_and_what_is_the_users_stay(product: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never changed"):
        refine(product, product, Steps(majority=3), overwrite=True)
    with pytest.raises(ConfigError, match="never changed"):
        refine(product, product / "tidy/one", Steps(majority=3))
    assert not (product / "tidy").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(ProductError, match=r"notes\.txt"):
        refine(product, other, Steps(majority=3), overwrite=True)
    refine(product, tmp_path / "out", Steps(majority=3))
    with pytest.raises(ProductError, match="--overwrite"):
        refine(product, tmp_path / "out", Steps(majority=5))
    refine(product, tmp_path / "out", Steps(majority=5), overwrite=True)
    assert read_record(tmp_path / "out/run.json").refined[0]["steps"] == {"majority": 5}


def test_what_cannot_be_done_is_refused(product: Path, tmp_path: Path) -> None:
    for wrong, message in (({}, "nothing"), ({"majority": 4}, "odd"), ({"min_area": -1.0}, "not negative")):
        with pytest.raises(ConfigError, match=message):
            Steps(**wrong)  # type: ignore[arg-type]
    far = write_zones(tmp_path / "far.geojson", {"w": on_map(shapely.box(900, 900, 950, 950))})
    line = write_zones(tmp_path / "line.geojson", {"w": shapely.LineString([(5e5, 5.8e6), (5e5 + 9, 5.8e6)])})
    for steps, message in (
        (Steps(burn=((far, "class 2"),)), "do not overlap"),
        (Steps(burn=((line, "class 2"),)), "no polygons"),
        (Steps(burn=((far, "lava"),)), "no class 'lava'; it has class 1"),
        (Steps(to="city"), "no remap table from 'test'"),
    ):
        with pytest.raises(ConfigError, match=message):
            refine(product, tmp_path / "out", steps)
    assert not (tmp_path / "out").exists()


def test_a_refined_product_is_opened_with_its_own_legend(tmp_path: Path) -> None:
    product = write_product(tmp_path / "product", patchy((60, 80)), legend=read_legend("landcover5"))
    refine(product, tmp_path / "out", Steps(to="base4"))
    maps = open_product(tmp_path / "out")
    assert maps.classes.attrs["flag_values"].tolist() == list(read_legend("base4").ids)
    assert maps.classes.attrs["flag_meanings"].split()[0] == "water" and "bare" not in str(maps.classes.attrs)
