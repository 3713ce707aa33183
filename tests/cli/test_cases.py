"""Kinds of input that once ended in a wrong map or a traceback, by every verb that takes them.

docs/reliability.md has the table of kinds and verbs. What a verb does with one kind in depth is tested with
the verb; here each meets each, so that none is forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from conftest import Result, write_scene
from making import make_legend
from mapped import write_product
from rasterio.crs import CRS
from stores import write_arrays

Run = Callable[..., Result]

SHAPE = (64, 80)
CLASSES = np.random.default_rng(0).integers(1, 5, (8, 10)).repeat(8, 0).repeat(8, 1)[None]
LOCAL = CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]')


def raster(path: Path, values: np.ndarray, **changes: Any) -> Path:
    """Class numbers, or numbers of any band count without names."""
    return write_scene(path, values.shape[1:], len(values), values=values, descriptions=(), **changes)


def damaged(path: Path) -> Path:
    """With one block that cannot be decoded."""
    with rasterio.open(path) as dataset:
        tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
        rasterio.shutil.copy(dataset, path.with_name(f"d-{path.name}"), driver="GTiff", **tiled)
    bad = path.with_name(f"d-{path.name}")
    with rasterio.open(bad) as dataset:
        at = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    content = bytearray(bad.read_bytes())
    content[at : at + 20] = bytes(20)
    bad.write_bytes(content)
    return bad


def mosaic(path: Path) -> Path:
    """Of two files of one place, one above the other, of which the first is gone."""
    with rasterio.open(path) as dataset:
        for name in ("gone.tif", "there.tif"):
            rasterio.shutil.copy(dataset, path.with_name(name), driver="GTiff")
    vrt = path.with_suffix(".vrt")
    rasterio.shutil.copy(path.with_name("there.tif"), vrt, driver="VRT")
    text = vrt.read_text()
    first = text.index("<SimpleSource>") if "<SimpleSource>" in text else text.index("<ComplexSource>")
    end = text.index("</VRTRasterBand>", first)
    vrt.write_text(text[:first] + text[first:end].replace("there.tif", "gone.tif") + text[first:])
    path.with_name("gone.tif").unlink()
    return vrt


# --- rasters of classes -------------------------------------------------------------------------------------

NO_CLASSES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "colours": (lambda d: raster(d / "x.tif", np.repeat(CLASSES, 3, 0)), "has 3 bands; needed is one band"),
    "fractions": (lambda d: raster(d / "x.tif", CLASSES + 0.5, dtype="float32"), "that are not whole"),
    "an image": (
        lambda d: raster(d / "x.tif", np.arange(SHAPE[0] * SHAPE[1]).reshape(1, *SHAPE), dtype="uint16"),
        "more than 4096 different numbers",
    ),
    "a damaged block": (lambda d: damaged(raster(d / "x.tif", CLASSES)), "to 63: ZIPDecode"),
    "a mosaic that lost a tile": (lambda d: mosaic(raster(d / "x.tif", CLASSES)), "sources cannot be read"),
    "an empty file": (lambda d: write_nothing(d / "x.tif"), "the file is empty (0 bytes)"),
    "a folder of rasters": (lambda d: raster(d / "x/a.tif", CLASSES).parent,
                            "x/a.tif; needed is one raster|holds no landcover"),
    "a pattern": (lambda d: raster(d / "x/a.tif", CLASSES).with_name("*.tif"),
                  "x/a.tif; needed is one raster|does not exist"),
    "no CRS": (lambda d: raster(d / "x.tif", CLASSES, crs=None), "CRS"),
    "a Zarr store of several arrays": (lambda d: store(d, "a", "b"),
                                       "x.zarr/a or |x.zarr/a and 1 more"),
    "an array that lost a chunk": (lambda d: without_chunk(store(d, "a")), "c/0/0 is not in the store"),
}  # fmt: skip


def store(folder: Path, *names: str) -> Path:
    """Arrays of class numbers; of a single one its path."""
    path = write_arrays(folder / "x.zarr", dict.fromkeys(names, CLASSES[0]), chunks=(16, 16))
    return path if len(names) > 1 else path / names[0]


def without_chunk(array: Path) -> Path:
    (array / "c/0/0").unlink()
    return array


def write_nothing(path: Path) -> Path:
    path.touch()
    return path


TAKES_CLASSES: dict[str, Callable[[Path, Path, Path], tuple[object, ...]]] = {
    "evaluate": lambda bad, good, _: ("evaluate", bad, "--truth", good, "--map-legend", "base4"),
    "evaluate --truth": lambda bad, good, _: ("evaluate", good, "--truth", bad, "--map-legend", "base4"),
    "sample": lambda bad, _, out: (
        "sample", bad, "-o", out / "p.csv", "--points", 9, "--map-legend", "base4"
    ),
    "stats": lambda bad, _good, _out: ("stats", bad, "--map-legend", "base4"),
    "compare": lambda bad, good, _: ("compare", good, bad, "--map-legend", "base4"),
    "vectorize": lambda bad, _, out: ("vectorize", bad, "-o", out / "v.geojsonl", "--map-legend", "base4"),
    "train": lambda bad, _, out: (
        "train", "--recipe", "l2hnet-light", "--image", out / "image.tif", "--labels", bad,
        "--legend", "base4", "-o", out / "run", "--plan",
    ),
    "sharpen": lambda bad, _, out: (
        "sharpen", out / "image.tif", "--labels", bad, "--labels-legend", "base4", "-o", out / "sharp"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_CLASSES)
def test_what_is_no_raster_of_classes_is_refused_by_every_verb(
    citycover: Run, tmp_path: Path, kind: str
) -> None:
    make, said = NO_CLASSES[kind]
    write_scene(tmp_path / "image.tif", SHAPE)
    good, bad = raster(tmp_path / "good.tif", CLASSES), make(tmp_path)
    for verb, words in TAKES_CLASSES.items():
        if (kind, verb) == ("an image", "sharpen"):
            said = "hold ids that"  # counted in cells of the image, as labels are
        result = citycover(*words(bad, good, tmp_path))
        assert result.code == 2 and any(word in result.err for word in said.split("|")), (
            f"{verb}: {result.err}"
        )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_classes_outside_of_a_raster_or_under_its_opacity_are_none(
    citycover: Run, tmp_path: Path, dtype: str
) -> None:
    """GDAL takes opacity of uint8 and uint16 alone for a mask."""
    opaque = np.ones(SHAPE)
    opaque[:, :30] = 0
    write_scene(tmp_path / "image.tif", SHAPE)
    good = raster(tmp_path / "good.tif", CLASSES)
    bad = raster(tmp_path / "x.tif", np.stack([CLASSES[0], opaque * 255]), dtype=dtype)
    with rasterio.open(bad, "r+") as dataset:
        dataset.colorinterp = [rasterio.enums.ColorInterp.gray, rasterio.enums.ColorInterp.alpha]
    pixels = int(opaque.sum())
    shares = [float((CLASSES[0][opaque > 0] == id_).mean()) for id_ in range(1, 5)]
    found = {
        verb: json.loads(citycover(*TAKES_CLASSES[verb](bad, good, tmp_path), "--json").out)
        for verb in ("evaluate", "evaluate --truth", "stats", "compare", "vectorize", "train")
    }
    assert found["stats"]["total_m2"] == found["compare"]["compared_m2"] == pixels
    assert found["vectorize"]["square_metres"] == pixels
    for verb in ("evaluate", "evaluate --truth"):
        assert sum(row["pixels"] for row in found[verb]["classes"]) == pixels
    np.testing.assert_allclose(found["train"]["label_shares"], shares, atol=2e-3)


# --- imagery ------------------------------------------------------------------------------------------------


TEN_METRES = Affine(10, 0, 500_000, 0, -10, 5_800_000)
"""Pixels as Sentinel-2 has them."""


def bands_apart(folder: Path) -> Path:
    for name in ("B02", "B03", "B04", "B8A"):
        values = np.random.default_rng(0).integers(300, 3000, (1, *SHAPE))
        raster(folder / f"bands/{name}.tif", values, dtype="uint16", nodata=0, transform=TEN_METRES)
    return folder / "bands"


def palette(folder: Path) -> Path:
    path = raster(folder / "x.tif", CLASSES, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {id_: (id_ * 40, 0, 0, 255) for id_ in range(5)})
    return path


REFLECTANCE = np.random.default_rng(0).uniform(0.01, 0.4, (4, *SHAPE))
IMAGERY: dict[str, tuple[Callable[[Path], Path], dict[str, tuple[int, str]]]] = {
    "files called by their band": (bands_apart, {}),
    "a local grid": (
        lambda d: write_scene(d / "x.tif", SHAPE, crs=LOCAL), {"inspect": (0, "no place on the Earth")},
    ),
    "a name that looks like a date": (lambda d: write_scene(d / "tile_2048_1024.tif", SHAPE), {}),
    "a mosaic that lost a tile": (
        lambda d: mosaic(write_scene(d / "x.tif", SHAPE)),
        dict.fromkeys(("inspect", "plan", "train"), (0, "sources of x.vrt cannot be read"))
        | {"run": (3, "no such file")},
    ),
    "a damaged block": (
        lambda d: damaged(write_scene(d / "x.tif", SHAPE)),
        {"inspect": (0, "cannot be read: ZIPDecode"), "run": (3, "ZIPDecode")},
    ),
    "a palette": (
        palette,
        dict.fromkeys(("plan", "train"), (2, "-expand rgb")) | {"run": (3, "-expand rgb")},
    ),
    "reflectance of 0 to 1": (
        lambda d: write_scene(d / "x.tif", SHAPE, values=REFLECTANCE, dtype="float32"),
        {"plan": (2, "reflectance of 0 to 1"), "run": (3, "reflectance of 0 to 1")},
    ),
}  # fmt: skip

TAKES_IMAGERY: dict[str, Callable[[Path, Path], tuple[object, ...]]] = {
    "inspect": lambda image, _: ("inspect", image),
    "plan": lambda image, _: ("plan", image, "--no-probe"),
    "train": lambda image, out: (
        "train", "--recipe", "l2hnet-light", "--image", image, "--labels", out / "labels.tif",
        "--legend", "base4", "-o", out / "run", "--plan", "--set", "chip=32",
    ),
    "run": lambda image, out: ("run", region(image, out), "-v"),
}  # fmt: skip


def region(image: Path, out: Path) -> Path:
    path = out / "region.toml"
    path.write_text(f'name = "north"\nout = "{out}/region"\n[[scenes]]\nname = "one"\nfiles = ["{image}"]\n')
    return path


@pytest.mark.parametrize("kind", IMAGERY)
def test_imagery_is_mapped_or_refused_alike_by_every_verb(citycover: Run, tmp_path: Path, kind: str) -> None:
    make, otherwise = IMAGERY[kind]
    image = make(tmp_path)
    one = next(image.glob("*.tif")) if image.is_dir() else image
    with rasterio.open(one) as dataset:
        raster(tmp_path / "labels.tif", CLASSES, crs=dataset.crs, transform=dataset.transform)
    for verb, words in TAKES_IMAGERY.items():
        code, said = otherwise.get(verb, (0, ""))
        result = citycover(*words(image, tmp_path))
        assert result.code == code and said in result.out + result.err, f"{verb}: {result.code} {result.err}"


# --- areas --------------------------------------------------------------------------------------------------

SQUARE = [
    [500_010, 5_799_950], [500_050, 5_799_950], [500_050, 5_799_990], [500_010, 5_799_990],
    [500_010, 5_799_950],
]  # fmt: skip
"""400 pixels of 2 m."""

WORLD = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
AREAS: dict[str, tuple[list[list[float]], str | None, str, int]] = {
    "the world": (WORLD, None, "utf-8", SHAPE[0] * SHAPE[1]),
    "a byte order mark": (SQUARE, "EPSG:32633", "utf-8-sig", 400),
    "metres without a CRS": (SQUARE, None, "utf-8", 400),
    "a bow-tie": ([SQUARE[k] for k in (0, 2, 1, 3, 0)], "EPSG:32633", "utf-8", 200),
}
"""What -> outline, CRS that is named, encoding, pixels inside."""


@pytest.mark.parametrize("kind", AREAS)
def test_areas_mean_the_same_to_every_verb(citycover: Run, tmp_path: Path, kind: str) -> None:
    ring, crs, encoding, pixels = AREAS[kind]
    feature = {
        "type": "Feature",
        "properties": {"class": 1},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    area = tmp_path / "area.geojson"
    area.write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature], **named}), encoding=encoding
    )
    product = write_product(tmp_path / "product", np.ones(SHAPE, np.uint8))
    image = write_scene(tmp_path / "x.tif", SHAPE, transform=Affine(2, 0, 5e5, 0, -2, 5.8e6))
    part = list(SHAPE) if kind == "the world" else [20, 20]
    assert json.loads(citycover("plan", image, "--no-probe", "--aoi", area, "--json").out)["shape"] == part
    burn = f"{area}={make_legend().names[1]}"
    refined = json.loads(citycover("refine", product, "-o", tmp_path / "out", "--burn", burn, "--json").out)
    judged = json.loads(citycover("evaluate", product, "--truth", area, "--json").out)
    assert refined["changed"] == judged["classes"][0]["pixels"] == pytest.approx(pixels, abs=pixels // 8)
    for verb in (("stats", product), ("compare", product, product)):
        result = citycover(*verb, "--zones", area, "--json")
        if kind == "a bow-tie":  # its area is what is asked for, and nobody knows it
            assert result.code == 2 and "not valid" in result.err
        else:
            said = json.loads(result.out)
            rows = said.get("areas") or said["transitions"]
            assert sum(row["area_m2"] for row in rows if row["zone"]) == pytest.approx(4 * pixels, rel=1e-3)
