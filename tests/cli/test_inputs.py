"""Whatever a scene is given as, its map is that of the one raster that it was cut from."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
import rioxarray
from affine import Affine
from conftest import Result, write_scene
from stores import geozarr, write_arrays, write_xarray

OPTIONS = ("--model", "spectral-rgbn", "--device", "cpu", "--window", "64", "--precision", "fp32", "--quiet")

PLACES = [(row, col) for row in (0, 45) for col in (0, 60)]

NAMES = ("red", "green", "blue", "nir")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster, and the four sheets that it was cut into."""
    folder = tmp_path_factory.mktemp("inputs")
    with rasterio.open(write_scene(folder / "whole.tif")) as file:
        values = file.read()
    for row, col in PLACES:
        part = values[:, row : row + 45, col : col + 60]
        at = Affine(1, 0, 500_000 + col, 0, -1, 5_800_000 - row)
        write_scene(folder / f"sheets/{row}_{col}.tif", part.shape[1:], values=part, transform=at)
    return folder


def zipped(place: Path) -> list[str]:
    return [shutil.make_archive(str(place / "a"), "zip", place / "sheets")]


def in_zip(place: Path) -> list[str]:
    (archive,) = zipped(place)
    return [f"/vsizip/{archive}/{row}_{col}.tif" for row, col in PLACES]


def tarred(place: Path) -> list[str]:
    with tarfile.open(place / "a.tar", "w") as archive:
        for row, col in PLACES:
            archive.add(place / f"sheets/{row}_{col}.tif", f"{row}_{col}.tif")
    return [str(place / "a.tar")]


def index(place: Path) -> list[str]:
    names = [{"location": f"sheets/{row}_{col}.tif"} for row, col in PLACES]
    features = [{"type": "Feature", "geometry": None, "properties": name} for name in names]
    path = place / "index.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return [str(path)]


def item(place: Path, row: int, col: int) -> dict[str, Any]:
    asset = {"href": f"sheets/{row}_{col}.tif", "roles": ["data"], "eo:bands": [{"name": n} for n in NAMES]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"{row}-{col}", "geometry": None, "links": [],
        "properties": {"datetime": "2024-05-31T10:00:00Z"}, "assets": {"image": asset},
    }  # fmt: skip


def items(place: Path) -> list[str]:
    features = [item(place, *at) for at in PLACES]
    (place / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return [str(place / "items.json")]


def static(place: Path) -> list[str]:
    for number, at in enumerate(PLACES):
        (place / f"item{number}.json").write_text(json.dumps(item(place, *at)))
    links = [{"rel": "item", "href": f"./item{number}.json"} for number in range(4)]
    content = {"type": "Collection", "stac_version": "1.0.0", "id": "c", "links": links}
    (place / "collection.json").write_text(json.dumps(content))
    return [str(place / "collection.json")]


def single_items(place: Path) -> list[str]:
    static(place)
    return [str(place / f"item{number}.json") for number in range(4)]


def vrt(place: Path) -> list[str]:
    bands = []
    for band, name in enumerate(NAMES, 1):
        sources = "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">sheets/{row}_{col}.tif</SourceFilename>'
            f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="60" ySize="45"/>'
            f'<DstRect xOff="{col}" yOff="{row}" xSize="60" ySize="45"/></SimpleSource>'
            for row, col in PLACES
        )
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{band}"><Description>{name}</Description>{sources}'
        )
    (place / "all.vrt").write_text(
        '<VRTDataset rasterXSize="120" rasterYSize="90"><SRS>EPSG:32633</SRS><GeoTransform>500000,1,0,'
        f"5800000,0,-1</GeoTransform>{'</VRTRasterBand>'.join(bands)}</VRTRasterBand></VRTDataset>"
    )
    return [str(place / "all.vrt")]


def stated(place: Path) -> list[str]:
    (place / "scene.toml").write_text('[[files]]\npath = "sheets/*.tif"\n')
    return [str(place / "scene.toml")]


def netcdf(place: Path) -> list[str]:
    path = str(place / "a.nc")
    rasterio.shutil.copy(place / "whole.tif", path, driver="netCDF", FORMAT="NC4")
    return [path, "--bands", "1,2,3,4"]


def subdatasets(place: Path) -> list[str]:
    (path, *bands) = netcdf(place)
    return [*(f'NETCDF:"{path}":Band{number}' for number in range(1, 5)), *bands]


def whole(place: Path) -> np.ndarray:
    with rasterio.open(place / "whole.tif") as file:
        return file.read()


def one_array(place: Path) -> list[str]:
    """As zarr-python writes it with the conventions of GeoZarr."""
    said = geozarr(90, 120) | {"spatial:transform": [1, 0, 500_000, 0, -1, 5_800_000]}
    store = write_arrays(
        place / "one.zarr", {"a": whole(place)}, ("band", "y", "x"), said, chunks=(4, 32, 32)
    )
    return [str(store), "--bands", "1,2,3,4"]


def sharded(place: Path) -> list[str]:
    """As xarray writes it."""
    bands = dict(zip(NAMES, whole(place), strict=True))
    return [str(write_xarray(place / "s.zarr", bands, {"chunks": (16, 16), "shards": (48, 64)}))]


def zarr_2(place: Path) -> list[str]:
    """As rioxarray has it from the file."""
    with rioxarray.open_rasterio(place / "whole.tif") as image:
        image.to_dataset(name="image").to_zarr(place / "2.zarr", zarr_format=2, consolidated=False)
    return [str(place / "2.zarr")]


INPUTS: dict[str, Callable[[Path], list[str]]] = {
    "files": lambda place: [str(place / f"sheets/{row}_{col}.tif") for row, col in reversed(PLACES)],
    "a folder": lambda place: [str(place / "sheets")],
    "a pattern": lambda place: [f"{place}/**/*_*.tif"],
    "a zip": zipped, "files in a zip": in_zip, "a tar": tarred, "a tile index": index, "a mosaic": vrt,
    "an item collection": items, "items": single_items, "a static collection": static,
    "a scene file": stated, "NetCDF": netcdf, "subdatasets": subdatasets,
    "an array of Zarr 3": one_array, "Zarr 3 in shards": sharded, "Zarr 2": zarr_2,
}  # fmt: skip


def test_every_kind_of_input_gives_the_map_of_the_raster(
    citycover: Callable[..., Result], place: Path, tmp_path: Path
) -> None:
    def mapped(*given: str) -> np.ndarray:
        done = citycover("map", *given, *OPTIONS, "-o", tmp_path / "out", "--overwrite")
        assert done.code == 0, (given, done.err)
        with rasterio.open(tmp_path / "out/landcover.tif") as file:
            return file.read()

    wanted = mapped(str(place / "whole.tif"))
    for kind, given in INPUTS.items():
        np.testing.assert_array_equal(mapped(*given(place)), wanted, kind)
