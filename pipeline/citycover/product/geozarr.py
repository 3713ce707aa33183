"""`landcover.zarr`: all layers in one Zarr v3 store, with overviews, for xarray and for the cloud.

    landcover.zarr/           the layers, with x, y, spatial_ref and, for bands of classes, class
    landcover.zarr/1, 2, ...  the same half as fine, a quarter as fine, ...

The shards of the working store are copied as they are, those of its overviews too: nothing is computed or
compressed again but coarser ones, each from the level above it. What the numbers mean stands in CF attributes
(grid mapping, flags, `_FillValue`); where they lie, and how the levels hang together, also in the GeoZarr
conventions `proj`, `spatial` and `multiscales`. All metadata is consolidated in the root, which is written
last.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.files.atomic import write_atomic
from citycover.files.folders import STORED, chunks_in
from citycover.files.store import PosixStore, Store, pieces
from citycover.geometry.grid import authority_code, crs_of
from citycover.geometry.window import Window
from citycover.model.card import ModelCard
from citycover.plan.layers import Layer
from citycover.product.dataset import attributes_of, coordinates_of
from citycover.product.tiff import TILE
from citycover.store.pyramid import HALVE, level_shapes
from citycover.store.shard import ArraySpec, Layout, ShardedArray, array_metadata, shard_key, write_shard
from citycover.store.store import WorkingStore

if TYPE_CHECKING:
    import xarray as xr

_BLOCK = (1024, 1024)
"""Pixels of a shard of an overview that is made here."""

_CONVENTIONS = tuple(
    {
        "name": name,
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "description": said,
    }
    for name, uuid, said in (
        ("proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system"),
        ("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Where the pixels lie"),
        ("multiscales", "d35379db-88df-4056-af3a-620245f8e347", "How the levels hang together"),
    )
)

Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of the pyramid, being written."""

    path: Path
    grid: GeoBox
    layout: Layout


def write_zarr(
    path: Path, store: WorkingStore, layers: Sequence[Layer], grid: GeoBox, card: ModelCard
) -> None:
    """Write all layers of a finished working store.

    Args:
        path: folder that does not exist yet.
        store: every block is there.
        layers: those of the store.
        grid: of the map.
        card: of the network.
    """
    levels = _levels(path, grid, store.levels)
    found: dict[str, Metadata] = {}
    with ThreadPoolExecutor(2, thread_name_prefix="zarr") as pool:
        for number, level in enumerate(levels):
            prefix = f"{number}/" if number else ""
            for layer in layers:
                spec = store.arrays[layer.name]
                array = level.path / layer.name
                found[prefix + layer.name] = _describe_layer(array, layer, spec, level, card)
                if number < len(store.levels):
                    _copy(store.place, store.array_key(layer.name, number), array)
                else:
                    _halve_all(levels[number - 1], level, layer, spec, pool)
            found |= {prefix + name: about for name, about in _write_coordinates(level, layers, card).items()}
            if number:
                found[str(number)] = _group(level.path, _georeference(level.grid))
    root = _georeference(grid) | {"multiscales": _multiscales(layers, len(levels)), "title": card.legend.name}
    root[STORED] = chunks_in(path)
    _group(path, root, found)


def _levels(path: Path, grid: GeoBox, stored: Sequence[Layout]) -> list[_Level]:
    """The raster and its overviews: each pixel of a level covers two by two of the one before."""
    levels = []
    for number, shape in enumerate(level_shapes(stored[0].shape, TILE)):
        place = path / str(number) if number else path
        transform = grid.transform * grid.transform.scale(2**number)
        own = stored[number] if number < len(stored) else Layout(shape, _BLOCK, stored[0].cell)
        levels.append(_Level(place, GeoBox(shape, transform, grid.crs), own))
    return levels


def _describe_layer(array: Path, layer: Layer, spec: ArraySpec, level: _Level, card: ModelCard) -> Metadata:
    """Write `zarr.json` of a layer."""
    about = array_metadata(spec, level.layout)
    about["dimension_names"] = [*(["class"] if spec.channels else []), "y", "x"]
    about["attributes"] = _plain(attributes_of(layer, card.legend))
    return _write_metadata(array, about)


