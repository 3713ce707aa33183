"""Rasters in Zarr stores: an array, read by zarr-python, that answers as an open dataset of rasterio does.

A raster is called as the folder of its array (`a.zarr/r10m/red`), of Zarr 2 or 3, sharded or not. All that
describes and reads scenes asks an open dataset; `ZarrRaster` answers what is asked there, so nobody else has
to know what lies behind it. GDAL 3.10, which rasterio brings along, reads no array of Zarr 3.

A chunk that is not in a store is one of fill values by the rules of Zarr, whether it was never written or has
been lost since. `unwritten` tells of those, for readers to whom that is not the same.
"""

from __future__ import annotations

import base64
import math
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.windows import Window as RasterioWindow

from citycover.files.chunks import Axes, Chunks, as_raster_error
from citycover.files.folders import (
    Node,
    at_date,
    date_of,
    folder_of,
    groups_above,
    is_zarr,
    undated,
    zarr_format,
)
from citycover.files.georeference import check_unit, find_crs, find_time, find_transform
from citycover.files.remote import RemotePath
from citycover.files.zipped import ZippedPath

_DEEPEST = 8
"""Groups in groups: links may lead in a circle."""

_MOST_DATES = 100
"""Dates of an array that are meant where none is named."""

_LONGEST = 1 << 24
"""Coordinates that are read of an axis."""

_NODATA = ("_FillValue", "missing_value", "nodata")
"""Attributes that say which number is none."""


def arrays_in(path: str) -> list[tuple[str, str]]:
    """Paths of arrays of two dimensions or more in a store or group, in order of their names.

    Those that cannot be opened are among them: who opens them says why. An array of several dates is there
    once for each, as `at_date` has it, unless the path means one of them.

    Returns:
        Each with the name of what it shows. Levels of a pyramid that are arrays show the same; those that are
        groups hold arrays of the same names.

    Raises:
        RasterioError: the store cannot be opened.
    """
    plain = undated(path)
    node = _open(plain)
    with _looking():
        found = list(_arrays_in(node, plain, 0)) if _is_group(node) else [(plain, _name(plain))]
        return [(one, shown) for array, shown in found for one in _dates_of(array, date_of(path))]


def _dates_of(path: str, date: int | None) -> list[str]:
    """An array as it is at a date, or at each of its dates; as it is where it has one or too many."""
    try:
        array = _open(path)
        time = Axes.of(_dimension_names(array), array.shape, None).time
    except (RasterioError, ValueError):
        return [path]  # who opens it says why
    if time is None or at_date(path, 0) == path:
        return [path]
    count = array.shape[time]
    dates = range(count if count <= _MOST_DATES else 0) if date is None else [date]
    return [at_date(path, number) for number in dates] or [path]


