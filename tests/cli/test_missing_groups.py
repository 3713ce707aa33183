"""A band group that a scene does not have: refused, or filled where the card of the network allows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import write_scene
from torch import Tensor, nn

from citycover.model.card import ModelCard
from citycover.model.network import write_torchscript

OPTIONS = ("--device", "cpu", "--precision", "fp32", "--window", "64")


class Fusion(nn.Module):
    """Colours of 1 m and radar of 2 m, pixel by pixel."""

    def forward(self, colours: Tensor, radar: Tensor) -> Tensor:
        coarse = radar.float().repeat_interleave(2, 2).repeat_interleave(2, 3)
        fine = colours.float() / 40
        return torch.cat([fine[:, :1] + coarse[:, :1], fine[:, 1:2] - coarse[:, 1:2], fine[:, 2:3]], 1)


def write_fusion(path: Path, missing: str = "fill", fill: tuple[float, float] = (1.5, -2.0)) -> Path:
    radar: dict[str, Any] = {"name": "radar", "bands": ["VV", "VH"], "dtypes": ["float32"], "ratio": 2}
    card = {
        "name": "fusion",
        "groups": [
            {"bands": ["red", "green", "blue"], "dtypes": ["uint8"], "fill": [9, 9, 9]},
            radar | {"fill": fill, "missing": missing},
        ],
        "window": {"size": 64, "multiple": 8},
        "trim": 4,
        "feather": 4,
        "stride": 4,
        "legend": "landcover5",
        "channels": [1, 2, 5],
    }
    write_torchscript(torch.jit.script(Fusion()), ModelCard.model_validate(card), path)
    return path


def write_radar(path: Path, numbers: tuple[float, ...] = (1.5, -2.0), bands: int = 2) -> Path:
    values = np.ones((bands, 45, 60)) * np.array(numbers[:bands])[:, None, None]
    at = Affine(2, 0, 500_000, 0, -2, 5_800_000)
    names = ("VV", "VH")[:bands]
    return write_scene(
        path, (45, 60), bands, values=values, dtype="float32", transform=at, descriptions=names
    )


def layers(folder: Path) -> list[np.ndarray]:
    found = []
    for name in ("landcover", "confidence"):
        with rasterio.open(folder / f"{name}.tif") as file:
            found.append(file.read(1))
    return found


def test_a_group_that_is_missing_is_mapped_as_if_its_fill_lay_everywhere(citycover, tmp_path: Path) -> None:
    model, colours = write_fusion(tmp_path / "f.pt"), write_scene(tmp_path / "a.tif", bands=3)
    with_radar = (colours, write_radar(tmp_path / "a_radar.tif"))
    for name, files, words in (
        ("all", with_radar, ()),
        ("less", (colours,), ()),
        ("named", (colours,), ("--bands", "red,green,blue")),
        ("there", (colours,), ("--workers", "2")),
        ("turned", (colours,), ("--tta", "flips")),
    ):
        done = citycover("map", *files, "--model", model, "-o", tmp_path / name, *OPTIONS, *words)
        assert done.code == 0, done.err
        told = "nothing in the scene answers to bands of radar (1.5, -2)" in done.err
        assert told == (name != "all"), done.err
    for name in ("less", "named", "there"):
        for one, other in zip(layers(tmp_path / name), layers(tmp_path / "all"), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(layers(tmp_path / "turned")[0], layers(tmp_path / "all")[0])
    run = json.loads((tmp_path / "less" / "run.json").read_text())
    assert run["filled"] == ["radar (1.5, -2)"] and "made to do without them" in run["warnings"][0]
    assert json.loads((tmp_path / "all" / "run.json").read_text())["filled"] == []
    told = citycover("inspect", tmp_path / "less")
    assert "radar (1.5, -2): filled" in told.out
    other = citycover("map", *with_radar, "--model", model, "-o", tmp_path / "less", *OPTIONS)
    assert other.code == 2 and "another" in other.err, other.err


def test_dates_of_a_scene_may_lack_it_too(citycover, tmp_path: Path) -> None:
    model = write_fusion(tmp_path / "f.pt")
    dates = [write_scene(tmp_path / f"a_2024050{n}.tif", bands=3) for n in (1, 2)]
    for name, files, words in (
        ("one", dates[:1], ()),
        ("mean", dates, ("--composite", "mean-probability")),
        ("best", dates, ("--composite", "best")),
    ):
        done = citycover("map", *files, "--model", model, "-o", tmp_path / name, *OPTIONS, *words)
        assert done.code == 0, done.err
        for one, other in zip(layers(tmp_path / name), layers(tmp_path / "one"), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_plan_reads_only_what_is_there(citycover, tmp_path: Path) -> None:
    model, colours = write_fusion(tmp_path / "f.pt"), write_scene(tmp_path / "a.tif", bands=3)
    plans = []
    for files in ((colours,), (colours, write_radar(tmp_path / "a_radar.tif"))):
        done = citycover("plan", *files, "--model", model, *OPTIONS, "--no-probe", "--json")
        assert done.code == 0, done.err
        plans.append(json.loads(done.out))
    assert [plan["filled"] for plan in plans] == [["radar (1.5, -2)"], []]
    assert plans[1]["read_bytes"] - plans[0]["read_bytes"] == 45 * 60 * 2 * 4


@pytest.mark.parametrize(
    ("missing", "bands", "said"),
    [
        ("refuse", 0, "nothing answers to VV, VH"),
        ("refuse", 1, "nothing answers to VH"),
        ("fill", 1, "nothing answers to VH"),
    ],
)
def test_what_the_card_does_not_allow_is_refused(
    citycover, tmp_path: Path, missing: str, bands: int, said: str
) -> None:
    files = [write_scene(tmp_path / "a.tif", bands=3)]
    files += [write_radar(tmp_path / "a_radar.tif", bands=1)] if bands else []
    model = write_fusion(tmp_path / "f.pt", missing)
    done = citycover("map", *files, "--model", model, "-o", tmp_path / "out", *OPTIONS)
    assert done.code == 2 and said in done.err and not (tmp_path / "out").exists(), done.err


def test_several_networks_fill_alike_or_refuse(citycover, tmp_path: Path) -> None:
    colours = write_scene(tmp_path / "a.tif", bands=3)
    one, same = (write_fusion(tmp_path / f"{n}.pt") for n in "ab")
    other = write_fusion(tmp_path / "c.pt", fill=(0, 0))
    done = citycover("map", colours, "--model", one, "--model", same, "-o", tmp_path / "x", *OPTIONS)
    assert done.code == 0, done.err
    done = citycover("map", colours, "--model", one, "--model", other, "-o", tmp_path / "y", *OPTIONS)
    assert done.code == 2 and "nothing answers to VV, VH" in done.err, done.err


def test_the_finest_group_cannot_be_missing() -> None:
    facts = {
        "name": "f",
        "groups": [{"bands": ["red"], "dtypes": ["uint8"], "missing": "fill"}],
        "window": {"size": 64},
        "trim": 0,
        "feather": 0,
        "legend": "landcover5",
    }
    with pytest.raises(ValueError, match="it cannot be missing"):
        ModelCard.model_validate(facts)
