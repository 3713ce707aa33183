"""What is fuzzed: a seed corpus, how inputs are made from it, and what reads them.

A target's `run` gets a file and ends in one of the ways that a user may meet: it returns, or raises an error
of citycover's own family. Any other exception is a finding, as is a process that dies, hangs or grows.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from delivered import delivered_targets
from held import held_targets
from mutate import edited_bytes
from target import Target, allowed, command, either

from citycover.errors import CitycoverError
from citycover.files.configs import config_names, config_path
from citycover.model.builtin import builtin_path

_PLAN = ("plan", "FILE", "--no-probe", "--quiet")


def targets(folder: Path) -> dict[str, Target]:
    """All targets; seeds that are rasters or archives are made below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = write_seed(folder / "scene.tif", compress=None)
    rasters = [
        Path(write_seed(folder / f"seed-{c}.tif", compress=c)).read_bytes() for c in (None, "deflate", "lzw")
    ]
    tables = {
        "card": [tomllib.loads(_CARD)],
        "legend": [
            tomllib.loads(config_path("legends", f"{n}.toml").read_text()) for n in ("base4", "city", "scl")
        ],
        "recipe": [
            tomllib.loads(config_path("recipes", f"{n}.toml").read_text()) for n in config_names("recipes")
        ],
        "region": [tomllib.loads(config_path("regions", "example.toml").read_text())],
    }
    texts = {name: [_toml(v).encode() for v in values] for name, values in tables.items()}
    found = [
        Target(name, ".toml", either(texts[name], tables[name], _toml), allowed(_reader(name)))
        for name in tables
    ]
    plan = ("plan", scene, "--no-probe", "--quiet")
    found += [
        Target("aoi", ".geojson", either([json.dumps(a).encode() for a in _AREAS], _AREAS, json.dumps),
               command(*plan, "--aoi", "FILE")),
        Target("tiff", ".tif", edited_bytes(rasters), command("inspect", "FILE", "--json")),
        Target("tiff-plan", ".tif", edited_bytes(rasters), command(*_PLAN)),
        Target("vrt", ".vrt", edited_bytes([_vrt(scene).encode()]), command(*_PLAN)),
        Target("archive", ".pt", edited_bytes([builtin_path("spectral-rgb").read_bytes()]),
               command("inspect", "FILE")),
        Target("ledger", ".json", either([b"{}"], [_entry()], json.dumps), _read_entry),
        Target("item", ".json", either([b"{}"], [_ITEM], json.dumps), _check_product),
        Target("list", ".csv", edited_bytes([_LIST.encode("utf-8-sig")]), allowed(_read_list)),
        Target("run", ".json", either([b"{}"], [run_record()], json.dumps), _open_product),
    ]  # fmt: skip
    found += [*held_targets(), *_more(folder), *delivered_targets(folder)]
    return {target.name: target for target in found}


def _reader(name: str) -> Callable[[Path], Any]:
    def card(path: Path) -> Any:
        from citycover_models.export.adopt import read_card

        return read_card(path)

    def legend(path: Path) -> Any:
        from citycover.classes.legend import read_legend

        return read_legend(path)

    def recipe(path: Path) -> Any:
        from citycover_models.training.recipe import read_recipe

        return read_recipe(path)

    def region(path: Path) -> Any:
        from citycover.region.config import read_region
        from citycover.region.scenes import find_scenes

        found = read_region(path)
        found.request(("a.tif",), path.parent)
        return find_scenes(found.scenes, found.out)

    return {"card": card, "legend": legend, "recipe": recipe, "region": region}[name]


