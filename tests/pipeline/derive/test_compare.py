"""What changed between two maps."""

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from making import make_legend
from mapped import UTM, on_map, patchy, write_product, write_raster, write_zones
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from citycover.classes.legend import Legend, LegendClass
from citycover.derive.change import ChangeMatrix, Transitions
from citycover.derive.compare import compare
from citycover.derive.flow import write_flow_figure
from citycover.errors import ConfigError
from citycover.product.record import read_record

ONE, TWO = patchy((60, 80), seed=1), patchy((60, 80), seed=2)


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path]:
    sure = np.where(TWO > 0, 10 * TWO, 0).astype(np.uint8)
    return write_product(tmp_path / "one", ONE), write_product(tmp_path / "two", TWO, sure)


def test_a_map_against_itself_is_the_identity(maps: tuple[Path, Path], tmp_path: Path) -> None:
    change = compare(maps[0], maps[0], tmp_path / "change.tif")
    assert change.whole.changed == 0 and not change.warped
    np.testing.assert_array_equal(
        change.whole.pixels, np.diag([float((k == ONE).sum()) for k in range(1, 6)])
    )
    with rasterio.open(tmp_path / "change.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), (ONE > 0).astype(np.uint8))


def test_pairs_of_pixels_are_counted(maps: tuple[Path, Path]) -> None:
    change = compare(*maps)
    right = [[((a == ONE) & (b == TWO)).sum() for b in range(1, 6)] for a in range(1, 6)]
    np.testing.assert_array_equal(change.whole.pixels, right)
    np.testing.assert_array_equal(change.whole.square_metres, 4 * np.array(right))
    assert change.whole.left_out == 4 * ((ONE == 0) | (TWO == 0)).sum()
    assert sum(row["percent"] for row in change.rows()) == pytest.approx(100)
    assert change.facts()["matrix_pixels"] == np.array(right).tolist()


def test_the_raster_names_every_transition(maps: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "change.tif"
    compare(*maps, path)
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as dataset:
        values, colours = dataset.read(1), dataset.colormap(1)
        assert dataset.nodata == 0 and dataset.crs.to_epsg() == 32633 and dataset.transform == UTM
    names = [
        line.strip().removeprefix("<Category>").removesuffix("</Category>")
        for line in (tmp_path / "change.tif.aux.xml").read_text().splitlines()
        if "<Category>" in line
    ]
    # GDAL's empty name stands for nodata.
    names = ["", *names]
    for row in range(0, 60, 7):
        for col in range(0, 80, 7):
            a, b, value = int(ONE[row, col]), int(TWO[row, col]), int(values[row, col])
            if not (a and b):
                assert value == 0
            else:
                assert names[value] == ("unchanged" if a == b else f"class {a} → class {b}")
    assert colours[0][3] == 0


def test_unsure_pixels_are_left_out(maps: tuple[Path, Path]) -> None:
    change = compare(*maps, min_confidence=30 / 255)
    kept = (ONE > 0) & (TWO >= 3)
    assert change.whole.pixels.sum() == kept.sum()
    assert change.whole.pixels[:, :2].sum() == 0


def test_confidence_is_read_only_where_it_is_asked_for(maps: tuple[Path, Path]) -> None:
    whole = compare(*maps).whole.pixels
    (maps[1] / "confidence.tif").write_bytes(b"no raster")
    np.testing.assert_array_equal(compare(*maps).whole.pixels, whole)
    with pytest.raises(ConfigError, match="cannot be opened as a raster"):
        compare(*maps, min_confidence=0.1)


def test_zones_are_reckoned_by_themselves(maps: tuple[Path, Path], tmp_path: Path) -> None:
    halves = {"left": on_map(shapely.box(0, 0, 33.5, 60)), "right": on_map(shapely.box(33.5, 0, 80, 60))}
    change = compare(*maps, zones=write_zones(tmp_path / "zones.geojson", halves), by="name")
    assert [zone.zone for zone in change.zones] == ["left", "right"]
    total = sum(zone.square_metres for zone in change.zones)
    np.testing.assert_allclose(total, change.whole.square_metres, rtol=1e-9)
    whole = ONE[:, :33], TWO[:, :33]
    assert change.zones[0].pixels[0, 1] == pytest.approx(
        ((whole[0] == 1) & (whole[1] == 2)).sum() + 0.5 * ((ONE[:, 33] == 1) & (TWO[:, 33] == 2)).sum()
    )


def test_maps_on_different_grids_are_seen_on_the_later_one(
    maps: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coarse = write_product(tmp_path / "coarse", ONE[1::3, 1::3], transform=UTM * Affine.scale(3))
    with caplog.at_level(logging.WARNING):
        change = compare(maps[0], coarse)
    assert change.warped and "different grids" in caplog.text
    assert change.whole.changed == 0 and change.whole.pixels.sum() == (ONE[1::3, 1::3] > 0).sum()
    assert change.whole.compared == 36 * (ONE[1::3, 1::3] > 0).sum()


def legend(name: str, ids: tuple[int, ...], **remap: dict[int, int]) -> Legend:
    classes = tuple(LegendClass(id=i, name=f"{name} {i}", color="#123456") for i in ids)
    return Legend(name=name, nodata=0, classes=classes, remap=remap)


def test_legends_are_joined_by_a_table(maps: tuple[Path, Path], tmp_path: Path) -> None:
    coarse = legend("coarse", (1, 2), test={1: 1, 2: 1, 3: 2, 4: 2, 5: 2})
    merged = np.array([0, 1, 1, 2, 2, 2], np.uint8)[ONE]
    change = compare(maps[0], write_product(tmp_path / "coarse", merged, legend=coarse))
    assert change.legend.name == "coarse" and change.whole.changed == 0
    assert change.whole.pixels.sum() == (ONE > 0).sum()


def test_legends_without_a_table_are_refused(maps: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_product(tmp_path / "other", np.minimum(ONE, 2), legend=legend("other", (1, 2)))
    with pytest.raises(ConfigError, match=r"no remap table to one another.*--to"):
        compare(maps[0], other)


def test_a_product_keeps_its_legend_beside_a_raster_of_another(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    classes = [f'[[classes]]\nid = {k}\nname = "other {k}"\ncolor = "#808080"' for k in range(1, 6)]
    turned = ["[remap.test]", *(f"{k} = {6 - k}" for k in range(1, 6))]
    (tmp_path / "other.toml").write_text("\n".join(["nodata = 0", *classes, *turned]))
    plain, legend = write_raster(tmp_path / "plain.tif", TWO, "EPSG:32633", UTM), str(tmp_path / "other.toml")
    found = compare(maps[0], plain, map_legend=legend).whole.pixels
    right = [[((6 - a == ONE) & (b == TWO)).sum() for b in range(1, 6)] for a in range(1, 6)]
    np.testing.assert_array_equal(found, right)
    with pytest.raises(
        ConfigError, match=r"written in 'test', not in 'other' \(1 is .* other 1 in .*; leave --map-legend"
    ):
        compare(*maps, map_legend=legend)
    own = read_record(maps[0] / "run.json").legend
    (tmp_path / "own.toml").write_text(
        "\n".join(
            f'[[classes]]\nid = {c.id}\nname = "{c.name.upper()}"\ncolor = "#808080"' for c in own.classes
        )
    )
    assert compare(*maps, map_legend=str(tmp_path / "own.toml")).legend == own, "case is no other class"


def test_what_cannot_be_compared_is_refused(maps: tuple[Path, Path], tmp_path: Path) -> None:
    far = write_product(tmp_path / "far", ONE, transform=Affine(2, 0, 7e5, 0, -2, 5e6))
    with pytest.raises(ConfigError, match="do not overlap"):
        compare(maps[0], far)
    with pytest.raises(ConfigError, match="in common places nowhere"):
        compare(*maps, min_confidence=1.0)
    plain = write_raster(tmp_path / "plain.tif", np.minimum(ONE, 4), "EPSG:32633", UTM)
    with pytest.raises(ConfigError, match="needs the confidence of both"):
        compare(plain, plain, min_confidence=0.5, map_legend="base4")
    with pytest.raises(ConfigError, match=r"written as \.tif"):
        compare(*maps, tmp_path / "change.png")
    assert not list(tmp_path.glob(".*"))


def test_rare_transitions_share_a_number_where_there_are_too_many() -> None:
    many = make_legend(17)
    amounts = np.arange(1.0, 1 + 17 * 17).reshape(17, 17)
    found = Transitions.of(ChangeMatrix(None, amounts, amounts, 0.0), many)
    assert found.legend.ids == tuple(range(1, 256)) and found.legend.names[-1] == "other changes"
    off = np.flatnonzero(~np.eye(17, dtype=bool).ravel())
    numbers = found.table[1 + off]
    assert (numbers == 255).sum() == len(off) - 253 and numbers[0] == 255
    assert sorted(numbers[numbers < 255].tolist()) == list(range(2, 255))


def test_the_figure_is_drawn(maps: tuple[Path, Path], tmp_path: Path) -> None:
    change = compare(*maps)
    write_flow_figure(change.whole, change.legend, tmp_path / "flow.png", ("2020", "2024"))
    with Image.open(tmp_path / "flow.png") as image:
        assert min(image.size) > 500 and len(image.getcolors(10**6) or []) > 100
