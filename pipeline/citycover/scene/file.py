"""FileInfo: what a raster file says about itself, read without a pixel."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from citycover.errors import ConfigError, SceneError
from citycover.files.folders import is_zarr, root_of, undated
from citycover.files.gdal import brief_reason, scene_options
from citycover.files.identity import FileStamp
from citycover.files.remote import Place, RemotePath
from citycover.files.zarr import ZarrRaster
from citycover.files.zipped import zipped
from citycover.geometry.grid import grid_of, ground_sample_distance
from citycover.scene.axes import check_axes, time_of
from citycover.scene.bands import SceneBand, fold, name_bands
from citycover.scene.find import rasters_of
from citycover.scene.given import Given
from citycover.scene.located import crs_name, obstacle_of
from citycover.scene.masking import KNOWN
from citycover.scene.measure import Meaningless, Measure, measure_of, nodata_of, stated_measure
from citycover.scene.parts import container_of, parts_of
from citycover.scene.scene import Promise, Validity
from citycover.scene.sources import (
    BandLoss,
    Fingerprint,
    Named,
    SourceLook,
    check_sources,
    fingerprints,
    nested_paths,
)
from citycover.scene.trust import REMOTE_DRIVERS, Trust
from citycover.scene.validity import band_nodata, check_nodata, validities
from citycover.scene.vrt import parse_sources
from citycover.scene.when import acquisition_time, said_time

_USUAL_BLOCK = (512, 512)
"""(y, x) of a COG, unless its maker chose another."""

_MASKS = frozenset(map(fold, KNOWN))


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One raster file by its metadata."""

    path: str
    """Absolute path, or a GDAL connection string as given."""
    driver: str
    shape: tuple[int, int]
    """(y, x)."""
    dtypes: tuple[str, ...]
    """numpy name of each band's pixel type."""
    block: tuple[int, int]
    """(y, x) shape of a compressed block."""
    compression: str | None
    interleave: str | None
    overviews: int
    """Number of smaller versions."""
    masks: tuple[Validity, ...]
    """Where the validity of each band comes from."""
    nodata: tuple[float | None, ...]
    """Nodata tag of each band, without those that cannot occur in its type."""
    descriptions: tuple[str | None, ...]
    colours: tuple[str, ...]
    """Colour interpretation of each band: red, green, gray, palette, alpha, undefined, ..."""
    transform: tuple[float, ...] | None
    """Six numbers of the affine transform, None: there is none."""
    crs: str | None
    """Name of the coordinate reference system: EPSG code where there is one."""
    grid: GeoBox | None
    """None where `obstacle` says why."""
    obstacle: str | None
    """Why the file cannot be mapped as it lies: no CRS, rotated, ...; with what to do. None: it can."""
    gsd: float | None
    """Ground sample distance in metres at the centre."""
    time: str | None
    """ISO 8601."""
    bands: tuple[SceneBand, ...]
    """Names that the bands answer to."""
    size: int
    """Bytes; 0 where unknown."""
    mtime_ns: int
    """Modification time; 0 where unknown."""
    beside: tuple[Fingerprint, ...] = ()
    """Other files that its pixels come from: the sources of a mosaic at any depth, a mask beside it."""
    losses: tuple[BandLoss, ...] = ()
    """Parts of a mosaic that are known to be lost."""
    measures: tuple[Measure | Meaningless | None, ...] = ()
    """What the numbers of each band mean; None: nothing says so."""
    promise: Promise | None = None
    """What an item says of it, where nobody opened it; None: it was looked at."""

    @property
    def name(self) -> str:
        """File name without its folder."""
        return Path(self.path).name


def describe_files(
    paths: Sequence[str | Path],
    trust: Trust = Trust(),  # noqa: B008 - a value
    *,
    opened: bool = False,
) -> tuple[FileInfo, ...]:
    """Read the metadata of files, and of the files that they name in turn.

    Args:
        paths: rasters, and what stands for several: see `find.py`.
        trust: which files they may name.
        opened: those too of which STAC items say all that planning needs.

    Raises:
        SceneError: a file is missing, unreadable, not a raster, or names files that it may not.
    """
    if not paths:
        raise SceneError("no scene was given; name at least one raster file")
    given = [_as_named(part) for one in rasters_of(paths, trust) for part in parts_of(one)]
    names = list(dict.fromkeys(Path(one.path).name for one in given))
    return tuple(_describe_file(replace(g, said=None) if opened else g, trust, names) for g in given)


