from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from labelled import grid_of, image_grid, write_sheet
from making import make_card, make_legend
from stores import geozarr, write_arrays, zip_store

from citycover.classes.legend import Legend, LegendClass
from citycover.errors import ConfigError, ModelError
from citycover.evidence.labels import PlaceLabels, understand_labels
from citycover.evidence.request import LabelRequest
from citycover.model.card import ModelCard

CORNER = Affine(10, 0, 500_000, 0, -10, 5_800_000)
PRIOR = (0.3, 0.3, 0.2, 0.2)


def card(**changes: Any) -> ModelCard:
    fields = {"legend": make_legend(4), "trained_prior": PRIOR} | changes
    return make_card(64, 8, 8, **fields)


def cells(*values: int) -> np.ndarray[Any, Any]:
    """(8, 8) channels, the values side by side over and over."""
    return np.resize(np.array(values, np.int16), (8, 8))


def understand(
    path: Path, model: ModelCard | None = None, legend: str | None = None, trust: float | None = None
) -> PlaceLabels:
    return understand_labels(LabelRequest((path,), legend, trust), model or card(), image_grid((80, 80)))


def test_labels_over_the_map_are_counted(tmp_path: Path) -> None:
    channels = np.full((8, 16), 3, np.int16)  # the right half lies beside the map
    channels[:, :8] = cells(0, 0, 0, 1, 0, 0, 2, -1)
    write_sheet(tmp_path / "labels.tif", channels, grid_of((8, 16), CORNER))
    labels = understand(tmp_path / "labels.tif")
    assert labels.shares == pytest.approx((5 / 7, 1 / 7, 1 / 7, 0))
    assert labels.prior == PRIOR
    assert labels.pixels_per_cell == pytest.approx(100, rel=1e-3)


def test_channels_are_those_of_the_card_whatever_the_order_of_the_legend(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(0, 0, 0, 3), grid_of((8, 8), CORNER))
    turned = understand(tmp_path / "labels.tif", card(channels=(4, 3, 2, 1)))
    assert turned.shares == pytest.approx((0.25, 0, 0, 0.75))


def test_labels_of_another_legend_come_by_its_table(tmp_path: Path) -> None:
    legend = make_legend(4).model_copy(update={"remap": {"worldcover": {10: 1, 50: 2, 80: 0}}})
    path = tmp_path / "labels.tif"
    write_sheet(path, cells(9, 9, 49, 79), grid_of((8, 8), CORNER))
    assert understand(path, card(legend=legend), "worldcover").shares == pytest.approx((2 / 3, 1 / 3, 0, 0))
    learned = card(legend=legend, label_legend="worldcover")
    assert understand(path, learned).shares == pytest.approx((2 / 3, 1 / 3, 0, 0))
    assert understand(path, learned).legend == "worldcover"


def test_a_legend_that_is_not_at_hand_is_known_from_the_model(tmp_path: Path) -> None:
    legend = make_legend(4).model_copy(update={"remap": {"of a colleague": {10: 1, 50: 2}}})
    write_sheet(tmp_path / "labels.tif", cells(9, 49), grid_of((8, 8), CORNER))
    learned = card(legend=legend, label_legend="of a colleague")
    assert understand(tmp_path / "labels.tif", learned).shares == pytest.approx((0.5, 0.5, 0, 0))


def test_trust_is_a_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--trust takes auto or a number from 0 to 1, got 1\.5"):
        LabelRequest((tmp_path,), None, 1.5)


