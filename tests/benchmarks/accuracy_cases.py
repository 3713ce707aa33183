"""What accuracy is measured on: practice cities, and real imagery whose labels were made coarse.

A case is an image, the coarse labels of that very place, and a finer truth to be measured by. Real truths are
land-cover products or hand-drawn masks: what is measured is how much of their detail comes back from their
coarse copy. A *variant* of a case changes its labels: as they are, with 20 % of their cells redrawn, or
shifted by half a cell.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import rasterio
import rasterio.features
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from citycover.synth.write import write_city

VARIANTS = ("clean", "noise", "shift")
_REDRAWN = 0.2
"""Share of the cells that the noise draws anew."""


@dataclass(frozen=True)
class Case:
    """One place."""

    name: str
    image: str
    """What is learned from and mapped."""
    coarse: str
    """Its coarse labels: what is learned, and the figure to beat."""
    truth: str
    codes: str
    """Legend of coarse labels and truth: a built-in name or a file."""
    to: str | None = None
    """Legend that is learned and compared in; None: that of the labels."""
    changes: dict[str, object] = field(default_factory=dict)
    """Of the recipe."""
    bands: tuple[str, ...] | None = None
    """Bands to learn from, where they have no colour names."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    """Images and coarse labels of other places that are learned from instead; none: those of this place."""


def variant_of(case: Case, variant: str, folder: Path, seed: int) -> Case:
    """The case with its labels as they are, with noise, or shifted by half a cell."""
    if variant == "clean":
        return case
    with rasterio.open(case.coarse) as source:
        cells, transform, crs, nodata = source.read(1), source.transform, source.crs, source.nodata
    if variant == "noise":
        cells = redraw(cells, nodata, np.random.default_rng(seed))
    else:
        transform = transform * Affine.translation(0.5, 0.5)
    path = folder / f"{Path(case.coarse).stem}-{variant}-{seed}.tif"
    return replace(case, coarse=_write(path, cells[None], transform, crs=crs, nodata=nodata))


def redraw(cells: NDArray[np.generic], nodata: float | None, rng: np.random.Generator) -> NDArray[np.generic]:
    """A share of the cells (y, x) drawn anew, half of them in clumps of 2 x 2, rare classes more often.

    Classes are drawn with the square root of their shares, as products confuse the rare with the frequent.
    """
    present = cells[cells != nodata] if nodata is not None else cells
    ids, counts = np.unique(present, return_counts=True)
    chance = np.sqrt(counts) / np.sqrt(counts).sum()
    new = cells.copy()
    single = rng.random(cells.shape) < _REDRAWN / 2
    new[single] = rng.choice(ids, single.sum(), p=chance)
    half = tuple(-(-n // 2) for n in cells.shape)
    clump = (rng.random(half) < _REDRAWN / 2).repeat(2, 0).repeat(2, 1)[: cells.shape[0], : cells.shape[1]]
    drawn = rng.choice(ids, half, p=chance).repeat(2, 0).repeat(2, 1)[: cells.shape[0], : cells.shape[1]]
    new = np.where(clump, drawn, new).astype(cells.dtype)
    return np.where(cells == nodata, cells, new).astype(cells.dtype) if nodata is not None else new


def city(folder: Path, seed: int, size: int = 2048) -> Case:
    """A practice city with its 10 m labels."""
    place = folder / f"city-{seed}-{size}"
    if not (place / "truth.tif").is_file():
        write_city(place, size, seed)
    image, coarse, truth = (str(place / n) for n in ("image.tif", "labels_10m.tif", "truth.tif"))
    return Case("city", image, coarse, truth, "city")


def zion(folder: Path, data: Path) -> Case:
    """Landsat 8 at 30 m; NLCD made coarse by the majority of 8 x 8."""
    pair = data / "pairs" / "zion_landsat_nlcd"
    image = _stack(folder / "zion.tif", [pair / f"landsat_b{n}.tif" for n in (4, 3, 2, 5)])
    truth = str(pair / "nlcd2011.tif")
    coarse = _coarsen(Path(truth), folder / "zion-coarse.tif", 8)
    return Case("zion", image, coarse, truth, "nlcd", "base4")


def sentinel2(folder: Path, data: Path) -> Case:
    """Sentinel-2 at 60 m; the scene classification made coarse by the majority of 6 x 6."""
    tile = data / "s2" / "s2_safe_29UNU"
    files = [next(tile.rglob(f"*_{band}_60m.jp2")) for band in ("B04", "B03", "B02", "B8A")]
    image = _stack(folder / "s2.tif", files, nodata=0)
    source = next(tile.rglob("*_SCL_60m.jp2"))
    truth = _coarsen(source, folder / "s2-truth.tif", 1, nodata=0)
    coarse = _coarsen(source, folder / "s2-coarse.tif", 6, nodata=0)
    return Case("s2", image, coarse, truth, "scl")


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
    return Case("buildings", str(image), coarse, truth, _two_classes(folder), changes={"chip": 64})


def massachusetts(folder: Path, data: Path) -> Case:
    """An orthophoto at 1 m; buildings drawn by hand, made coarse by the majority of 10 x 10.

    The polygons carry another CRS than their numbers are in; they are taken in that of the image.
    """
    place = data / "vhr" / "massachusetts"
    image = place / "22978945_15.tif"
    import pyogrio
    import shapely

    _, _, shapes, _ = pyogrio.raw.read(place / "massachusetts_buildings.gpkg")
    with rasterio.open(image) as source:
        seen = source.dataset_mask() > 0
        drawn = rasterio.features.rasterize(
            list(shapely.from_wkb(shapes)), seen.shape, transform=source.transform, dtype="uint8"
        )
        ids = np.where(seen, drawn, 255).astype(np.uint8)
        truth = _write(folder / "mass-truth.tif", ids[None], source.transform, crs=source.crs, nodata=255)
    coarse = _coarsen(Path(truth), folder / "mass-coarse.tif", 10)
    return Case("massachusetts", str(image), coarse, truth, _two_classes(folder), changes={"chip": 64})


def floods(folder: Path, data: Path) -> Case:
    """Sentinel-2 at 10 m; water drawn by hand, made coarse by the majority of 8 x 8."""
    place = data / "pairs" / "sen1floods11_spain"
    with rasterio.open(place / "Spain_7370579_S2Hand.tif") as source:
        values, transform, crs = source.read([4, 3, 2, 8]), source.transform, source.crs
    image = _write(folder / "floods.tif", values.astype(np.uint16), transform, crs=crs, nodata=0)
    _name_bands(image, _RGBN)
    with rasterio.open(place / "Spain_7370579_LabelHand.tif") as source:
        hand = source.read(1)
    ids = np.where(hand < 0, 255, hand).astype(np.uint8)
    truth = _write(folder / "floods-truth.tif", ids[None], transform, crs=crs, nodata=255)
    coarse = _coarsen(Path(truth), folder / "floods-coarse.tif", 8)
    return Case("floods", image, coarse, truth, _two_classes(folder), changes={"chip": 64})


def czech(folder: Path, data: Path, metres: int = 10) -> Case:
    """A sheet of 2 x 3 aerial chips joined, at half resolution, taken as 0.3 m; majority of 33 x 33: 10 m.

    The rim of 2 px of each chip is no truth, nor is what the masks call other.
    """
    place = data / "hr" / "czech_ortho"
    grid = [[f"PROS362_{3 * row + col}" for col in range(3)] for row in range(2)]
    names = ("building", "road", "vegetation", "water")
    colours = {"ffe132": 0, "6d32ff": 1, "ff8c00": 1, "32ffa7": 2, "32a7ff": 3}
    rgb = np.vstack([np.hstack([_rgb(place / "images" / f"{n}.jpg") for n in row]) for row in grid])
    masks = [[_rim(_ids(_rgb(place / "masks" / f"{n}.png"), colours), 2) for n in row] for row in grid]
    ids = np.vstack([np.hstack(row) for row in masks])[::2, ::2]
    return _chips("czech", folder, _halve(rgb), ids, names, gsd=0.3, metres=metres)


def city_unseen(folder: Path, _data: Path, seed: int) -> Case:
    """A practice city, mapped by what was learned from two others, a hundred kilometres off."""
    others = []
    for number in (1, 2):
        case = city(folder, seed + 50 * number)
        with rasterio.open(case.truth) as source:
            here, cell = source.transform, source.res[0]
        for path in (case.image, case.coarse):
            with rasterio.open(path, "r+") as sink:
                scale = Affine.scale(sink.res[0] / cell)
                sink.transform = Affine.translation(100_000 * number, 0) * here * scale
        others.append((case.image, case.coarse))
    return replace(city(folder, seed), elsewhere=tuple(others))


def ontario_unseen(folder: Path, data: Path, seed: int) -> Case:
    """A Landsat block, mapped by what was learned from the three others."""
    own, *rest = (ontario(folder, data, seed + offset) for offset in range(4))
    return replace(own, elsewhere=tuple((case.image, case.coarse) for case in rest))


def dubai_unseen(folder: Path, data: Path) -> Case:
    """The tile of *dubai*, mapped by what was learned from three others."""
    others = [dubai(folder, data, tile=tile) for tile in (2, 3, 4)]
    return replace(dubai(folder, data), elsewhere=tuple((case.image, case.coarse) for case in others))


def dubai(folder: Path, data: Path, metres: int = 10, tile: int = 7) -> Case:
    """A tile of 3 x 3 satellite parts joined, at half resolution, taken as 1 m; majority of 10 x 10."""
    place = data / "hr" / "dubai_mbrsc"
    names = ("building", "land", "road", "vegetation", "water")
    colours = {"3c1098": 0, "8429f6": 1, "6ec1e4": 2, "fedd3a": 3, "e2a929": 4}
    parts = [[f"tile{tile}_{3 * row + col + 1:03d}" for col in range(3)] for row in range(3)]
    shapes = [_rgb(place / "images" / f"{name}.jpg").shape for row in parts for name in row]
    size = (min(shape[0] for shape in shapes), min(shape[1] for shape in shapes))

    def join(read: Callable[[str], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        rows = [np.hstack([read(name)[: size[0], : size[1]] for name in row]) for row in parts]
        return np.vstack(rows)

    rgb = join(lambda name: _rgb(place / "images" / f"{name}.jpg"))
    ids = join(lambda name: _ids(_rgb(place / "masks" / f"{name}.png"), colours))
    name = "dubai" if tile == 7 else f"dubai-{tile}"
    east = 500_000 + 20_000 * (tile - 7)
    return _chips(name, folder, _halve(rgb), ids[::2, ::2], names, gsd=1.0, metres=metres, east=east)


def southchina(folder: Path, data: Path, metres: int = 10) -> Case:
    """A sheet of 4 x 4 chips joined, at 0.55 m; majority of 18 x 18: 10 m. Code 7 is no truth."""
    place = data / "hr" / "google18_southchina"
    names = ("cropland", "trees", "grass", "water", "built-up", "bare")
    grid = [[4 * row + col + 1 for col in range(4)] for row in range(4)]
    rgb = np.vstack([np.hstack([_rgb(place / "pic" / f"L18-31_16_{n}.png") for n in row]) for row in grid])
    rows = []
    for row in grid:
        with_codes = [np.asarray(Image.open(place / "label" / f"L18-31_16_m7_mask_{n}.png")) for n in row]
        rows.append(np.hstack(with_codes))
    codes = np.vstack(rows).astype(np.int16) - 1
    ids = np.where((codes < 0) | (codes > 5), 255, codes).astype(np.uint8)
    return _chips("southchina", folder, rgb, ids, names, gsd=0.55, metres=metres)


def zurich(folder: Path, data: Path, metres: int = 10) -> Case:
    """QuickBird at 0.6 m, four bands; majority of 17 x 17: 10 m. Rare classes join their neighbours."""
    place = data / "hr" / "zurich_qb"
    names = ("water", "tree", "grass", "road", "building")
    colours = {"000096": 0, "9696ff": 0, "007d00": 1, "00ff00": 2, "000000": 3, "646464": 4}
    with rasterio.open(place / "sat_14.tif") as source:
        values, transform, crs = source.read(), source.transform, source.crs
    image = _write(folder / "zurich.tif", values, transform, crs=crs, nodata=None)
    _name_bands(image, ("blue", "green", "red", "nir"))
    with rasterio.open(place / "gt_14.tif") as source:
        ids = _ids(np.moveaxis(source.read(), 0, -1), colours)
    truth = _write(folder / "zurich-truth.tif", ids[None], transform, crs=crs, nodata=255)
    coarse = _coarsen(Path(truth), folder / f"zurich-coarse-{metres}m.tif", round(metres / 0.6))
    legend = _legend(folder / "zurich.toml", names)
    return Case("zurich", image, coarse, truth, legend, changes={"chip": 64})


def ontario(folder: Path, data: Path, block: int) -> Case:
    """A Landsat block of 256 x 256 with labels made coarse by the majority of 4 x 4; there are four.

    The blocks carry no georeference: theirs is made up, one after the other.
    """
    blocks = sorted((data / "pairs" / "ontario_landsat_dem13").glob("*.npz"))
    number = block % len(blocks)
    arrays = np.load(blocks[number])
    transform = Affine(30, 0, 500_000 + number * 20_000, 0, -30, 5_400_000)
    valid = arrays["valid"] & (arrays["image"] > -1000).all(0)
    pixels = np.where(valid, arrays["image"], np.nan).astype(np.float32)
    image = _write(folder / f"ontario-{number}.tif", pixels, transform, nodata=float("nan"))
    label = np.where(arrays["valid"], arrays["label"], 0).astype(np.uint8)
    truth = _write(folder / f"ontario-truth-{number}.tif", label[None], transform, nodata=0)
    coarse = _coarsen(Path(truth), folder / f"ontario-coarse-{number}.tif", 4)
    legend = _legend(folder / "ontario.toml", [f"code {k}" for k in range(1, 16)], first=1, nodata=0)
    bands = tuple(str(index) for index in range(1, len(pixels) + 1))
    return Case("ontario", image, coarse, truth, legend, changes={"chip": 64}, bands=bands)


def _chips(
    name: str,
    folder: Path,
    rgb: NDArray[np.uint8],
    ids: NDArray[np.uint8],
    classes: Sequence[str],
    *,
    gsd: float,
    metres: int,
    east: int = 500_000,
) -> Case:
    """A case of chips without a georeference, joined: theirs is made up.

    Args:
        rgb: (y, x, 3).
        ids: (y, x), 255 where there is no truth.
        metres: side of a coarse cell.
        east: of the made-up place.
    """
    transform = Affine(gsd, 0, east, 0, -gsd, 5_400_000)
    image = folder / f"{name}.tif"
    profile = {
        "driver": "GTiff", "height": rgb.shape[0], "width": rgb.shape[1], "count": 3, "dtype": "uint8",
        "crs": "EPSG:32633", "transform": transform, "photometric": "rgb", "tiled": True,
    }  # fmt: skip
    with rasterio.open(image, "w", **profile) as sink:
        sink.write(np.moveaxis(rgb, -1, 0))
    truth = _write(folder / f"{name}-truth.tif", ids[None], transform, crs="EPSG:32633", nodata=255)
    coarse = _coarsen(Path(truth), folder / f"{name}-coarse-{metres}m.tif", round(metres / gsd))
    legend = _legend(folder / f"{name}.toml", classes)
    return Case(name, str(image), coarse, truth, legend, changes={"chip": 64})


def _rgb(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def _ids(rgb: NDArray[np.uint8], colours: Mapping[str, int]) -> NDArray[np.uint8]:
    """Ids (y, x) of colours (y, x, 3); 255 for every other colour."""
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    ids = np.full(packed.shape, 255, np.uint8)
    for colour, rank in colours.items():
        ids[packed == int(colour, 16)] = rank
    return ids


def _rim(ids: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """No truth along the border."""
    inside = ids.copy()
    inside[:pixels] = inside[-pixels:] = inside[:, :pixels] = inside[:, -pixels:] = 255
    return inside


def _halve(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(y, x, 3) averaged 2 x 2."""
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    fours = rgb[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return fours.mean((1, 3)).round().astype(np.uint8)


def _legend(path: Path, names: Sequence[str], *, first: int = 0, nodata: int = 255) -> str:
    """A legend file with made-up colours."""
    rows = [
        f'[[classes]]\nid = {k}\nname = "{name}"\ncolor = "{_colour(k - first, len(names))}"\n'
        for k, name in enumerate(names, start=first)
    ]
    path.write_text(f"nodata = {nodata}\n" + "".join(rows), encoding="utf-8")
    return str(path)


def _colour(rank: int, count: int) -> str:
    """A colour of its own for each of so many classes."""
    rgb = colorsys.hls_to_rgb((0.25 + rank / count) % 1, 0.4 + 0.2 * (rank % 2), 0.55)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def _two_classes(folder: Path) -> str:
    return _legend(folder / "two.toml", ("other", "object"))


def _name_bands(path: str, names: Sequence[str]) -> None:
    with rasterio.open(path, "r+") as sink:
        for index, name in enumerate(names, start=1):
            sink.set_band_description(index, name)


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


def _one(make: Callable[[Path, Path], Case]) -> Callable[[Path, Path, int], Case]:
    """A case whose place does not depend on the seed."""
    return lambda folder, data, _seed: make(folder, data)


def _coarser(make: Callable[[Path, Path, int], Case]) -> Callable[[Path, Path, int], Case]:
    """The same place with labels of 30 m."""
    return lambda folder, data, _seed: make(folder, data, 30)


CASES: dict[str, Callable[[Path, Path, int], Case]] = {
    "city": lambda folder, _data, seed: city(folder, seed),
    "buildings": _one(buildings),
    "massachusetts": _one(massachusetts),
    "zion": _one(zion),
    "s2": _one(sentinel2),
    "ontario": ontario,
    "floods": _one(floods),
    "czech": _one(czech),
    "dubai": _one(dubai),
    "southchina": _one(southchina),
    "zurich": _one(zurich),
    "czech-30m": _coarser(czech),
    "dubai-30m": _coarser(dubai),
    "southchina-30m": _coarser(southchina),
    "zurich-30m": _coarser(zurich),
    "city-unseen": city_unseen,
    "ontario-unseen": ontario_unseen,
    "dubai-unseen": _one(dubai_unseen),
}
"""By name: folder for what is made, folder of the data, and a seed, which draws a city and picks a block."""