def _as_named(given: Given) -> Given:
    """With the nodata that the name of a file tells, where nothing else does."""
    return given if given.nodata is not None else replace(given, nodata=nodata_of(Path(given.path).name))


def describe_file(path: str | Path, trust: Trust = Trust()) -> FileInfo:  # noqa: B008 - a value
    """Describe one raster, where no folder, pattern or index will do.

    Raises:
        SceneError: as for `describe_files`, or it is no raster itself.
    """
    info, *more = describe_files([path], trust)
    if more or info.path != _absolute(path):
        raise SceneError(
            f"{path} stands for {info.path}{f' and {len(more)} more' if more else ''}; needed is one raster; "
            f"name it, or make one of several first (gdalbuildvrt)"
        )
    return info


def _describe_file(given: Given, trust: Trust, names: Sequence[str]) -> FileInfo:
    path = given.path
    where = _absolute(path)
    local = Path(undated(where))
    is_local = local.exists()
    try:
        where.encode()
    except UnicodeEncodeError:
        raise SceneError(
            f"{where!a} has a name that is not UTF-8, which a product cannot write down; rename it"
        ) from None
    if any(not letter.isprintable() for letter in local.name):
        raise SceneError(
            f"{where!a} has characters in its name that cannot be printed; names stand in logs, XML and "
            f"pictures; rename it"
        )
    if is_local and not (local.is_file() or local.is_dir()):
        raise SceneError(f"{path} is a pipe, socket or device; a scene is read more than once; give a file")
    if not (is_local or _is_connection(where) or is_zarr(where)):
        raise SceneError(f"{path}: there is no such file; check the path")
    if is_local and local.is_file() and local.stat().st_size == 0:
        raise SceneError(f"{path}: the file is empty (0 bytes); fetch or copy it again")
    stamp = FileStamp.of(local) if is_local else None
    if (told := _as_said(where, stamp, names, given)) is not None:
        return told
    named = check_sources(where, trust)  # before GDAL opens it, and with it its sources
    try:
        with rasterio.Env(**scene_options([where])), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # `obstacle` says it better
            with _open(where, trust) as dataset:
                info = _read_info(where, dataset, stamp, names, given)
                return _with_sources(info, dataset, trust, named)
    except (RasterioError, UnicodeDecodeError) as error:  # GDAL quotes a broken file byte by byte
        if local.is_dir():
            raise SceneError(
                f"{path} is a folder without raster files; a scene is one or more of them; name them, or a "
                f"pattern such as '{path}/**/*.tif'"
            ) from None
        said = brief_reason(error).replace(f"'{where}'", "").replace(where, "").strip(" :'")
        raise SceneError(
            f"{path} cannot be opened as a raster (GDAL: {said}); "
            f"a scene is a GeoTIFF, JPEG 2000, VRT or the like; check that the file is whole; "
            f"formats that fetch their pixels elsewhere (WMS, WMTS, STAC tables) need --allow-remote"
        ) from None


def _as_said(path: str, stamp: FileStamp | None, names: Sequence[str], given: Given) -> FileInfo | None:
    """A file by what an item says of it; None where that is not enough.

    Blocks are those that a COG usually has. Masks, alpha and nodata are asked of the file when it is read.
    """
    said = given.said
    if said is None:
        return None
    name, count = Path(path).name, len(said.dtypes)
    titles = given.titles if len(given.titles) == count else (None,) * count
    colours = ("undefined",) * count
    bands = name_bands(name, titles, colours, names)
    alone = count == 1 and (bands[0].names or _MASKS.intersection(bands[0].literals))
    if None in titles and not alone:
        return None
    unmasked: list[Validity] = ["none"] * count
    nodata = band_nodata((None,) * count, unmasked, said.dtypes, given)
    measures = given.measures if len(given.measures) == count else ((1.0, 0.0, None),) * count
    height, width = said.grid.shape
    return FileInfo(
        path=path,
        driver="",
        shape=(int(height), int(width)),
        dtypes=said.dtypes,
        block=_USUAL_BLOCK,
        compression=None,
        interleave=None,
        overviews=0,
        masks=tuple("none" if value is None else "nodata" for value in nodata),
        nodata=nodata,
        descriptions=tuple(titles),
        colours=colours,
        transform=tuple(said.grid.transform)[:6],
        crs=str(said.grid.crs),
        grid=said.grid,
        obstacle=None,
        gsd=ground_sample_distance(said.grid),
        time=said_time(given.time) or acquisition_time(name, {}),
        bands=bands,
        size=stamp.size if stamp else 0,
        mtime_ns=stamp.mtime_ns if stamp else 0,
        measures=tuple(measure_of(name, *one) for one in measures),
        promise=Promise(given.named or name, said.grid, said.scaled),
    )


