"""What earlier versions wrote, read by this one: docs/compatibility.md, version by version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

import citycover
from citycover.errors import ProductError
from citycover.files.plain import to_json
from citycover.model.archive import read_model_file
from citycover.product.record import FORMAT as PRODUCT
from citycover.product.record import read_record
from citycover.region.record import FORMAT as REGION
from citycover.region.record import read_record_of
from citycover.store.store import FORMAT as STORE

VERSIONS = sorted(
    path for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name[0].isdigit()
)


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of what one version wrote."""
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def test_a_product_is_read_with_its_classes(golden: Path) -> None:
    maps = citycover.open_product(golden / "product")
    with rasterio.open(golden / "product/landcover.tif") as file:
        np.testing.assert_array_equal(maps["classes"].values, file.read(1))
    record = read_record(golden / "product/run.json")
    assert record.legend.classes[0].name == "Water"
    assert sum(record.shares.values()) == pytest.approx(1)


def test_a_model_file_maps_as_it_did(golden: Path, tmp_path: Path) -> None:
    model = golden / "model.pt"
    assert read_model_file(model).card.name == "spectral-rgbn"
    imagery = citycover.Imagery((str(golden / "image.tif"),))
    citycover.map_scene(citycover.MapRequest(imagery, tmp_path / "new", model=str(model)))
    with (
        rasterio.open(tmp_path / "new/landcover.tif") as new,
        rasterio.open(golden / "product/landcover.tif") as old,
    ):
        np.testing.assert_array_equal(new.read(1), old.read(1))


def test_an_unfinished_run_of_another_format_is_refused_and_kept(golden: Path) -> None:
    sign = golden / "unfinished/.work/identity.json"
    before = sign.read_bytes()
    assert json.loads(before)["format"] < STORE
    request = citycover.MapRequest(citycover.Imagery((str(golden / "image.tif"),)), golden / "unfinished")
    with pytest.raises(ProductError, match=r"format 1, this citycover writes 3; finish it with .* --restart"):
        citycover.map_scene(request)
    assert sign.read_bytes() == before


RECORDS = sorted((Path(__file__).parent / "region-record").glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_region_record_of_this_format_is_read_and_of_another_one_counts_as_none(path: Path) -> None:
    record = read_record_of(path)
    assert (record is not None) == (int(path.stem) == REGION)
    if record is not None:
        since = {"made": {}}  # what records of this format have got since
        assert json.loads(to_json(record.facts())) == since | json.loads(path.read_text())
        assert (record.name, record.files, record.pixels) == ("a", ("/data/im/a.tif",), 40 * 50)
        assert [mark.path for mark in record.named] == ["/data/im/a.tif"] and set(record.after) == {"areas"}


def test_there_is_a_region_record_of_the_format_of_today() -> None:
    assert str(REGION) in {path.stem for path in RECORDS}


def test_the_page_says_the_formats_of_today() -> None:
    page = (Path(__file__).parent.parent.parent / "docs/compatibility.md").read_text()
    for what, version in (("working store", STORE), ("product", PRODUCT), ("region record", REGION)):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {what} ")]
        assert row.split("|")[3].strip() == str(version), row
