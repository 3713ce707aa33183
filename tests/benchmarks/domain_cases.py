"""What adaptation is measured on: a source with labels, a target without, and the target's truth.

Practice: two cities of other seeds. LoveCS sees the first by one camera at 1 m and the second by another,
with a gain and gamma of its own, more blur, and pixels of 1.25 m. DASPM sees the first at 2 m and the second,
averaged, at 10 m; in `cameras` the second by the other camera.

Real: `naip` is one place in two years by an aerial camera, 5 m; classes come from the near infrared of each
year, which no network is shown. `regions` are two cities drawn by different hands: Czech orthophotos taken as
0.3 m, a tile of Dubai taken as 1 m. `sheets` are two Czech towns, averaged to 2 m and 10 m, for DASPM.

The rule that trusts the target by light (`methods/trust.py`) was found on practice cities, `naip`, `regions`
and `naip-back`; `towns` (those two, both at 2 m), `regions-east` and `regions-back` came afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import accuracy_cases
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from citycover.synth.write import write_city

_OTHER = 1000
"""Added to a seed: the target is another city."""

_CRS = "EPSG:32633"

_CLASSES = ("building", "road", "vegetation", "water")


@dataclass(frozen=True, slots=True)
class Domains:
    """One pair of places."""

    image: Path
    """Of the source."""
    labels: Path
    target: Path
    truth: Path
    """Of the target, on the grid of what is mapped, or a finer one."""
    legend: str = "city"
    """Of labels and truth: a built-in name or a file."""
    beside: tuple[tuple[Path, Path], ...] = ()
    """Further images of the source, with their labels."""


def second_camera(folder: Path, _data: Path | None, seed: int, size: int = 512) -> Domains:
    """Practice cities by two cameras."""
    source, target = _cities(folder, seed, size)
    return Domains(
        source / "image.tif", source / "truth.tif", target / "sensor_b" / "image.tif", target / "truth.tif"
    )


def five_times_coarser(folder: Path, _data: Path | None, seed: int, size: int = 1280) -> Domains:
    """Practice cities at 2 m and 10 m."""
    source, target = _cities(folder, seed, size)
    return Domains(
        averaged(source / "image.tif", source / "image_2m.tif", 2),
        sampled(source / "truth.tif", source / "truth_2m.tif", 2),
        averaged(target / "image.tif", target / "image_10m.tif", 10),
        sampled(target / "truth.tif", target / "truth_2m.tif", 2),
    )


def coarser_camera(folder: Path, _data: Path | None, seed: int, size: int = 1280) -> Domains:
    """Practice cities at 2 m by one camera, and at 10 m by another: eight of its pixels in one."""
    source, target = _cities(folder, seed, size)
    return Domains(
        averaged(source / "image.tif", source / "image_2m.tif", 2),
        sampled(source / "truth.tif", source / "truth_2m.tif", 2),
        averaged(target / "sensor_b" / "image.tif", target / "other_10m.tif", 8),
        sampled(target / "truth.tif", target / "truth_2m.tif", 2),
    )


def _cities(folder: Path, seed: int, size: int) -> tuple[Path, Path]:
    places = folder / f"{seed}-{size}", folder / f"{seed + _OTHER}-{size}"
    for place, number in zip(places, (seed, seed + _OTHER), strict=True):
        if not (place / "truth.tif").is_file():
            write_city(place, size, number, second_sensor=True)
    return places


def naip(folder: Path, data: Path | None, _seed: int) -> Domains:
    """One place in 2009 and in 2012: red, green and blue; truth by the near infrared."""
    assert data is not None, "asked for by whoever has the data"
    made = []
    for day in ("20090818", "20120731"):
        with rasterio.open(data / "vhr" / "naip_nd_series" / f"m_4709963_se_14_1_{day}.tif") as file:
            pixels, place, crs = file.read(), file.transform, file.crs
        image, truth = folder / f"naip-{day}.tif", folder / f"naip-{day}-truth.tif"
        _write(image, pixels[:3], place, crs=crs, nodata=0, names=("red", "green", "blue"))
        _write(truth, by_infrared(pixels)[None], place, crs=crs, nodata=255)
        made.append((image, truth))
    legend = accuracy_cases._legend(folder / "naip.toml", ("water", "sparse", "green"))
    (image, labels), (target, truth) = made
    return Domains(image, labels, target, truth, legend)


def naip_back(folder: Path, data: Path | None, seed: int) -> Domains:
    """From 2012 to 2009."""
    there = naip(folder, data, seed)
    return Domains(there.target, there.truth, there.image, there.labels, there.legend)


def by_infrared(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ids (y, x) of (band, y, x) red, green, blue and near infrared: water 0, sparse 1, green 2, unknown 255.

    Water is darker in the near infrared than in green light; green has a vegetation index above 0.2. What
    lies within 0.03 of a threshold is not known.
    """
    red, green, _, infrared = pixels.astype(np.float64)
    water = (green - infrared) / np.maximum(green + infrared, 1)
    index = (infrared - red) / np.maximum(infrared + red, 1)
    ids = np.where(water > 0, 0, np.where(index > 0.2, 2, 1))
    unsure = (np.abs(water) < 0.03) | ((water <= 0) & (np.abs(index - 0.2) < 0.03))
    return np.where(unsure | ~pixels.any(0), 255, ids).astype(np.uint8)


