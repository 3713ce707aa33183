"""A layer is a row of one table: the sweep, the store and the product carry it without knowing it."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

import citycover
from citycover.plan.layers import USUAL, Layer
from citycover.synth.write import write_city

UNSURE = Layer(
    "unsure",
    "unsure.tif",
    "what is left to other classes",
    of_probabilities=lambda p: (1 - p.amax(0)).mul(254).round().add(1).byte(),
    scale=1 / 254,
)


def test_a_new_row_goes_from_the_sweep_to_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_city(tmp_path, 300, 3)
    rows = (*USUAL, UNSURE)
    for place in ("plan.layers.LAYERS", "compute.sink.USUAL", "product.open.LAYERS"):
        monkeypatch.setattr(f"citycover.{place}", rows)
    monkeypatch.setattr(
        "citycover.product.folder.PRODUCT_FILES",
        {layer.file for layer in rows} | {"landcover.tif.aux.xml", "run.json", "preview.png", "item.json"},
    )
    imagery = citycover.Imagery((str(tmp_path / "image.tif"),))
    engine = citycover.EngineOptions(window=160, precision="fp32")
    request = citycover.MapRequest(imagery, tmp_path / "out", "spectral-rgbn", engine=engine)
    citycover.map_scene(request)
    with citycover.open_product(tmp_path / "out") as product:
        assert list(product.data_vars) == ["classes", "confidence", "unsure"]
        sure, unsure = product.confidence.to_numpy() / 255, (product.unsure.to_numpy() - 1) / 254
        assert product.unsure.attrs["long_name"] == UNSURE.title
    np.testing.assert_allclose(sure + unsure, 1, atol=1 / 255)
    with rasterio.open(tmp_path / "out" / "unsure.tif") as raster:
        assert (raster.nodata, raster.scales) == (0, (1 / 254,))
        assert raster.overviews(1) or max(raster.shape) <= 512
    item = (tmp_path / "out" / "item.json").read_text()
    assert UNSURE.title in item and "./unsure.tif" in item
