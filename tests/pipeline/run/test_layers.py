"""A layer is a row of one table: the sweep, the store and the product carry it without knowing it."""

import dataclasses
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from making import make_card, make_legend
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rio_cogeo import cog_validate

import citycover
from citycover.errors import ConfigError, FinishedError, ProductError
from citycover.job.watch import Watch
from citycover.model.card import BandGroup
from citycover.model.network import write_torchscript
from citycover.plan import fit
from citycover.plan.layers import USUAL, Layer
from citycover.plan.plan import Block
from citycover.product.record import read_record
from citycover.run.map import map_scene
from citycover.synth.write import write_city

UNSURE = Layer(
    "unsure",
    "unsure.tif",
    "what is left to other classes",
    lambda ranking: (1 - ranking.keys.view(torch.float32).amax(0)).mul(254).round().add(1).byte(),
    nodata=0,
    scale=1 / 254,
)


def test_a_new_row_goes_from_the_sweep_to_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_city(tmp_path, 300, 3)
    rows = (*USUAL, UNSURE)
    for place in ("product.open.LAYERS", "plan.layers.LAYERS", "plan.layers.USUAL"):
        monkeypatch.setattr(f"citycover.{place}", rows)
    monkeypatch.setattr(
        "citycover.product.folder.PRODUCT_FILES",
        {name for layer in rows for name in (layer.file, layer.style)}
        | {"landcover.tif.aux.xml", "run.json", "preview.png", "report.html", "item.json"},
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


ALL = ("probabilities", "entropy", "second", "margin")


def ask(folder: Path, out: str, model: str = "spectral-rgbn") -> citycover.MapRequest:
    engine = citycover.EngineOptions(window=160, precision="fp32", batch=1)
    imagery = citycover.Imagery((str(folder / "image.tif"),))
    return citycover.MapRequest(imagery, folder / out, model, engine=engine, layers=ALL)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with image.tif and product `out` of all layers."""
    folder = tmp_path_factory.mktemp("layers")
    write_city(folder, 600, 3)
    with rasterio.open(folder / "image.tif", "r+") as image:
        image.nodata = 0
        image.write(np.zeros((4, 50, 90), np.uint8), window=rasterio.windows.Window(200, 100, 90, 50))
    citycover.map_scene(ask(folder, "out"))
    return folder


def test_layers_on_request_agree_with_the_classes(mapped: Path) -> None:
    with citycover.open_product(mapped / "out") as product:
        assert tuple(product.data_vars) == ("classes", "confidence", *ALL)
        product.load()
    valid = product.classes.to_numpy() > 0
    assert (~valid).sum() == 50 * 90
    shares = product.probabilities.to_numpy()
    assert (shares[:, valid].sum(0, dtype=int) == 255).all() and (shares[:, ~valid] == 255).all()
    best = product["class"].to_numpy()[shares.argmax(0)]
    np.testing.assert_array_equal(best[valid], product.classes.to_numpy()[valid])
    for name in ("entropy", "margin"):
        assert ((product[name].to_numpy() == 255) == ~valid).all() and product[name].attrs[
            "_FillValue"
        ] == 255
    second = product.second.to_numpy()
    assert ((second == 0) == ~valid).all() and (second != product.classes.to_numpy())[valid].all()
    lead = np.sort(shares[:, valid].astype(int), axis=0)[-2:]
    assert np.abs(product.margin.to_numpy()[valid] / 254 - (lead[1] - lead[0]) / 255).max() < 6 / 255


def test_every_file_of_all_layers_is_valid(mapped: Path, validator: JsonSchemaSTACValidator) -> None:
    out = mapped / "out"
    item = pystac.Item.from_file(str(out / "item.json"))
    assert len(item.validate(validator)) == 1 + len(item.stac_extensions)
    card = read_record(out / "run.json").card
    assert [band["name"] for band in item.assets["probabilities"].extra_fields["bands"]] == [
        *card.channel_names
    ]
    assert len(item.assets["probabilities"].extra_fields["raster:bands"]) == len(card.channels)
    assert item.assets["second"].extra_fields["classification:classes"]
    for name in ("landcover", "confidence", *ALL):
        assert cog_validate(out / f"{name}.tif", strict=True) == (True, [], [])
    with rasterio.open(out / "probabilities.tif") as raster:
        assert raster.descriptions == card.channel_names


def test_a_run_that_was_ended_makes_the_same_layers(mapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MAX_BLOCK_HEIGHT", fit.CHUNK)
    monkeypatch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)

    def end(_block: Block) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        map_scene(ask(mapped, "resumed"), Watch(advanced=end))
    plain = dataclasses.replace(ask(mapped, "resumed"), layers=ALL[:1])
    with pytest.raises(ProductError, match="differs from this one in: layers"):
        map_scene(plain)
    assert map_scene(ask(mapped, "resumed")).run.resumed
    for path in (mapped / "out").glob("*.tif"):
        with rasterio.open(path) as one, rasterio.open(mapped / "resumed" / path.name) as two:
            np.testing.assert_array_equal(one.read(), two.read(), path.name)


def test_a_finished_product_of_other_layers_is_another_product(mapped: Path) -> None:
    with pytest.raises(FinishedError):
        map_scene(ask(mapped, "out"))
    with pytest.raises(ProductError, match="differs from this one in: layers"):
        map_scene(dataclasses.replace(ask(mapped, "out"), layers=()))
    both = citycover.ProductOptions(formats=("cog", "zarr"))
    with pytest.raises(ProductError, match="differs from this one in: format"):
        map_scene(dataclasses.replace(ask(mapped, "out"), product=both))


def test_a_lazy_map_has_all_layers(mapped: Path) -> None:
    image = rioxarray.open_rasterio(mapped / "image.tif")
    engine = citycover.EngineOptions(window=160, block=(250, 170), batch=1)
    found = citycover.predict_array(image, "spectral-rgbn", engine=engine, layers=ALL)
    with citycover.open_product(mapped / "out") as product:
        for name in product.data_vars:
            xr.testing.assert_identical(found[name].compute(), product[name].compute())
    with pytest.raises(ConfigError, match="no layer 'entropie'"):
        citycover.predict_array(image, "spectral-rgbn", layers=("entropie",))


def test_areas_are_the_same_wherever_they_are_said(mapped: Path) -> None:
    table = {row["name"]: row["area_m2"] for row in citycover.zonal_areas(mapped / "out").rows()}
    assert sum(table.values()) > 0
    there = {name: area for name, area in table.items() if area}
    assert citycover.Product.read(mapped / "out").areas() == pytest.approx(there)
    found = citycover.vectorize(mapped / "out", mapped / "areas.gpkg")
    assert found.square_metres == pytest.approx(sum(table.values()))
    report = (mapped / "out/report.html").read_text()
    assert all(f'<td class="n wide">{area:,.0f}</td>' in report for area in there.values())


class Several(torch.nn.Module):
    """Three classes, each there where its band is bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, :3].to(torch.float32) / 16 - 7