def _copy(store: Store, key: str, array: Path) -> None:
    """All shards of an array."""
    for shard in store.list(f"{key}/c/"):
        path = array / shard.removeprefix(f"{key}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(pieces(store, shard))


def _halve_all(fine: _Level, coarse: _Level, layer: Layer, spec: ArraySpec, pool: Executor) -> None:
    """Make a layer of a level from the one above it, block by block."""
    planes = [
        ShardedArray(PosixStore(fine.path), layer.name, spec, fine.layout, channel)
        for channel in range(max(spec.channels, 1))
    ]
    rows, columns = coarse.layout.blocks
    for index in itertools.product(range(rows), range(columns)):
        window = coarse.layout.block_window(index)
        values = np.stack([_half(plane, window, layer) for plane in planes])  # (plane, y, x)
        path = coarse.path / shard_key(layer.name, spec, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_shard(file, values, spec, coarse.layout, pool)


def _half(fine: ShardedArray, window: Window, layer: Layer) -> NDArray[np.uint8]:
    """(y, x) pixels of a window of the level below `fine`."""
    below = Window(2 * window.row, 2 * window.col, 2 * window.height, 2 * window.width)
    inside = below.clip(Window(0, 0, *fine.shape))
    assert inside is not None
    pixels = np.full((below.height, below.width), fine.nodata, np.uint8)
    pixels[: inside.height, : inside.width] = fine.read(inside)
    return HALVE[layer.overviews](pixels, fine.nodata)


def _write_coordinates(level: _Level, layers: Sequence[Layer], card: ModelCard) -> dict[str, Metadata]:
    """Write x, y, spatial_ref, and class where a layer has bands; returns their metadata by name."""
    channels = card.channels if any(layer.per_class for layer in layers) else ()
    coordinates = coordinates_of(level.grid, card.legend, channels).coords
    return {str(name): _write_whole(level.path / str(name), array) for name, array in coordinates.items()}


def _write_whole(path: Path, array: xr.DataArray) -> Metadata:
    """Write a small array as one chunk, not compressed."""
    values = np.ascontiguousarray(array.to_numpy()).reshape(array.shape)  # numpy makes a scalar (1,)
    stored = values.astype(values.dtype.newbyteorder("<"))
    about = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(values.shape),
        "data_type": values.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [max(1, n) for n in values.shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "dimension_names": [str(name) for name in array.dims],
        "attributes": _plain(array.attrs),
        "storage_transformers": [],
    }
    _write_metadata(path, about)
    file = path.joinpath("c", *("0" for _ in values.shape))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(stored.tobytes())
    return about


def _georeference(grid: GeoBox) -> Metadata:
    """Attributes of a group whose arrays lie on a grid."""
    crs = crs_of(grid)
    code = authority_code(crs)
    height, width = (int(n) for n in grid.shape)
    return {
        "Conventions": "CF-1.11",
        "zarr_conventions": [dict(one) for one in _CONVENTIONS],
        **({"proj:code": code} if code else {"proj:wkt2": crs.to_wkt()}),
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [height, width],
        "spatial:transform_type": "affine",
        "spatial:transform": [float(value) for value in grid.transform[:6]],
        "spatial:bbox": list(grid.boundingbox.bbox),
        "spatial:registration": "pixel",
    }


def _multiscales(layers: Sequence[Layer], levels: int) -> Metadata:
    """How each level comes from the one before."""
    layout: list[Metadata] = [{"asset": "."}]
    layout += [
        {
            "asset": str(number),
            "derived_from": str(number - 1) if number > 1 else ".",
            "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]},
        }
        for number in range(1, levels)
    ]
    return {"layout": layout, "resampling_method": layers[0].overviews}


def _group(path: Path, attributes: Metadata, consolidated: Mapping[str, Metadata] | None = None) -> Metadata:
    """Write `zarr.json` of a group."""
    about: Metadata = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if consolidated is not None:
        about["consolidated_metadata"] = {
            "kind": "inline", "must_understand": False, "metadata": dict(sorted(consolidated.items())),
        }  # fmt: skip
    return _write_metadata(path, about)


def _write_metadata(path: Path, about: Metadata) -> Metadata:
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / "zarr.json", json.dumps(about, indent=1, ensure_ascii=False))
    return about


def _plain(attributes: Mapping[Any, Any]) -> Metadata:
    """Attributes as JSON knows them."""
    return {
        str(name): value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in attributes.items()
    }