def regions(folder: Path, data: Path | None, _seed: int, part: tuple[int, int] = (900, 900)) -> Domains:
    """Czech towns at 0.3 m, a part of Dubai at 1 m; classes that both have."""
    czech, dubai, legend = _czech_and_dubai(folder, data)
    ending = "" if part == (900, 900) else f"-{part[0]}-{part[1]}"
    target, truth = (folder / f"regions-{name}{ending}.tif" for name in ("target", "truth"))
    _both(dubai, target, truth, part, 384, _DUBAI)
    return Domains(Path(czech.image), Path(czech.truth), target, truth, legend)


def regions_with_bare(
    folder: Path, data: Path | None, seed: int, part: tuple[int, int] = (900, 900)
) -> Domains:
    """As `regions`, with all five classes that both have; a second town shows bare ground."""
    pair = regions(folder, data, seed, part)
    assert data is not None, "asked for by whoever has the data"
    _, dubai, _ = _czech_and_dubai(folder, data)
    ending = f"bare-{part[0]}-{part[1]}"
    target, truth = (folder / f"regions-{name}-{ending}.tif" for name in ("target", "truth"))
    _both(dubai, target, truth, part, 384, _DUBAI | {1: 4})
    fields = czech_sheet(folder, data, "VYSK301", (4, 4), 2, gsd=0.3)
    legend = accuracy_cases._legend(folder / "sheets.toml", (*_CLASSES, "bare"))
    return Domains(pair.image, pair.labels, target, truth, legend, beside=(fields,))


def regions_back(folder: Path, data: Path | None, _seed: int) -> Domains:
    """From Dubai at 1 m to a part of a Czech town at 0.3 m."""
    czech, dubai, legend = _czech_and_dubai(folder, data)
    image, labels, target, truth = (folder / f"regions-back-{number}.tif" for number in range(4))
    _both(dubai, image, labels, (300, 300), 1024, _DUBAI)
    _both(czech, target, truth, (0, 0), 768, {number: number for number in range(len(_CLASSES))})
    return Domains(image, labels, target, truth, legend)


_DUBAI = {0: 0, 2: 1, 3: 2, 4: 3}
"""Dubai's building, land, road, vegetation, water in Czech classes; no land there."""


def _czech_and_dubai(folder: Path, data: Path | None) -> tuple[accuracy_cases.Case, accuracy_cases.Case, str]:
    assert data is not None, "asked for by whoever has the data"
    czech, dubai = (make(folder, data) for make in (accuracy_cases.czech, accuracy_cases.dubai))
    return czech, dubai, accuracy_cases._legend(folder / "regions.toml", _CLASSES)


def _both(
    case: accuracy_cases.Case,
    image: Path,
    truth: Path,
    first: tuple[int, int],
    side: int,
    names: Mapping[int, int],
) -> None:
    """A square of a case's image and of its truth, from a first row and column on."""
    part = slice(first[0], first[0] + side), slice(first[1], first[1] + side)
    _cut(Path(case.image), image, part, {})
    _cut(Path(case.truth), truth, part, names)


def _cut(source: Path, out: Path, part: tuple[slice, slice], names: Mapping[int, int]) -> None:
    """A part of a raster; ids are renamed where there are names, and unknown without one."""
    with rasterio.open(source) as file:
        pixels, place, nodata = file.read()[:, part[0], part[1]], file.transform, file.nodata
    if names:
        renamed = np.full_like(pixels, 255)
        for old, new in names.items():
            renamed[pixels == old] = new
        pixels = renamed
    moved = place * Affine.translation(part[1].start, part[0].start)
    _write(out, pixels, moved, nodata=nodata, names=("red", "green", "blue") if len(pixels) == 3 else None)


