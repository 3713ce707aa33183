"""What the benchmarks run on: two networks as model files, and a scene of any size."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window
from torch import Tensor, nn

from citycover.classes.legend import Legend, LegendClass
from citycover.model.card import BandGroup, ModelCard, WindowRule
from citycover.model.network import write_torchscript
from citycover.product.tiff import Tag, directory, read_tags
from citycover.synth.write import write_city
from citycover_models.export.margins import measure_margins

CLASSES = 7
TILE = 2048


class Cheap(nn.Module):
    """Stride-2 convolutions and a bilinear way back: 1 to 2 kFLOP a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, CLASSES, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x.float() / 255)
        return nn.functional.interpolate(y, scale_factor=4.0, mode="bilinear", align_corners=False)


def double(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU(), nn.Conv2d(cout, cout, 3, padding=1), nn.ReLU()
    )


class UNet(nn.Module):
    """Four poolings, about 100 kFLOP a pixel."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = [width * 2**k for k in range(5)]
        self.d0, self.d1, self.d2, self.d3, self.d4 = (
            double(a, b) for a, b in zip([4, *w[:4]], w, strict=True)
        )
        self.up3, self.up2, self.up1, self.up0 = (
            nn.ConvTranspose2d(w[k + 1], w[k], 2, 2) for k in (3, 2, 1, 0)
        )
        self.u3, self.u2, self.u1, self.u0 = (double(2 * w[k], w[k]) for k in (3, 2, 1, 0))
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.d0(x.float() / 255)
        b = self.d1(nn.functional.max_pool2d(a, 2))
        c = self.d2(nn.functional.max_pool2d(b, 2))
        d = self.d3(nn.functional.max_pool2d(c, 2))
        y = self.up3(self.d4(nn.functional.max_pool2d(d, 2)))
        y = self.u3(torch.cat([y, d], 1))
        y = self.u2(torch.cat([self.up2(y), c], 1))
        y = self.u1(torch.cat([self.up1(y), b], 1))
        y = self.u0(torch.cat([self.up0(y), a], 1))
        return self.head(y)


def write_network(kind: str, path: Path) -> Path:
    """`cheap` or `unet` with random weights, as a model file."""
    torch.manual_seed(0)
    network, trim, feather, stride = (Cheap(), 8, 8, 4) if kind == "cheap" else (UNet(), 80, 16, 16)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    classes = tuple(
        LegendClass(id=k + 1, name=f"class {k + 1}", color=f"#{k * 30:02x}8040") for k in range(CLASSES)
    )
    card = ModelCard(
        name=kind,
        groups=(BandGroup(bands=("red", "green", "blue", "nir"), dtypes=("uint8",), fill=(90, 90, 90, 90)),),
        window=WindowRule(size=1200, multiple=16, maximum=4096),
        stride=stride,
        trim=trim,
        feather=feather,
        legend=Legend(name=kind, nodata=0, classes=classes),
    )
    with torch.inference_mode():  # trim and feather as an export would measure them
        margins = measure_margins(network.eval(), card)
    write_torchscript(torch.jit.script(network), margins.on(card) if margins else card, path)
    return path


def write_scene(folder: Path, size: int, bands: int = 4) -> Path:
    """The synthetic city of 2048 x 2048, repeated to `size`; written once, tiled ZSTD."""
    path = folder / f"scene-{size}{f'-{bands}-bands' if bands != 4 else ''}.tif"
    if path.exists():
        return path
    city = folder / "city" / "image.tif"
    if not city.exists():
        write_city(city.parent, TILE, 0)
    with rasterio.open(city) as dataset:
        tile = dataset.read(range(1, bands + 1))
    profile = {
        "driver": "GTiff", "height": size, "width": size, "count": bands, "dtype": "uint8", "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "zstd", "zstd_level": 1, "interleave": "pixel",
        "crs": "EPSG:32633", "transform": Affine(1, 0, 400_000, 0, -1, 5_800_000), "bigtiff": "if_safer",
    }  # fmt: skip
    part = path.with_suffix(".part.tif")
    with rasterio.open(part, "w", **profile) as dataset:
        for index, name in enumerate(("red", "green", "blue", "nir")[:bands], start=1):
            dataset.set_band_description(index, name)
        wide = np.tile(tile, (1, 1, -(-size // TILE)))[:, :, :size]
        for row in range(0, size, TILE):
            rows = min(TILE, size - row)
            dataset.write(wide[:, :rows], window=Window(0, row, size, rows))
    part.rename(path)
    return path


def write_repeated(folder: Path, size: int, bands: int = 4) -> Path:
    """The same picture as `write_scene`, of any size at once: its tiles are stored once and named many times.

    They are decoded as often as they are named; only reading them from a disk costs less than it would.
    """
    path = folder / f"repeated-{size}-{bands}-bands.tif"
    content = write_scene(folder, TILE, bands).read_bytes()
    kept = {tag.code: tag for tag in read_tags(content)}
    offsets, lengths = (np.frombuffer(kept[code].data, "<u4").reshape(4, 4) for code in (324, 325))
    places = np.arange(-(-size // 512)) % 4
    rows, cols = places[:, None], places[None, :]
    count = len(places) ** 2
    tags = kept | {
        256: Tag(256, 4, 1, struct.pack("<I", size)),
        257: Tag(257, 4, 1, struct.pack("<I", size)),
        324: Tag(324, 16, count, (offsets[rows, cols].astype("<u8") + 16).tobytes()),
        325: Tag(325, 4, count, lengths[rows, cols].astype("<u4").tobytes()),
    }
    at = 16 + len(content) + len(content) % 2
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, at)
    end = directory([tags[code] for code in sorted(tags)], at, big=True, last=True)
    path.write_bytes(head + content.ljust(at - 16, b"\0") + end)
    return path