def _more(folder: Path) -> list[Target]:
    """Truths, reports and tables that verbs take."""
    classes = write_seed(folder / "classes.tif", compress="deflate", bands=1, highest=4)
    judge = allowed(lambda path: _evaluate(path, classes))
    points = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [15.0001 + 1e-4 * n, 52.3492]},
         "properties": {"class": n % 4 + 1, "stratum": n % 2, "stratum_pixels": 900}} for n in range(6)
    ]  # fmt: skip
    truth = {"type": "FeatureCollection", "features": points}
    areas = {"type": "FeatureCollection", "features": [
        {"type": "Feature", "geometry": _AREAS[0], "properties": {"class": 2}}]}  # fmt: skip
    rows = "\n".join(f"{15.0001 + 1e-4 * n},52.3492,{n % 4 + 1},{n % 2},900" for n in range(6))
    table = f"lon,lat,class,stratum,stratum_pixels\n{rows}\n"
    shares = [{"id": n, "name": "a", "area_share": {"value": 0.25, "margin95": 0.1}} for n in range(1, 5)]
    report = {"legend": "base4", "area_adjusted": {"classes": shares}}
    product = config_path("labels", "worldcover.toml").read_text(encoding="utf-8")
    renames = {"rename": {"a": "b", "layer.": "stage."}}
    return [
        Target("truth", ".geojson",
               either([json.dumps(v).encode() for v in (truth, areas)], [truth, areas], json.dumps),
               judge),
        Target("truth-table", ".csv", edited_bytes([table.encode()]), judge),
        Target("assessment", ".json", either([b"{}"], [report], json.dumps),
               allowed(_read_assessment)),
        Target("labels", ".toml", either([product.encode()], [tomllib.loads(product)], _toml),
               allowed(_place_labels)),
        Target("renames", ".toml", either([_toml(renames).encode()], [renames], _toml),
               allowed(_read_renames)),
    ]  # fmt: skip


def _place_labels(path: Path) -> None:
    """Which files of a product are fetched for a place; nothing is."""
    from citycover.evidence.catalogue import product_asked_for

    edited = product_asked_for(path)
    assert edited is not None, "it is asked for by a file"
    for tile in edited.tiles(((14.9, 52.3, 15.1, 52.4), (-180.0, 10.0, -179.9, 10.2))):
        assert tile.file
        edited.credit(tile)


def _evaluate(path: Path, classes: str) -> Any:
    from citycover.evaluate.evaluate import evaluate
    from citycover.evaluate.request import EvaluationRequest

    return evaluate(EvaluationRequest(mapped=Path(classes), truth=path, map_legend="base4"))


def _read_assessment(path: Path) -> Any:
    from citycover.classes.legend import read_legend
    from citycover.derive.assessment import read_assessment

    for found in read_assessment(path, read_legend("base4")).adjusted:
        found.facts(1e4)


def _read_renames(path: Path) -> Any:
    from citycover_models.weights.public import read_renames

    return read_renames(path)


def run_record() -> Any:
    """A run.json as it is written today."""
    from making import make_legend, make_record

    return make_record(make_legend()).facts()


@allowed
def _open_product(path: Path) -> None:
    from citycover.product.open import open_product

    folder = path.parent / "product"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "run.json")
    raster = folder / "landcover.tif"
    if not raster.exists():
        write_seed(raster, compress="deflate", bands=1)
    open_product(folder)


def _entry() -> Any:
    from citycover.store.ledger import BlockRecord
    from citycover.store.shard import ShardSeal
    from citycover.store.statistics import Statistics

    seals, seen = {"classes": ShardSeal(9, 7)}, {"classes": (Statistics(512 * 88, 9, 1, 2, 3, 4, {1: 2}),)}
    record = BlockRecord((0, 1), 512 * 88, {"forward": 1.5}, (), seals, {"run": 3}, seen)
    return json.loads(record.to_json())


def _read_entry(path: Path) -> None:
    """A damaged entry counts as nothing."""
    from citycover.files.store import PosixStore
    from citycover.store.ledger import Ledger
    from citycover.store.shard import Layout

    folder = path.parent / "ledger"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "0_1.json")
    layout = Layout((512, 600), (512, 512))
    Ledger(PosixStore(path.parent), "ledger", layout, frozenset({"classes"}), {"classes": 1}).read()