def _open(path: str, trust: Trust) -> Any:
    """Open a file in a format that holds its pixels itself; connection strings are the user's own words."""
    if is_zarr(path):
        return ZarrRaster(path)
    if trust.remote or (_is_connection(path) and not _archive_of(path)):
        return rasterio.open(path)
    with rasterio.Env() as env:
        drivers = [name for name in env.drivers() if name not in REMOTE_DRIVERS]
    return DatasetReader(path, driver=drivers)


def _with_sources(info: FileInfo, dataset: Any, trust: Trust, named: Named) -> FileInfo:
    """Add the files that the pixels come from, and what of them is lost."""
    if info.driver != "VRT":
        beside = [name for name in dataset.files if name.endswith(".msk")]
        beside += filter(None, [_archive_of(info.path), container_of(info.path)])
        return replace(info, beside=fingerprints(beside)) if beside else info
    sources = named.get(info.path)
    if sources is None:  # in an archive, across the network, or a `vrt://` of the user's own
        sources = parse_sources(
            dataset.tags(ns="xml:VRT").get("xml:VRT", "<VRTDataset/>").encode(), _named(info.path)
        )
        named = check_sources(_named(info.path), trust, sources)
    losses = SourceLook(named).losses(sources, info.shape)
    lost = {loss.path for _, loss in losses}
    if lost and lost >= {source.path for source in sources if source.placed}:
        raise SceneError(
            f"{info.path}: none of its {len(lost)} sources can be read ({losses[0][1].path}: "
            f"{losses[0][1].reason}); bring them back, or make the mosaic anew (gdalbuildvrt)"
        )
    return replace(info, beside=fingerprints(list(nested_paths(sources, named))), losses=tuple(losses))


def _named(path: str) -> str:
    """The file behind `vrt://file?options`."""
    return path.removeprefix("vrt://").partition("?")[0] if path.startswith("vrt://") else path


def lost_sources(files: Sequence[FileInfo]) -> str | None:
    """A warning of what is known to be lost before anything is read; None: nothing is."""
    losses = {loss.path: (info, loss) for info in files for _, loss in info.losses}
    if not losses:
        return None
    total = len({source[0] for info in files if info.losses for source in info.beside})
    info, first = next(iter(losses.values()))
    return (
        f"{len(losses)} of {total} sources of {info.name} cannot be read ({first.path}: {first.reason}); "
        f"their places become nodata"
    )


def check_class_file(path: str | Place, role: str, trust: Trust) -> tuple[str, ...]:
    """Look at a raster of class numbers first: what it names in turn, and whether all of it is there.

    A hole in an image is left out of its map; in numbers that are compared or learned it would be class 0.

    Args:
        path: what the user named.
        role: `map`, `truth` or `labels`, for messages.
        trust: which files it may name in turn.

    Returns:
        Paths of the files that its pixels come from in turn.

    Raises:
        ConfigError: it is missing, no raster or several, names what it may not, or has lost sources.
    """
    if isinstance(path, RemotePath):
        return ()  # a GeoTIFF, see `open_raster`: it names no file
    try:
        info = describe_file(path, trust)
    except SceneError as error:
        raise ConfigError(f"{role} {error}") from None
    if lost := {loss.path: loss.reason for _, loss in info.losses}:
        first, reason = next(iter(lost.items()))
        raise ConfigError(
            f"{role} {path}: {len(lost)} of its sources cannot be read ({first}: {reason}); their places "
            f"would count as a class; bring them back, or make the mosaic anew (gdalbuildvrt)"
        )
    return tuple(file for file, _, _ in info.beside)


def _absolute(path: str | Path) -> str:
    text = str(path)
    return text if isinstance(path, str) and _is_connection(text) else str(Path(text).absolute())


