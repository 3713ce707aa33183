"""Scenes as they are delivered, and words about them: metadata of products, archives, scene files, masks."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from affine import Affine
from hypothesis import strategies as st
from mutate import edited_bytes
from target import Target, allowed, either

from citycover.errors import CitycoverError

_XML = b"""<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int">
<PRODUCT_START_TIME>2022-10-05T11:52:19.024Z</PRODUCT_START_TIME>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET band_id="1">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>
</n1:Level-2A_User_Product>"""

_MTL = b"""GROUP = LANDSAT_METADATA_FILE
    DATE_ACQUIRED = 2023-06-15
    SCENE_CENTER_TIME = "10:08:37.6160450Z"
    SUN_ELEVATION = 55.12345678
    REFLECTANCE_MULT_BAND_4 = 2.0000E-05
    REFLECTANCE_ADD_BAND_4 = -0.100000
END
"""

_STATED = b"""[[files]]
path = "scene*.tif"
bands = ["red", "green", "blue"]
time = 2024-05-31T10:00:00Z
nodata = 0
scale = 0.0001
offset = -0.1
unit = "reflectance"
"""

_RULES = [b"scl", b"qa_pixel=bits:3,4", b"SCL=3,8-10", b"clouds.tif=1"]

_MODELS = [b"spectral-rgb=0.5", b"spectral-rgb", b"a=b=2"]


def delivered_targets(folder: Path) -> list[Target]:
    """Targets; their rasters are made below `folder`."""
    scene = _raster(folder / "delivered.tif")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/red.tif", scene)
        archive.writestr("in/green.tif", scene)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name in ("in/red.tif", "in/green.tif"):
            info = tarfile.TarInfo(name)
            info.size = len(scene)
            tar.addfile(info, io.BytesIO(scene))
    safe = _product(scene, "MTD_MSIL2A.xml", "GRANULE/L2A/IMG_DATA/R10m/T29UNU_20221005T115219_B04_10m.jp2")
    landsat = _product(scene, "LC09_L1TP_193024_T1_MTL.txt", "LC09_L1TP_193024_T1_B4.TIF")
    return [
        Target("safe", ".xml", edited_bytes([_XML]), allowed(safe)),
        Target("mtl", ".txt", edited_bytes([_MTL]), allowed(landsat)),
        Target("zip", ".zip", edited_bytes([packed.getvalue()]), allowed(_describe)),
        Target("tar", ".tar", edited_bytes([tarred.getvalue()]), allowed(_describe)),
        Target("scene", ".toml", edited_bytes([_STATED]), allowed(_stated(scene))),
        Target(
            "zarr",
            ".json",
            either(*_zarr_metadata(folder / "z"), json.dumps),
            allowed(_in_zarr(folder / "z")),
        ),
        Target(
            "chunk",
            ".bin",
            edited_bytes([(folder / "z/a/c/0/0").read_bytes()]),
            allowed(_chunk(folder / "z")),
        ),
        Target("zipped", ".zip", edited_bytes([_zipped(folder / "z")]), allowed(_read)),
        Target("mask", ".txt", _words(_RULES), allowed(_mask)),
        Target("ensemble", ".txt", _words(_MODELS), allowed(_ensemble)),
    ]


def _zarr_metadata(store: Path) -> tuple[list[bytes], list[Any]]:
    """Write a store; what its group and its array say, as text and as values."""
    group = zarr.create_group(store, overwrite=True, attributes={
        "proj:code": "EPSG:32633", "spatial:shape": [16, 16],
        "spatial:transform": [10, 0, 5e5, 0, -10, 5.8e6],
        "multiscales": {"layout": [{"asset": "."}, {"asset": "1", "derived_from": "."}]},
    })  # fmt: skip
    group.create_array(
        "a", data=np.full((16, 16), 1500, np.uint16), chunks=(8, 8), dimension_names=("y", "x"),
        attributes={"_FillValue": 0, "scale_factor": 0.0001, "grid_mapping": "spatial_ref", "units": "m"},
    )  # fmt: skip
    texts = [(store / name).read_bytes() for name in ("zarr.json", "a/zarr.json")]
    return texts, [json.loads(text) for text in texts]


def _zipped(store: Path) -> bytes:
    """A store as one file."""
    return Path(shutil.make_archive(str(store), "zip", store)).read_bytes()


def _in_zarr(store: Path) -> Callable[[Path], Any]:
    """Reads a store whose group or array says what the input is."""

    def run(path: Path) -> Any:
        of_array = b'"array"' in path.read_bytes()
        copy = shutil.copytree(store, path.parent / "a.zarr", dirs_exist_ok=True)
        shutil.copy(path, copy / ("a/zarr.json" if of_array else "zarr.json"))
        return _read(copy)

    return run


def _chunk(store: Path) -> Callable[[Path], Any]:
    """Reads a store of which a chunk is the input."""

    def run(path: Path) -> Any:
        copy = shutil.copytree(store, path.parent / "a.zarr", dirs_exist_ok=True)
        shutil.copy(path, copy / "a/c/0/0")
        return _read(copy)

    return run


def _read(path: Path) -> Any:
    """Describe a scene, and read a corner of it."""
    from citycover.geometry.window import Window
    from citycover.read.raster import RasterReader

    group = _describe(path).groups[0]
    window = Window(0, 0, *(min(side, 20) for side in group.shape))
    values = np.empty((window.height, window.width, len(group.bands)), group.dtype)
    return RasterReader(group).read_into(window, values, np.empty(values.shape[:2], np.bool_))


def _words(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(edited_bytes(seeds), st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")))


def _raster(path: Path) -> bytes:
    profile = {
        "driver": "GTiff", "height": 16, "width": 16, "count": 1, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": Affine(10, 0, 5e5, 0, -10, 5.8e6), "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full((1, 16, 16), 1500, np.uint16))
    return path.read_bytes()


def _describe(path: Path) -> Any:
    from citycover.scene.assemble import describe_scene

    return describe_scene([path], None)


def _product(scene: bytes, metadata: str, image: str) -> Callable[[Path], Any]:
    """Reads a product whose metadata are the input."""

    def run(path: Path) -> Any:
        place = path.parent / "product"
        (place / image).parent.mkdir(parents=True, exist_ok=True)
        (place / image).write_bytes(scene)
        shutil.copy(path, place / metadata)
        return _describe(place)

    return run


def _stated(scene: bytes) -> Callable[[Path], Any]:
    def run(path: Path) -> Any:
        (path.parent / "scene1.tif").write_bytes(scene)
        return _describe(path)

    return run


def _mask(path: Path) -> Any:
    from citycover.scene.masking import Masking

    return Masking((path.read_bytes().decode("utf-8", "surrogateescape"),)).parsed


def _ensemble(path: Path) -> Any:
    from citycover.model.joint import read_map_model

    word = path.read_bytes().decode("utf-8", "surrogateescape")
    try:
        return read_map_model([word, "spectral-rgb"], "flips")
    except ValueError as error:  # a name that no file can have: every verb has a message for it
        if "null byte" not in str(error):
            raise
        raise CitycoverError(str(error)) from None