@allowed
def _check_product(path: Path) -> None:
    from citycover.product.folder import check_folder, holds_product

    folder = path.parent / "product"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "item.json")
    holds_product(folder)
    for overwrite in (True, False):
        with contextlib.suppress(CitycoverError):
            check_folder(folder, overwrite=overwrite)


def _read_list(path: Path) -> Any:
    from citycover_models.data.layouts import read_list

    return read_list(path)


_LIST = "image_fn,label_fn,gt_label_fn\nimage.tif,a.tif;b.tif,\nB04.tif;B03.tif,c.tif,truth.tif\n"
_ITEM = {
    "type": "Feature",
    "properties": {"processing:software": {"citycover": "0.1.0"}},
    "assets": {"landcover": {"href": "./landcover.tif"}, "run": {"href": "./run.json"}},
}


def write_seed(path: Path, *, compress: str | None, bands: int = 3, highest: int = 254) -> str:
    """A raster of 48 x 40 px that all models take."""
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "height": 40, "width": 48, "count": bands, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(1, 0, 5e5, 0, -1, 5.8e6), "tiled": True, "blockxsize": 16, "blockysize": 16,
    }  # fmt: skip
    if bands == 3:
        profile["photometric"] = "rgb"
    with rasterio.open(path, "w", **profile, **({"compress": compress} if compress else {})) as sink:
        sink.write(rng.integers(1, highest + 1, (bands, 40, 48), dtype=np.uint8))
    return str(path)


def _toml(value: Any) -> str:
    """Plain values as TOML, as far as they can be; anything odd is written as JSON, which is odd TOML."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "\n".join(_lines(value, ()))


def _lines(table: dict[str, Any], above: tuple[str, ...]) -> Iterable[str]:
    inner = {k: v for k, v in table.items() if isinstance(v, dict)}
    for key, value in table.items():
        if key not in inner:
            yield f"{json.dumps(key)} = {_inline(value)}"
    for key, value in inner.items():
        path = (*above, key)
        yield "[" + ".".join(json.dumps(p) for p in path) + "]"
        yield from _lines(value, path)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return {"NaN": "nan", "Infinity": "inf"}.get(text := json.dumps(value), text)


def _vrt(scene: str) -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"><NoDataValue>0</NoDataValue>'
        f"<ColorInterp>{c}</ColorInterp>"
        f'<SimpleSource><SourceFilename relativeToVRT="0">{scene}</SourceFilename>'
        f"<SourceBand>{n}</SourceBand>"
        '<SrcRect xOff="0" yOff="0" xSize="48" ySize="40"/><DstRect xOff="0" yOff="0" xSize="48" ySize="40"/>'
        "</SimpleSource></VRTRasterBand>"
        for n, c in ((1, "Red"), (2, "Green"), (3, "Blue"))
    )
    return (
        '<VRTDataset rasterXSize="48" rasterYSize="40"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>500000, 1, 0, 5800000, 0, -1</GeoTransform>{bands}</VRTDataset>"
    )


_CARD = """
name = "b"
trim = 0
feather = 8
stride = 4
output_scale = "1"
channels = [1, 2]
[[groups]]
bands = ["red", "green", "blue"]
dtypes = ["uint8"]
value_range = [0, 255]
fill = [0, 0, 0]
[window]
size = 256
multiple = 4
[legend]
name = "b"
nodata = 0
classes = [{id = 1, name = "a", color = "#000000"}, {id = 2, name = "b", color = "#ff0000"}]
"""
_SQUARE = [[[15.0, 52.34], [15.0006, 52.34], [15.0006, 52.345], [15.0, 52.345], [15.0, 52.34]]]
_AREAS: list[Any] = [
    {"type": "Polygon", "coordinates": _SQUARE},
    {"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": "EPSG:4326"}},
     "features": [{"type": "Feature", "properties": {"a": 1},
                   "geometry": {"type": "MultiPolygon", "coordinates": [_SQUARE]}}]},
    {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": _SQUARE}]},
]  # fmt: skip