def sheets(folder: Path, data: Path | None, _seed: int) -> Domains:
    """Two Czech sheets of 0.4 m as taken: one averaged to 2 m, the other to 10 m."""
    assert data is not None, "asked for by whoever has the data"
    fine, labels = czech_sheet(folder, data, "VYSK301", (4, 4), 5)
    _, truth = czech_sheet(folder, data, "MKRU491", (5, 5), 5)
    coarse, _ = czech_sheet(folder, data, "MKRU491", (5, 5), 25)
    legend = accuracy_cases._legend(folder / "sheets.toml", (*_CLASSES, "bare"))
    return Domains(fine, labels, coarse, truth, legend)


def towns(folder: Path, data: Path | None, _seed: int) -> Domains:
    """The same two towns, both averaged to 2 m: one camera, another place."""
    assert data is not None, "asked for by whoever has the data"
    (image, labels), (target, truth) = (
        czech_sheet(folder, data, name, shape, 5)
        for name, shape in (("VYSK301", (4, 4)), ("MKRU491", (5, 5)))
    )
    legend = accuracy_cases._legend(folder / "sheets.toml", (*_CLASSES, "bare"))
    return Domains(image, labels, target, truth, legend)


def czech_sheet(
    folder: Path, data: Path, name: str, shape: tuple[int, int], factor: int, gsd: float | None = None
) -> tuple[Path, Path]:
    """A joined sheet and its classes, in pixels so many times a chip's, or of so many metres."""
    place = data / "hr" / "czech_ortho"
    colours = {"ffe132": 0, "6d32ff": 1, "ff8c00": 1, "32ffa7": 2, "32a7ff": 3, "a67556": 4}
    numbers = [[f"{name}_{shape[1] * row + col}" for col in range(shape[1])] for row in range(shape[0])]
    rgb, ids = (
        np.vstack([np.hstack([read(n) for n in row]) for row in numbers])
        for read in (
            lambda n: accuracy_cases._rgb(place / "images" / f"{n}.jpg"),
            lambda n: accuracy_cases._rim(
                accuracy_cases._ids(accuracy_cases._rgb(place / "masks" / f"{n}.png"), colours), 2
            ),
        )
    )
    side = factor * (min(rgb.shape[:2]) // 25 * 25 // factor)
    cells = rgb[:side, :side].reshape(side // factor, factor, side // factor, factor, 3)
    image, classes = folder / f"{name}-{factor}.tif", folder / f"{name}-{factor}-truth.tif"
    pixel = gsd or 0.4 * factor
    transform = Affine(pixel, 0, 500_000, 0, -pixel, 5_400_000)
    mean = cells.mean((1, 3)).round().astype(np.uint8)
    _write(image, np.moveaxis(mean, -1, 0), transform, names=("red", "green", "blue"))
    middle = slice(factor // 2, side, factor)
    _write(classes, ids[middle, middle][None], transform, nodata=255)
    return image, classes


def averaged(image: Path, out: Path, factor: int) -> Path:
    """The image in pixels so many times as large."""
    with rasterio.open(image) as file:
        pixels, place, names, crs = file.read(), file.transform, file.descriptions, file.crs
    bands, height, width = pixels.shape
    cells = pixels.reshape(bands, height // factor, factor, width // factor, factor)
    mean = cells.mean((2, 4)).round().astype(np.uint8)
    return _write(out, mean, place * Affine.scale(factor), crs=crs, names=names)


def sampled(classes: Path, out: Path, factor: int) -> Path:
    """Classes at the middles of pixels so many times as large."""
    with rasterio.open(classes) as file:
        pixels, place, crs, nodata = file.read(), file.transform, file.crs, file.nodata
    middles = pixels[:, factor // 2 :: factor, factor // 2 :: factor]
    return _write(out, middles, place * Affine.scale(factor), crs=crs, nodata=nodata)


def _write(
    path: Path,
    pixels: NDArray[np.uint8],
    transform: Affine,
    *,
    crs: object = _CRS,
    nodata: float | None = None,
    names: tuple[str, ...] | None = None,
) -> Path:
    accuracy_cases._write(path, pixels, transform, crs=crs, nodata=nodata)
    if names:
        accuracy_cases._name_bands(str(path), names)
    return path


CASES: dict[str, dict[str, Callable[[Path, Path | None, int], Domains]]] = {
    "lovecs": {
        "practice": second_camera,
        "naip": naip,
        "regions": regions,
        "naip-back": naip_back,
        "towns": towns,
        "regions-east": partial(regions, part=(300, 1400)),
        "regions-back": regions_back,
        "regions-bare": regions_with_bare,
        "regions-bare-east": partial(regions_with_bare, part=(300, 1400)),
    },
    "daspm": {"practice": five_times_coarser, "cameras": coarser_camera, "sheets": sheets},
}
"""By system and name: folder for what is made, folder of the data, seed."""

PRACTICE = ("practice", "cameras")
"""Cases that need no data."""