def test_a_pixel_of_several_classes_keeps_all_of_them(mapped: Path) -> None:
    group = BandGroup(bands=("red", "green", "blue", "nir"), dtypes=("uint8",))
    card = make_card(160, 8, 8, groups=(group,), legend=make_legend(3), task="labels")
    write_torchscript(torch.jit.script(Several()), card, mapped / "several.pt")
    run = map_scene(ask(mapped, "several", str(mapped / "several.pt"))).run
    assert set(run.shares) <= {"class 1", "class 2", "class 3"}
    with rasterio.open(mapped / "image.tif") as image, citycover.open_product(mapped / "several") as product:
        assert tuple(product.data_vars) == ("classes", "present", "confidence", *ALL)
        bands, valid = image.read()[:3], image.read_masks(1) > 0
        present = product.present.to_numpy()
        np.testing.assert_array_equal(present[:, valid], (bands >= 112)[:, valid])
        assert (present[:, ~valid] == 255).all() and (present[:, valid].sum(0) > 1).any()
        wanted = (
            torch.sigmoid(torch.from_numpy(bands[:, valid]).float() / 16 - 7).mul(255).clamp(max=254).numpy()
        )
        assert np.abs(product.probabilities.to_numpy()[:, valid] - wanted).max() < 0.6
    with rasterio.open(mapped / "several" / "labels.tif") as raster:
        assert raster.descriptions == ("class 1", "class 2", "class 3")
    areas = citycover.zonal_areas(mapped / "several")
    assert areas.total == pytest.approx(
        citycover.vectorize(mapped / "several", mapped / "s.fgb").square_metres
    )
    assert not citycover.compare(mapped / "several", mapped / "several").whole.changed
