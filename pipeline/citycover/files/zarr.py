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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.windows import Window as RasterioWindow

from citycover.files.chunks import Axes, Chunks
from citycover.files.folders import Node, date_of, folder_of
from citycover.files.georeference import check_unit, find_crs, find_time, find_transform
from citycover.files.nodes import Around, dimension_names, is_group, looking, name_of, open_node
from citycover.files.remote import RemotePath

_NODATA = ("_FillValue", "missing_value", "nodata")
"""Attributes that say which number is none."""


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
        self._array = array = open_node(path)
        if is_group(array):
            raise RasterioIOError("it is a group of arrays; name one of them")
        _need_parts(array, folder_of(path))
        with looking():
            around, attributes = Around(path), dict(array.attrs)
            said = (attributes, *around.attributes)
            names = dimension_names(array)
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
        self, attributes: Mapping[str, Any], names: Sequence[str | None], around: Around
    ) -> tuple[str | None, ...]:
        """What bands are called: a single one as its array, others by coordinate or `long_name`."""
        if self._axes.band is None:
            return (name_of(self._path),)
        said = attributes.get("long_name")
        if isinstance(said, list | tuple) and len(said) == self.count:
            return tuple(map(str, said))
        labels = around.axis(names[self._axes.band], self.count)
        if labels is None or labels.dtype.kind not in "OUT":
            return (None,) * self.count
        return tuple(map(str, labels))

    def _locate(self, said: Sequence[Mapping[str, Any]], names: Sequence[str | None], around: Around) -> None:
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


def _need_parts(array: Any, place: Node) -> None:
    """Raise RasterioError where parts of files are needed, and a server gives whole ones alone."""
    if not isinstance(place, RemotePath) or place.listed or not array.shards:
        return
    if not (place / "zarr.json").gives_parts():
        raise RasterioIOError("it has shards, and its server gives whole files alone (no ranges)")


def _date_meant(path: str, count: int) -> int:
    date = date_of(path)
    if date is None or date >= count:
        raise ValueError(
            f"it holds {count} dates; name one of them, as NAME.zarr@{count - 1}/{name_of(path)}"
        )
    return date


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
