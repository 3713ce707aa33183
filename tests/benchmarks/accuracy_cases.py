"""What accuracy is measured on: practice cities, and real imagery whose labels were made coarse.

A case is an image with coarse labels to learn from and a finer truth to be measured by. Real truths are land
cover products themselves: what is measured is how much of their detail comes back from their coarse copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from citycover.synth.write import write_city
from citycover_models.data.pairs import ImageAndLabels


@dataclass(frozen=True)
class Case:
    """One place."""

    name: str
    learn: tuple[ImageAndLabels, ...]
    image: str
    """What is mapped."""
    coarse: str
    """The coarse labels of what is mapped: the figure to beat."""
    truth: str
    codes: str
    """Legend of coarse labels and truth: a built-in name or a file."""
    to: str | None
    """Legend that is learned and compared in."""
    changes: dict[str, object] = field(default_factory=dict)
    """Of the recipe."""


def city(folder: Path, seed: int, size: int = 2048) -> Case:
    """A practice city with its 10 m labels."""
    place = folder / f"city-{seed}-{size}"
    if not (place / "truth.tif").is_file():
        write_city(place, size, seed)
    image, coarse, truth = (str(place / n) for n in ("image.tif", "labels_10m.tif", "truth.tif"))
    return Case("city", (ImageAndLabels(image, (coarse,)),), image, coarse, truth, "city", None)


def zion(folder: Path, data: Path) -> Case:
    """Landsat 8 at 30 m; NLCD made coarse by the majority of 8 x 8."""
    pair = data / "pairs" / "zion_landsat_nlcd"
    image = _stack(folder / "zion.tif", [pair / f"landsat_b{n}.tif" for n in (4, 3, 2, 5)])
    truth = str(pair / "nlcd2011.tif")
    coarse = _coarsen(Path(truth), folder / "zion-coarse.tif", 8)
    learn = (ImageAndLabels(image, (coarse,)),)
    return Case("zion_landsat_nlcd", learn, image, coarse, truth, "nlcd", "base4")


def sentinel2(folder: Path, data: Path) -> Case:
    """Sentinel-2 at 60 m; the scene classification made coarse by the majority of 6 x 6."""
    tile = data / "s2" / "s2_safe_29UNU"
    files = [next(tile.rglob(f"*_{band}_60m.jp2")) for band in ("B04", "B03", "B02", "B8A")]
    image = _stack(folder / "s2.tif", files, nodata=0)
    source = next(tile.rglob("*_SCL_60m.jp2"))
    truth = _coarsen(source, folder / "s2-truth.tif", 1, nodata=0)
    coarse = _coarsen(source, folder / "s2-coarse.tif", 6, nodata=0)
    return Case("s2_safe_29UNU", (ImageAndLabels(image, (coarse,)),), image, coarse, truth, "scl", None)


def buildings(folder: Path, data: Path) -> Case:
    """A drone mosaic averaged to 0.3 m; hand-drawn buildings made coarse to 5 m."""
    pair = data / "pairs" / "oam_buildings_z21"
    image = folder / "oam.tif"
    with rasterio.open(pair / "oam_z21_block0.tif") as source:
        values, seen = source.read([1, 2, 3]).astype(np.float64), source.dataset_mask() > 0
        shape = (source.height // 4, source.width // 4)
        cut = (slice(0, shape[0] * 4), slice(0, shape[1] * 4))
        mean = values[:, cut[0], cut[1]].reshape(3, shape[0], 4, shape[1], 4).mean((2, 4))
        whole = seen[cut].reshape(shape[0], 4, shape[1], 4).all((1, 3))
        transform = source.transform * Affine.scale(4)
        profile = {
            "driver": "GTiff", "height": shape[0], "width": shape[1], "count": 3, "dtype": "uint8",
            "crs": source.crs, "transform": transform, "photometric": "rgb",
        }  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(image, "w", **profile) as sink:
        sink.write(mean.round().astype(np.uint8))
        sink.write_mask(whole)
    truth = _coarsen(pair / "oam_z21_block0_buildings.tif", folder / "oam-truth.tif", 4)
    # 5 m on the ground: pixels of 0.0746 m in Web Mercator are smaller there, by the cosine of the latitude.
    ground = _metres(pair / "oam_z21_block0_buildings.tif")
    coarse = _coarsen(
        pair / "oam_z21_block0_buildings.tif", folder / "oam-coarse.tif", max(8, round(5 / ground))
    )
    legend = folder / "buildings.toml"
    legend.write_text(
        'nodata = 255\n[[classes]]\nid = 0\nname = "other"\ncolor = "#9bcf6b"\n'
        '[[classes]]\nid = 1\nname = "building"\ncolor = "#d1453b"\n'
    )
    return Case(
        "oam_buildings_z21", (ImageAndLabels(str(image), (coarse,)),), str(image), coarse, truth, str(legend),
        None, {"chip": 64},
    )  # fmt: skip


def ontario(folder: Path, data: Path, held_out: int) -> Case:
    """Landsat blocks of 256 x 256; three to learn from with labels made coarse 4 x 4, one to be measured by.

    The blocks carry no georeference: theirs is made up, one after the other.
    """
    blocks = sorted((data / "pairs" / "ontario_landsat_dem13").glob("*.npz"))
    items: list[tuple[str, str, str]] = []
    for number, block in enumerate(blocks):
        arrays = np.load(block)
        transform = Affine(30, 0, 500_000 + number * 20_000, 0, -30, 5_400_000)
        valid = arrays["valid"] & (arrays["image"] > -1000).all(0)
        pixels = np.where(valid, arrays["image"], np.nan).astype(np.float32)
        image = _write(folder / f"ontario-{number}.tif", pixels, transform, nodata=float("nan"))
        label = np.where(arrays["valid"], arrays["label"], 0).astype(np.uint8)
        truth = _write(folder / f"ontario-truth-{number}.tif", label[None], transform, nodata=0)
        items.append((image, _coarsen(Path(truth), folder / f"ontario-coarse-{number}.tif", 4), truth))
    legend = folder / "ontario.toml"
    classes = "".join(
        f'[[classes]]\nid = {k}\nname = "code {k}"\ncolor = "#{k * 16:02x}{255 - k * 16:02x}80"\n'
        for k in range(1, 16)
    )
    legend.write_text("nodata = 0\n" + classes)
    out = held_out % len(items)
    learn = tuple(ImageAndLabels(i, (c,)) for k, (i, c, _) in enumerate(items) if k != out)
    image, coarse, truth = items[out]
    return Case("ontario_landsat_dem13", learn, image, coarse, truth, str(legend), None, {"chip": 64})


_RGBN = ("red", "green", "blue", "nir")


def _stack(path: Path, files: list[Path], nodata: float | None = None) -> str:
    """Bands in files of their own into one image: red, green, blue, near infrared."""
    with rasterio.open(files[0]) as first:
        profile = {
            "driver": "GTiff", "height": first.height, "width": first.width, "count": len(files),
            "dtype": first.dtypes[0], "crs": first.crs, "transform": first.transform,
            "nodata": first.nodata if nodata is None else nodata, "tiled": True, "compress": "zstd",
        }  # fmt: skip
    with rasterio.open(path, "w", **profile) as sink:
        for index, (file, name) in enumerate(zip(files, _RGBN, strict=True), start=1):
            with rasterio.open(file) as source:
                sink.write(source.read(1), index)
            sink.set_band_description(index, name)
    return str(path)


def _coarsen(source: Path, path: Path, factor: int, nodata: int | None = None) -> str:
    """The most frequent code of each square; nodata does not vote."""
    with rasterio.open(source) as labels:
        codes, transform, crs = labels.read(1), labels.transform, labels.crs
        nodata = labels.nodata if nodata is None else nodata
    height, width = (-(-n // factor) for n in codes.shape)
    best = np.full((height, width), 0 if nodata is None else nodata, codes.dtype)
    most = np.zeros((height, width), np.int64)
    for code in np.unique(codes):
        if code == nodata:
            continue
        votes = np.zeros((height * factor, width * factor), np.int64)
        votes[: codes.shape[0], : codes.shape[1]] = codes == code
        count = votes.reshape(height, factor, width, factor).sum((1, 3))
        best[count > most] = code
        most = np.maximum(most, count)
    return _write(path, best[None], transform * Affine.scale(factor), crs=crs, nodata=nodata)


def _write(
    path: Path, pixels: NDArray[np.generic], transform: Affine, *, crs: object = "EPSG:32616", nodata: object
) -> str:
    profile = {
        "driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2],
        "dtype": pixels.dtype.name, "crs": crs, "transform": transform, "nodata": nodata,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(pixels)
    return str(path)


def _metres(path: Path) -> float:
    from citycover.geometry.grid import ground_sample_distance
    from citycover.scene.assemble import describe_scene

    return ground_sample_distance(describe_scene([path], None).grid)


CASES: dict[str, Callable[[Path, Path, int], Case]] = {
    "city": lambda folder, _data, seed: city(folder, seed),
    "zion": lambda folder, data, _seed: zion(folder, data),
    "s2": lambda folder, data, _seed: sentinel2(folder, data),
    "buildings": lambda folder, data, _seed: buildings(folder, data),
    "ontario": ontario,
}


def band_numbers(case: Case) -> list[str] | None:
    """Bands to learn from where they have no colour names: all of them."""
    if "ontario" not in case.name:
        return None
    with rasterio.open(case.image) as source:
        return [str(index) for index in source.indexes]