def _archive_of(path: str) -> str | None:
    """The archive that a file lies in; None: it lies in none, or in one across the network."""
    if (inside := zipped(undated(path))) is not None:
        return str(inside.archive)
    if not path.startswith(("/vsizip/", "/vsitar/")):
        return None
    whole = Path(path.removeprefix(path[:8]))
    return next((str(part) for part in (whole, *whole.parents) if part.is_file()), None)


def _is_connection(text: str) -> bool:
    """True for what GDAL understands and a file system does not: /vsi..., https://..., NETCDF:..."""
    return text.startswith("/vsi") or "://" in text or bool(re.match(r"[A-Za-z][A-Za-z0-9_]+:", text))


def _read_info(
    path: str, dataset: Any, stamp: FileStamp | None, names: Sequence[str], given: Given
) -> FileInfo:
    if dataset.count == 0:
        inner = dataset.subdatasets
        remedy = f"name one of its {len(inner)} parts, such as {inner[0]}" if inner else "give another file"
        raise SceneError(f"{path} holds no bands of its own; a scene needs pixels; {remedy}")
    check_axes(path, dataset)
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    obstacle = obstacle_of(path, dataset)
    grid = None if obstacle else grid_of(dataset)
    name = Path(path).name
    colours = tuple(c.name.lower() for c in dataset.colorinterp)
    check_nodata(path, dataset, given)
    titles = _titles(path, dataset, given, colours)
    masks = validities(dataset.mask_flag_enums, colours)
    return FileInfo(
        path=path,
        driver=dataset.driver,
        shape=(dataset.height, dataset.width),
        dtypes=tuple(dataset.dtypes),
        block=_block(dataset),
        compression=structure.get("COMPRESSION"),
        interleave=structure.get("INTERLEAVE"),
        overviews=len(dataset.overviews(1)),
        masks=tuple("nodata" if m == "none" and given.nodata is not None else m for m in masks),
        nodata=band_nodata(dataset.nodatavals, masks, dataset.dtypes, given),
        descriptions=tuple(titles),
        colours=colours,
        transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
        crs=crs_name(dataset),
        grid=grid,
        obstacle=obstacle,
        gsd=ground_sample_distance(grid) if grid is not None else None,
        time=said_time(given.time) or acquisition_time(name, dataset.tags()) or time_of(dataset),
        bands=_bands(path, titles, colours, names),
        size=stamp.size if stamp else 0,
        mtime_ns=stamp.mtime_ns if stamp else 0,
        measures=_measures(name, dataset, given),
    )


def _bands(
    path: str, titles: Sequence[str | None], colours: Sequence[str], names: Sequence[str]
) -> tuple[SceneBand, ...]:
    """What bands answer to; where they stand is told with the store of an array: many have such arrays."""
    bands = name_bands(Path(path).name, titles, colours, names)
    if not is_zarr(path):
        return bands
    where = path.removeprefix(f"{root_of(path).parent}/")
    return tuple(replace(band, file=where) for band in bands)


def _titles(path: str, dataset: Any, given: Given, colours: Sequence[str]) -> Sequence[str | None]:
    """Names of all bands: as they are said elsewhere, which need not name opacity, else of the file.

    Raises:
        SceneError: an item or a scene file names others than there are.
    """
    said = given.titles
    if len(said) == dataset.count:
        return said
    if not said or given.named is None:
        return tuple(dataset.descriptions)
    if len(said) == dataset.count - colours.count("alpha") and not given.strict:
        names = iter(said)
        return tuple(None if colour == "alpha" else next(names) for colour in colours)
    raise SceneError(
        f"{path} has {dataset.count} bands, and {given.named} names {len(said)}: {', '.join(said)}; "
        f"name each once, in the order of the file"
    )


def _measures(name: str, dataset: Any, given: Given) -> tuple[Measure | Meaningless | None, ...]:
    said = given.measures * (dataset.count if len(given.measures) == 1 else 1)
    if given.strict and said:  # in words of the user: a scale of 1 is meant, too
        return tuple(stated_measure(*one) for one in said)
    if len(said) != dataset.count or all(one == (1.0, 0.0, None) for one in said):
        said = tuple(zip(dataset.scales, dataset.offsets, dataset.units, strict=True))
    return tuple(measure_of(name, *one) for one in said)


def _block(dataset: Any) -> tuple[int, int]:
    shapes = dataset.block_shapes
    return max(s[0] for s in shapes), max(s[1] for s in shapes)
