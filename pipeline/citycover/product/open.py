"""A product folder opened again. xarray is imported by what gives datasets: to find a raster needs none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend
from citycover.errors import ConfigError, SceneError
from citycover.files.folders import is_zarr, refuse_partial, root_of, undated
from citycover.files.remote import Place, RemotePath, place_of
from citycover.plan.layers import CLASSES, LAYERS, USUAL
from citycover.product.dataset import as_dataset, grid_of_image
from citycover.product.folder import refuse_cut
from citycover.product.names import SIGN, ZARR
from citycover.product.record import read_record
from citycover.scene.file import check_class_file, describe_files
from citycover.scene.trust import Trust

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr


_CHUNKS = {"y": 2048, "x": 2048}


def lacking(folder: Place) -> list[str]:
    """Files without which nothing is derived from a product, and that are not there."""
    needed = [*(layer.file for layer in USUAL), "run.json"]
    if isinstance(folder, RemotePath):  # where no rename makes it appear at once
        needed.append(SIGN)
    return [name for name in needed if not (folder / name).is_file()]


def refuse_part(folder: Place) -> None:
    """Refuse what is left of a product.

    Raises:
        ConfigError: files are lacking, or the map was cut.
    """
    if missing := lacking(folder):
        raise ConfigError(
            f"{folder} holds no {' and no '.join(missing)}: it is a part of a product; give the folder as "
            "`citycover map` wrote it, or map again"
        )
    refuse_cut(folder, (CLASSES.file,))


def find_raster(path: Place, role: str = "map", trust: Trust = Trust()) -> tuple[Place, Legend | None]:  # noqa: B008
    """The class raster of a product folder with the legend that its run.json holds; or a raster as it is.

    Args:
        path: folder, or raster; on this machine or in an object store.
        role: `map` or `truth`, for messages.
        trust: which files the raster may name in turn.

    Raises:
        ConfigError: there is nothing, a folder that is no product or whose run.json cannot be read, or a
            raster that may not be read.
    """
    if is_zarr(path):
        return _find_array(path, role, trust)
    is_folder = path.is_dir()
    raster = path / CLASSES.file if is_folder else path
    if not raster.exists():
        what = f"holds no {CLASSES.file}" if is_folder else "does not exist"
        raise ConfigError(f"{path} {what}; give a folder that `citycover map` wrote, or a class raster")
    if is_folder and isinstance(path, RemotePath):
        refuse_part(path)
    check_class_file(raster, role, trust)
    run = raster.with_name("run.json")
    if raster.name != CLASSES.file or not run.is_file():
        return raster, None
    return raster, read_record(run).legend


def refuse_other_legend(path: Place, option: str, given: Legend, said: Legend) -> None:
    """Refuse a legend that is not the one which a product says its numbers are written in.

    Raises:
        ConfigError: its numbers mean other classes.
    """
    if differences := said.differences(given):
        raise ConfigError(
            f"{path} is of a product, and its numbers are written in {said.name!r}, not in {given.name!r} "
            f"({differences[0]}); leave {option} out, which says it of rasters that are no product"
        )


def _find_array(path: Place, role: str, trust: Trust) -> tuple[Place, Legend | None]:
    """The array of classes in a Zarr store, or the only one; beside its run.json, with the legend of that.

    Raises:
        ConfigError: it holds none, or several.
    """
    try:
        files = [file.path for file in describe_files([str(path)], trust)]
    except SceneError as error:
        raise ConfigError(f"{role} {error}") from None
    named = [file for file in files if Path(file).name == CLASSES.name]
    if len(found := files if len(files) == 1 else named) != 1:
        raise ConfigError(
            f"{role} {path} holds several arrays; needed is one of class numbers; name it, as "
            f"{' or '.join(files[:3])}"
        )
    root = place_of(undated(str(root_of(found[0]))))
    run = root.with_name("run.json")
    of_product = root.name == ZARR and found == named and run.is_file()
    return place_of(found[0]), read_record(run).legend if of_product else None


def open_product(folder: str | Place, trust: Trust = Trust()) -> xr.Dataset:  # noqa: B008
    """Open the layers of a product lazily, as `predict_array` gives them: of its Zarr, or of its COGs.

    Args:
        folder: on this machine, or `s3://bucket/prefix`.
        trust: which files the rasters of a folder on this machine may name in turn.

    Attributes: `run`, the content of run.json as text. Closing it closes the files.

    Raises:
        SceneError: the folder holds no finished product, or its Zarr is not whole.
        ConfigError: its run.json cannot be read, or a raster may not be read.

    Examples:
        >>> import tempfile, citycover
        >>> from citycover.synth.write import write_city
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = write_city(folder / "city", 128)
        >>> imagery = citycover.Imagery((str(folder / "city/image.tif"),))
        >>> _ = citycover.map_scene(citycover.MapRequest(imagery, folder / "product", layers=("entropy",)))
        >>> maps = citycover.open_product(folder / "product")
        >>> sorted(maps), maps.rio.crs.to_epsg()
        (['classes', 'confidence', 'entropy'], 32633)
        >>> maps.classes.attrs["flag_meanings"]
        'water dense_vegetation sparse_vegetation bare built-up'
    """
    folder = place_of(folder)
    if missing := lacking(folder):
        raise SceneError(
            f"{folder} holds no {' and no '.join(missing)}; give the folder that `citycover map` wrote, whole"
        )
    record = read_record(folder / "run.json")
    files = ExitStack()
    if (folder / ZARR).is_dir():
        refuse_partial(folder / ZARR)
        maps, grid = _of_zarr(folder / ZARR)
    else:
        maps, grid = _of_cogs(folder, trust, files)
    found = as_dataset(maps, grid, record.legend, record.card.channels).assign_attrs(run=record.to_json())
    found.set_close(files.close)
    return found


def _of_cogs(folder: Place, trust: Trust, files: ExitStack) -> tuple[dict[str, da.Array], GeoBox]:
    """Layers by name, and their grid; `files` closes what was opened."""
    import rioxarray
    import xarray as xr

    maps = {}
    for layer in (layer for layer in LAYERS if (folder / layer.file).is_file()):
        path = folder / layer.file
        if isinstance(path, Path):
            check_class_file(path, "layer", trust)
            raster = rioxarray.open_rasterio(path, chunks=_CHUNKS)
        else:
            raster = rioxarray.open_rasterio(
                path.address, chunks=_CHUNKS, opener=path.opener(), driver="GTiff"
            )
        assert isinstance(raster, xr.DataArray), "a COG of bands of one type is one array"
        files.callback(raster.close)
        maps[layer.name] = raster if layer.per_class else raster.squeeze("band", drop=True)
    grid = grid_of_image(maps[CLASSES.name])
    return {name: raster.data for name, raster in maps.items()}, grid


def _of_zarr(path: Place) -> tuple[dict[str, da.Array], GeoBox]:
    """Layers by name, and their grid; a dask chunk is a shard."""
    import xarray as xr
    from zarr.storage import ObjectStore

    place = path if isinstance(path, Path) else ObjectStore(path.store(), read_only=True)
    found = xr.open_zarr(place, mask_and_scale=False, decode_coords="all")
    grid = grid_of_image(found[CLASSES.name])
    return {layer.name: found[layer.name].data for layer in LAYERS if layer.name in found}, grid