def _arrays_in(group: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    levels = _levels(group.attrs.get("multiscales"))
    for inner, node in _members(group, path) if depth < _DEEPEST else ():
        if node is not None and _is_group(node):
            yield from _arrays_in(node, inner, depth + 1)
        elif node is None or node.ndim > 1:
            yield inner, _name(path) if Path(inner).name in levels else _name(inner)


def _members(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Paths of groups and arrays in a group, by name, and what they are; None: they cannot be opened.

    Raises:
        RasterioError: they cannot be listed, and the group does not name them.
    """
    place = folder_of(path)
    if isinstance(place, RemotePath) and not place.listed:
        if group.metadata.consolidated_metadata is None:
            raise RasterioIOError(
                f"its server does not list what it holds, and its metadata are not consolidated; name an "
                f"array in it, as {path}/red, or have them written: zarr.consolidate_metadata"
            )
        yield from (
            (str(place / name), node) for name, node in sorted(group.members(), key=lambda one: one[0])
        )
        return
    if isinstance(place, Path):
        names = [str(inner) for inner in sorted(place.iterdir()) if is_zarr(inner)]
    else:
        names = [str(inner) for name in place.folders() if is_zarr(inner := place / name)]
    for name in names:
        try:
            yield name, _open(name)
        except RasterioError:
            yield name, None


def _levels(multiscales: Any) -> dict[str, Mapping[str, Any]]:
    """What is said of levels of a pyramid in a group, by name; by the conventions of GeoZarr and of OME."""
    if isinstance(multiscales, Mapping):
        entries = multiscales.get("layout") or ()
    else:
        entries = [entry for scale in multiscales or () for entry in scale.get("datasets", ())]
    return {
        str(entry.get("asset", entry.get("path"))): entry for entry in entries if isinstance(entry, Mapping)
    }


def _open(path: str) -> Any:
    import zarr
    from zarr.storage import ObjectStore

    place, inside = folder_of(path), ""
    with _looking():
        store: Any = place
        if isinstance(place, RemotePath):
            store = ObjectStore(place.store(), read_only=True)
        elif isinstance(place, ZippedPath):
            store, inside = place.store(), place.key
        return zarr.open(store, mode="r", path=inside, zarr_format=zarr_format(place))


@contextmanager
def _looking() -> Iterator[None]:
    """Metadata are looked at: what zarr-python thinks of types that have no specification yet is not said."""
    with warnings.catch_warnings(), as_raster_error():
        warnings.simplefilter("ignore")
        yield


def _is_group(node: Any) -> bool:
    return hasattr(node, "members")


def _name(path: str) -> str:
    return Path(undated(path)).name.removesuffix(".zip").removesuffix(".zarr")


class ZarrRaster:
    """An open array: the part of rasterio's `DatasetReader` that scenes are described and read by.

    Not to be read by several threads at once.
    """

    driver = "Zarr"
    files: tuple[str, ...] = ()
    subdatasets: tuple[str, ...] = ()
    gcps: tuple[tuple[()], None] = ((), None)
    rpcs = None

    def __init__(self, path: str) -> None:
        """Open it: metadata and coordinates are read, no pixels.

        Raises:
            RasterioError: it is no array that can be read, or none of one raster.
        """
        self._path = path
        self._array = array = _open(path)
        if _is_group(array):
            raise RasterioIOError("it is a group of arrays; name one of them")
        _need_parts(array, folder_of(path))
        with _looking():
            around, attributes = _Around(path), dict(array.attrs)
            said = (attributes, *around.attributes)
            names = _dimension_names(array)
            spatial = next((one["spatial:dimensions"] for one in said if "spatial:dimensions" in one), None)
            self._axes = Axes.of(names, array.shape, spatial)
            time = self._axes.time
            date = 0 if time is None else _date_meant(path, array.shape[time])
            self._chunks = Chunks(array, self._axes, path, date)
            self.count, self.height, self.width = self._chunks.shape
            self.shape = self.height, self.width
            self._tell_numbers(array, attributes)
            self.descriptions = self._titles(attributes, names, around)
            self._locate(said, names, around)
            of_time = "time" if time is None else names[time]
            self._time = find_time(said, *around.moment(of_time, date))

    def _tell_numbers(self, array: Any, attributes: Mapping[str, Any]) -> None:
        """What numbers mean, and which of them means that there is none."""
        dtype = self._chunks.dtype
        if dtype.kind not in "iufc":
            raise ValueError(f"its values are {dtype}, no numbers of pixels")
        said = next((attributes[key] for key in _NODATA if attributes.get(key) is not None), None)
        if said is None and array.metadata.zarr_format == 2:
            said = array.fill_value  # by CF the same; in Zarr 3 it says nothing of pixels
        nodata = None if said is None else _number(said)
        unit = attributes.get("units")
        self.fill = _number(array.fill_value)
        self.nodatavals = (nodata,) * self.count
        self.scales = (_number(attributes.get("scale_factor", 1.0)),) * self.count
        self.offsets = (_number(attributes.get("add_offset", 0.0)),) * self.count
        self.units = (unit if isinstance(unit, str) else None,) * self.count
        self.dtypes = (dtype.name,) * self.count
        self.indexes = tuple(range(1, self.count + 1))
        self.block_shapes = [self._chunks.chunk[1:]] * self.count
        self.colorinterp = (ColorInterp.undefined,) * self.count
        self.mask_flag_enums = ([MaskFlags.all_valid if nodata is None else MaskFlags.nodata],) * self.count

    def _titles(
        self, attributes: Mapping[str, Any], names: Sequence[str | None], around: _Around
    ) -> tuple[str | None, ...]:
        """What bands are called: a single one as its array, others by coordinate or `long_name`."""
        if self._axes.band is None:
            return (_name(self._path),)
        said = attributes.get("long_name")
        if isinstance(said, list | tuple) and len(said) == self.count:
            return tuple(map(str, said))
        labels = around.axis(names[self._axes.band], self.count)
        if labels is None or labels.dtype.kind not in "OUT":
            return (None,) * self.count
        return tuple(map(str, labels))

    def _locate(
        self, said: Sequence[Mapping[str, Any]], names: Sequence[str | None], around: _Around
    ) -> None:
        name = str(said[0].get("grid_mapping") or "spatial_ref").split()[0].rstrip(":")
        mapping = around.attributes_of(name.rpartition("/")[2])
        crs = find_crs(said, mapping)
        self.crs = None if crs is None else CRS.from_wkt(crs.to_wkt())
        along = names[self._axes.y], names[self._axes.x]
        axes = around.axis(along[0], self.height), around.axis(along[1], self.width)
        for axis, centres in zip(along, axes, strict=True):
            if axis is not None and centres is not None:
                check_unit(around.attributes_of(axis).get("units"), crs, axis)
        self.transform = find_transform(said, mapping, axes, self.shape)

    def __enter__(self) -> ZarrRaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what was decoded."""
        self._chunks.close()

    def tags(self, ns: str | None = None) -> dict[str, str]:
        """Of the namespace `IMAGE_STRUCTURE` how pixels are compressed; else when they were taken."""
        if ns is None:
            return {"ACQUISITIONDATETIME": self._time} if self._time else {}
        codecs = [type(codec).__name__.removesuffix("Codec").upper() for codec in self._array.compressors]
        return {"COMPRESSION": codecs[-1]} if ns == "IMAGE_STRUCTURE" and codecs else {}

    def overviews(self, index: int) -> list[int]:  # noqa: ARG002 - the face of rasterio
        """None: a level of a pyramid is an array of its own."""
        return []

    def read(
        self,
        indexes: int | Sequence[int] | None = None,
        *,
        window: RasterioWindow | None = None,
        out: NDArray[Any] | None = None,
        out_shape: tuple[int, ...] | None = None,
        out_dtype: Any = None,
        masked: bool = False,
        **_: object,
    ) -> Any:
        """Read bands, or the nearest pixels of a smaller version, as rasterio does.

        Returns:
            (band, y, x), or (y, x) of a single index; with `masked`, nodata is.

        Raises:
            RasterioError: a chunk cannot be decoded.
        """
        numbers = [indexes] if isinstance(indexes, int) else list(indexes or self.indexes)
        part = window or RasterioWindow(0, 0, self.width, self.height)
        height, width = (out_shape or (part.height, part.width))[-2:]
        rows = _nearest(int(part.row_off), int(part.height), int(height))
        cols = _nearest(int(part.col_off), int(part.width), int(width))
        shape = len(numbers), len(rows), len(cols)
        values = np.empty(shape, out_dtype or self._chunks.dtype) if out is None else out
        self._chunks.read([number - 1 for number in numbers], rows, cols, values)
        found = values[0] if isinstance(indexes, int) else values
        return np.ma.MaskedArray(found, self._nowhere(found)) if masked else found

    def _nowhere(self, numbers: NDArray[Any]) -> NDArray[np.bool_]:
        nodata = self.nodatavals[0]
        if nodata is None:
            return np.zeros(numbers.shape, np.bool_)
        return np.asarray(np.isnan(numbers) if np.isnan(nodata) else numbers == nodata)

    def read_valid(
        self, indexes: Sequence[int], window: RasterioWindow
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read bands where a chunk that is not there may not count as pixels.

        Returns:
            (band, y, x), and (y, x) of where all of them have a value.

        Raises:
            RasterioError: a chunk cannot be decoded, or is not there, and its fill value is no nodata.
        """
        settled = math.isnan(self.fill) or self.fill == self.nodatavals[0]
        if not settled and (name := self.unwritten(indexes, window)):
            raise RasterioIOError(
                f"chunk {name} is not in the store, and {self.fill:g} would count as its pixels; if it was "
                "left out because it holds nothing else, write it: write_empty_chunks of zarr-python"
            )
        found = self.read(list(indexes), window=window, masked=True)
        return found.data, np.logical_not(np.ma.getmaskarray(found).any(0))

    def unwritten(self, indexes: Sequence[int], window: RasterioWindow) -> str | None:
        """A file that a window of bands needs and that the store does not hold; None: all are there."""
        rows, cols = (
            range(int(first), int(first + length))
            for first, length in ((window.row_off, window.height), (window.col_off, window.width))
        )
        return self._chunks.unwritten([index - 1 for index in indexes], rows, cols)


@dataclass
class _Around:
    """What lies around an array in its store: groups, up to the root, and the arrays in them."""

    path: str
    groups: list[Any] = field(default_factory=list)
    """The nearest first."""

    def __post_init__(self) -> None:
        self.groups += [_open(str(above)) for above in groups_above(self.path)]

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Of the groups, and before each what it says of the level that the array is, or lies in.

        A place is that of the arrays of a group; of arrays in groups below only where its shape tells which.
        """
        said: list[dict[str, Any]] = []
        inner = folder_of(self.path)
        for depth, group in enumerate(self.groups):
            attributes = dict(group.attrs)
            if level := _levels(attributes.get("multiscales")).get(inner.name):
                said.append(dict(level))
            for key in ("spatial", "proj") if depth else ():
                if f"{key}:shape" not in attributes:
                    attributes.pop(f"{key}:transform", None)
            said.append(attributes)
            inner = inner.parent
        return said

    def attributes_of(self, name: str) -> dict[str, Any]:
        """Those of the nearest array of a name; none where there is none."""
        found = (group.get(name) for group in self.groups)
        return next((dict(array.attrs) for array in found if array is not None), {})

    def moment(self, name: str | None, date: int) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Attributes of a coordinate of times, and the number at a date; (empty, None): there is none."""
        array = self.groups[0].get(name) if name and self.groups else None
        if array is None or _is_group(array) or array.ndim > 1 or not date < array.size <= _LONGEST:
            return {}, None
        return dict(array.attrs), np.asarray(array[...]).reshape(-1)[date]

    def axis(self, name: str | None, length: int) -> NDArray[Any] | None:
        """Coordinates along a dimension of the array; None: there are none."""
        array = self.groups[0].get(name) if name and self.groups else None
        if array is None or _is_group(array) or tuple(array.shape) != (length,) or length > _LONGEST:
            return None
        return np.asarray(array[...])


def _need_parts(array: Any, place: Node) -> None:
    """Raise RasterioError where parts of files are needed, and a server gives whole ones alone."""
    if not isinstance(place, RemotePath) or place.listed or not array.shards:
        return
    if not (place / "zarr.json").gives_parts():
        raise RasterioIOError("it has shards, and its server gives whole files alone (no ranges)")


def _date_meant(path: str, count: int) -> int:
    date = date_of(path)
    if date is None or date >= count:
        raise ValueError(f"it holds {count} dates; name one of them, as NAME.zarr@{count - 1}/{_name(path)}")
    return date


def _dimension_names(array: Any) -> tuple[str | None, ...]:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names and len(names) == array.ndim else (None,) * array.ndim


def _number(value: Any) -> float:
    """A number as JSON or as text; xarray writes floats of Zarr 3 as base64 of 8 bytes. NaN: it is none.

    >>> _number(7), _number("-9999"), _number("AAAAAAAA+H8=")
    (7.0, -9999.0, nan)
    """
    if isinstance(value, list | tuple):
        value = value[0]
    if value is None or isinstance(value, complex):
        return float("nan")
    try:
        return float(value)
    except ValueError:
        return float(struct.unpack("<d", base64.standard_b64decode(value))[0])


def _nearest(first: int, length: int, count: int) -> NDArray[np.intp]:
    """Pixels that the centres of `count` pixels over a stretch lie in.

    >>> _nearest(10, 6, 6).tolist(), _nearest(10, 6, 2).tolist()
    ([10, 11, 12, 13, 14, 15], [11, 14])
    """
    if count == length:
        return np.arange(first, first + length)
    return np.asarray(first + np.floor((np.arange(count) + 0.5) * length / count), np.intp)
