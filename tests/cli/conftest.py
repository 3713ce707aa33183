"""Small scenes on disk, and a way to run the command line inside the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from citycover_cli.app import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def citycover(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line; a traceback would fail the test, as only SystemExit is caught."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


def write_scene(path: Path, shape: tuple[int, int] = (90, 120), bands: int = 4, **changes: Any) -> Path:
    """A random georeferenced image with named bands: red, green, blue, nir."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": bands,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": Affine(1, 0, 500_000, 0, -1, 5_800_000),
    }
    descriptions = changes.pop("descriptions", ("red", "green", "blue", "nir")[:bands])
    values = changes.pop("values", None)
    profile |= changes
    if values is None:
        rng = np.random.default_rng(1)
        smooth = rng.integers(30, 220, (bands, shape[0] // 8 + 1, shape[1] // 8 + 1))
        values = smooth.repeat(8, 1).repeat(8, 2)[:, : shape[0], : shape[1]]
        values = values + rng.integers(0, 20, values.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values.astype(profile["dtype"]))
        for index, name in enumerate(descriptions, start=1):
            dataset.set_band_description(index, name)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "scene.tif")


_CARD = """
name = "smooth"
trim = 4
feather = 4
stride = 4
[[groups]]
bands = ["red", "green", "blue", "nir"]
dtypes = ["uint8"]
[window]
size = 64
multiple = 4
maximum = 512
[legend]
name = "two"
nodata = 0
classes = [{id = 1, name = "one", color = "#112233"}, {id = 2, name = "two", color = "#445566"}]
"""


class _Smooth(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x[:, :2].float() / 255, 3, 1, 1)


@pytest.fixture
def small_windows(citycover, tmp_path: Path) -> Path:
    """A model file whose windows are so small that a scene of a test is worth trials."""
    torch.jit.script(_Smooth()).save(tmp_path / "net.pt")
    (tmp_path / "card.toml").write_text(_CARD)
    model = tmp_path / "model.pt"
    given = ("--torchscript", tmp_path / "net.pt", "--card", tmp_path / "card.toml", "-o", model)
    assert citycover("export", *given).code == 0
    return model


def write_map(folder: Path, shape: tuple[int, int]) -> Path:
    """A product of all usual layers and probabilities, COGs and Zarr, as a run leaves it."""
    from citycover.job.request import EngineOptions, Imagery, MapRequest, ProductOptions
    from citycover.run.map import map_scene

    scene = write_scene(folder / "scene.tif", shape)
    map_scene(
        MapRequest(
            Imagery((str(scene),)), folder / "city", "spectral-rgbn", layers=("probabilities",),
            engine=EngineOptions(window=256, batch=1, precision="fp32", threads=1),
            product=ProductOptions(formats=("cog", "zarr")),
        )
    )  # fmt: skip
    return folder / "city"