def test_identity_differs_with_files_meaning_and_trust(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    write_sheet(path, cells(0, 1), grid_of((8, 8), CORNER))
    first = understand(path).identity
    assert understand(path).identity == first
    assert understand(path, trust=1.0).identity != first
    assert understand(path, card(channels=(4, 3, 2, 1))).identity != first
    other = tmp_path / "other.tif"
    write_sheet(other, cells(0, 1), grid_of((8, 8), CORNER))
    assert understand(other).identity != first


def test_labels_may_be_an_array_in_a_zipped_store(tmp_path: Path) -> None:
    values = cells(0, 0, 0, 1).astype(np.uint8) + 1
    store = write_arrays(tmp_path / "a.zarr", {"cover": values}, attributes=geozarr(8, 8, 10))
    zipped, plain = understand(zip_store(store) / "cover"), understand(store / "cover")
    assert zipped.shares == plain.shares == pytest.approx((0.75, 0.25, 0, 0))


@pytest.mark.parametrize("name", ["/vsizip/a.zip/labels.tif", 'NETCDF:"a.nc":cover'])
def test_labels_are_no_parts_of_files_as_gdal_names_them(name: str) -> None:
    """As a path it would be another name, and nobody would see that the file changes."""
    with pytest.raises(ConfigError, match=r"named as GDAL names parts of files.*gdal_translate"):
        understand_labels(LabelRequest((name,)), card(), image_grid((80, 80)))


def test_a_model_must_know_what_the_rule_needs(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(0, 1), grid_of((8, 8), CORNER))
    with pytest.raises(ModelError, match="has no trained_prior"):
        understand(tmp_path / "labels.tif", card(trained_prior=()))
    with pytest.raises(ModelError, match="gives any of its classes"):
        understand(tmp_path / "labels.tif", card(task="labels"))


def test_labels_elsewhere_are_refused(tmp_path: Path) -> None:
    elsewhere = CORNER * Affine.translation(1000, 0)
    write_sheet(tmp_path / "labels.tif", cells(0, 1), grid_of((8, 8), elsewhere))
    with pytest.raises(ConfigError, match="do not overlap; check their CRS"):
        understand(tmp_path / "labels.tif")


def test_nodata_over_the_map_is_refused(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(-1), grid_of((8, 8), CORNER))
    with pytest.raises(ConfigError, match="have no label over the map"):
        understand(tmp_path / "labels.tif")


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(1, 1, -1), grid_of((8, 8), CORNER))
    with pytest.raises(ConfigError, match="say 'class 2' everywhere"):
        understand(tmp_path / "labels.tif")


def test_ids_of_another_legend_are_listed_and_legends_that_have_them_named(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(9, 9, 94, 99), grid_of((8, 8), CORNER))
    with pytest.raises(ConfigError, match=r"10 \(32 cells\), 95 \(16 cells\).*worldcover.*--labels-legend"):
        understand(tmp_path / "labels.tif")


def test_a_legend_that_means_nothing_to_the_model_is_refused(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(9, 49), grid_of((8, 8), CORNER))
    with pytest.raises(ConfigError, match="labels in legend 'worldcover' mean nothing to model 'test'"):
        understand(tmp_path / "labels.tif", legend="worldcover")


def test_labels_finer_than_the_map_are_refused(tmp_path: Path) -> None:
    fine = CORNER * Affine.scale(0.05)
    write_sheet(tmp_path / "labels.tif", cells(0, 1), grid_of((8, 8), fine))
    with pytest.raises(ConfigError, match=r"cells of 0\.5 m, finer than the pixels of the map \(1 m\)"):
        understand(tmp_path / "labels.tif")


def test_labels_as_fine_as_the_map_are_taken(tmp_path: Path) -> None:
    write_sheet(tmp_path / "labels.tif", cells(0, 1), grid_of((8, 8), CORNER * Affine.scale(0.1)))
    assert understand(tmp_path / "labels.tif").pixels_per_cell == pytest.approx(1)


def test_a_picture_of_labels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, photometric="RGB", crs="EPSG:32633", transform=CORNER) as out:
        out.write(np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="has 3 bands; needed is one band of class numbers"):
        understand(path)


def test_labels_without_a_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    with rasterio.open(path, "w", driver="GTiff", height=8, width=8, count=1, dtype="uint8") as out:
        out.write(np.ones((1, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="have no CRS"):
        understand(path)


def test_a_class_without_a_channel_is_no_label(tmp_path: Path) -> None:
    classes = tuple(LegendClass(id=i, name=f"class {i}", color="#000000") for i in range(1, 6))
    model = card(legend=Legend(name="test", nodata=0, classes=classes), channels=(1, 2, 3, 4))
    write_sheet(tmp_path / "labels.tif", cells(0, 1, 4, 4), grid_of((8, 8), CORNER))
    assert understand(tmp_path / "labels.tif", model).shares == pytest.approx((0.5, 0.5, 0, 0))
