"""An array of an image as a network sees it: its bands, what their numbers mean, and where they are valid.

What the array does not say itself, colours and opacity, is asked of the file that it was opened from.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.errors import SceneError
from citycover.geometry.grid import pixel_ground_size
from citycover.geometry.window import Window
from citycover.model.card import BandGroup, ModelCard
from citycover.product.dataset import grid_of_image
from citycover.read.convert import convert
from citycover.read.numbers import expected_range, judge_numbers
from citycover.read.reader import Hole, Reader
from citycover.read.valid import differs
from citycover.scene.bands import SceneBand, name_bands
from citycover.scene.choose import match_bands, pick_bands
from citycover.scene.file import FileInfo, describe_file
from citycover.scene.groups import alpha_is_data, converted_type
from citycover.scene.gsd import gsd_mismatch
from citycover.scene.measure import Meaningless, Measure, conversion, measure_of
from citycover.scene.scene import BandSource, Scene, SceneGroup, Sheet, Validity
from citycover.scene.validity import can_occur

logger = logging.getLogger(__name__)

_TYPES = ("uint8", "uint16", "int16", "float32")

_USUAL = (("scale_factor", 1.0), ("add_offset", 0.0))
"""What CF attributes say where numbers are values."""

_LOOK = 64
"""Pixels along each side of the nine parts of an array whose numbers are looked at."""


@dataclass(frozen=True, slots=True)
class ArrayImage:
    """Pixels of an array, in the order of the network's bands."""

    image: xr.DataArray
    """(band, y, x): those of the network, then opacity, where there is some."""
    grid: GeoBox
    bands: tuple[BandSource, ...]
    """Of the network: what their numbers mean."""
    dtype: str
    """What the network is given."""

    def pixels(self, rows: slice, cols: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(band, y, x) numbers of a part as they stand in the array, and (y, x) where they are valid."""
        part = self.image[:, rows, cols].data
        # In the thread that asks: that is a task of dask already.
        every = np.asarray(part.compute(scheduler="synchronous") if hasattr(part, "compute") else part)
        numbers, opacity = every[: len(self.bands)], every[len(self.bands) :]
        valid: NDArray[np.bool_] = np.all(opacity > 0, axis=0)
        for plane, band in zip(numbers, self.bands, strict=True):
            if plane.dtype.kind == "f":
                valid &= np.isfinite(plane)
            if band.nodata is not None and not np.isnan(band.nodata):
                valid &= differs(plane, band.nodata)
        return numbers, valid


@dataclass
class ArrayReader:
    """Reads windows of an array, dask or not."""

    source: ArrayImage
    block: tuple[int, int] = (256, 256)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        _, height, width = self.source.image.shape
        return height, width

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.source.bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type."""
        return np.dtype(self.source.dtype)

    def read_into(self, window: Window, values: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[Hole, ...]:
        """Compute a window."""
        numbers, valid[...] = self.source.pixels(*window.slices)
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float32: inf, which is invalid
            for place, (plane, band) in enumerate(zip(numbers, self.source.bands, strict=True)):
                values[:, :, place] = plane if band.plain else convert(plane, band, values.dtype)
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=2)
        return ()

    def close(self) -> None:
        """Nothing to let go of."""


_: type[Reader] = ArrayReader


def understand_image(
    image: xr.DataArray, card: ModelCard, bands: Sequence[str] | None, nodata: float | None
) -> ArrayImage:
    """Choose bands, find grid, validity, meaning and type of the numbers."""
    _refuse_kind(image, card)
    group = card.groups[0]
    origin = _origin_of(image)
    known, wanted = _named_bands(image, origin), list(group.bands)
    try:
        places = pick_bands(bands, wanted, known, card.called) if bands else match_bands(card, wanted, known)
    except SceneError as error:
        raise SceneError(str(error).replace("--bands", "bands=")) from None
    grid = grid_of_image(image)
    if why := gsd_mismatch(grid, card):
        raise SceneError(why)
    nodata = image.rio.nodata if nodata is None else nodata
    value = float(nodata) if nodata is not None and can_occur(float(nodata), str(image.dtype)) else None
    sources = tuple(
        _band(image, _measure(image, origin, place), place, name, value, group)
        for place, name in zip(places, group.names, strict=True)
    )
    opacity = () if origin is None else origin.opacity(places)
    if origin is not None and not opacity and image.dtype.kind in "iu":
        origin.warn_of_lost_validity(places)
    return ArrayImage(image[[*places, *opacity]], grid, sources, _dtype(image, sources, card))


def _refuse_kind(image: xr.DataArray, card: ModelCard) -> None:
    """Raise SceneError for what is no (band, y, x) array that lies somewhere."""
    if not isinstance(image, xr.DataArray):
        raise SceneError(
            f"got {type(image).__name__}; a DataArray (band, y, x) is needed; "
            'make one of a Dataset with data.to_array("band").rio.write_crs(data.rio.crs)'
        )
    if len(card.groups) != 1:
        raise SceneError(
            f"model {card.name!r} takes {len(card.groups)} groups of bands, each on its own grid; an array "
            "has one grid: use `citycover map`"
        )
    if image.ndim != 3 or image.dims[0] != "band":
        raise SceneError(
            f"got an image of dimensions {image.dims}; (band, y, x) is needed; "
            "take one time with image.isel(time=0), drop what is one long with image.squeeze(), "
            'and put the bands first with image.transpose("band", "y", "x")'
        )
    if image.rio.crs is None:
        raise SceneError("the image has no CRS; set it with image.rio.write_crs(...)")


def _dtype(image: xr.DataArray, bands: Sequence[BandSource], card: ModelCard) -> str:
    """What the network is given.

    Raises:
        SceneError: it takes no such numbers.
    """
    group = card.groups[0]
    if not all(band.plain for band in bands):
        return converted_type(group)
    dtype = str(image.dtype)
    if dtype not in group.dtypes and "float32" in group.dtypes:
        dtype = "float32"
    if dtype not in _TYPES or dtype not in group.dtypes:
        raise SceneError(
            f"the image holds {image.dtype}; model {card.name!r} needs {' or '.join(group.dtypes)}; "
            "open it without masked=True, or image.fillna(nodata).astype(...) if its values fit"
        )
    return dtype


def _band(
    image: xr.DataArray,
    measure: Measure | Meaningless | None,
    place: int,
    name: str,
    nodata: float | None,
    group: BandGroup,
) -> BandSource:
    """What one band of the array means to the network."""
    gain, bias = conversion("the array", measure, None, group)
    validity: Validity = "none" if nodata is None else "nodata"
    told = measure is not None and group.unit != "dn"
    return BandSource(
        "array", place + 1, name, str(image.dtype), nodata, validity, gain=gain, bias=bias, told=told
    )


def _measure(image: xr.DataArray, origin: _Origin | None, place: int) -> Measure | Meaningless | None:
    """What the array, or the file that it was opened from, says of the numbers of a band."""
    scale, offset = (float(image.encoding.get(name, usual)) for name, usual in _USUAL)
    unit = image.attrs.get("units")
    unit = unit if isinstance(unit, str) else None
    if (scale, offset) != (1, 0):  # decoded by mask_and_scale: values, not numbers of the file
        said = measure_of("", scale, offset, unit)
        return Measure(unit=said.unit) if isinstance(said, Measure) else None
    if origin is not None:
        measures = origin.info.measures
        return measures[origin.numbers[place] - 1] if measures else None
    scale, offset = (float(image.attrs.get(name, usual)) for name, usual in _USUAL)
    return measure_of("", scale, offset, unit)


@dataclass(frozen=True, slots=True)
class _Origin:
    """The file that an array was opened from: rioxarray keeps its name as long as pixels are as they were."""

    info: FileInfo
    numbers: tuple[int, ...]
    """(band,) number of each band in the file, from 1."""

    @property
    def bands(self) -> tuple[SceneBand, ...]:
        """What the file says of the bands, colours among it, of which the array knows nothing."""
        return tuple(self.info.bands[number - 1] for number in self.numbers)

    def opacity(self, places: Sequence[int]) -> tuple[int, ...]:
        """Bands of the array that say where those at some places are valid."""
        if alpha_is_data(self.info, {(self.info.path, self.numbers[place]) for place in places}):
            return ()
        return tuple(place for place, band in enumerate(self.bands) if band.alpha)

    def warn_of_lost_validity(self, places: Sequence[int]) -> None:
        """Say it where the file has a mask, or opacity, which the array does not hold."""
        kinds = {self.info.masks[self.numbers[place] - 1] for place in places}
        data = alpha_is_data(self.info, {(self.info.path, self.numbers[place]) for place in places})
        if "mask" in kinds or ("alpha" in kinds and not data):
            logger.warning(
                "%s says which of its pixels are invalid, the array does not, and all are mapped; open it "
                "with masked=True and give .fillna(0).astype(...) with nodata=0, or its band of opacity too",
                self.info.name,
            )


def _origin_of(image: xr.DataArray) -> _Origin | None:
    """The file that an array was opened from; None: it is not known."""
    source = image.encoding.get("source")
    if not isinstance(source, str) or "band" not in image.coords or image["band"].dtype.kind not in "iu":
        return None
    try:
        info = describe_file(source)
    except SceneError:
        return None
    numbers = tuple(image["band"].values.tolist())
    return _Origin(info, numbers) if set(numbers) <= set(range(1, len(info.bands) + 1)) else None


def _named_bands(image: xr.DataArray, origin: _Origin | None) -> tuple[SceneBand, ...]:
    """Names that the bands answer to: those of the array, else those of the file that it was opened from."""
    said = _names(image)
    # rioxarray leaves `long_name` as it was when bands are put in another order.
    if origin is not None and (not any(said) or said == list(origin.info.descriptions)):
        return origin.bands
    return name_bands("array", said, ["undefined"] * image.shape[0])


def _names(image: xr.DataArray) -> list[str | None]:
    """What the array calls its bands."""
    said = image.attrs.get("long_name")
    if isinstance(said, (tuple, list)) and len(said) == image.shape[0]:
        return [None if name is None else str(name) for name in said]
    if "band" in image.coords and image.coords["band"].dtype.kind in "UO":
        return [str(name) for name in image.coords["band"].values]
    return [None] * image.shape[0]


def scene_of(source: ArrayImage, card: ModelCard) -> Scene:
    """A scene of one group whose bands lie in memory."""
    sheet = Sheet(source.bands, source.grid, Window(0, 0, *source.grid.shape))
    group = SceneGroup(card.groups[0].name, source.grid, (sheet,), source.dtype, (256, 256))
    return Scene((group,), gsd=max(pixel_ground_size(source.grid)))


def other_scale(source: ArrayImage, card: ModelCard) -> str | None:
    """A warning where numbers seem to be of another scale than the model's.

    What lies on dask is not computed, so it is not looked at.

    Raises:
        SceneError: they are of another scale for certain.
    """
    if source.image.chunks is not None:
        return None
    group, numbers = card.groups[0], []
    rows, cols = (_some_of(int(length)) for length in source.grid.shape)
    for row, col in itertools.product(rows, cols) if expected_range(group) is not None else ():
        planes, valid = source.pixels(row, col)
        for plane, band in zip(planes, source.bands, strict=True):
            numbers.append(plane[valid].astype(np.float64) * band.gain + band.bias)
    every = np.concatenate(numbers) if numbers else np.empty(0)
    try:
        return judge_numbers(every, source.bands, group, card.name, _in_python) if every.size else None
    except SceneError as error:
        raise SceneError(str(error).replace("numbers of array", "numbers of the array")) from None


def _some_of(length: int) -> list[slice]:
    """Three short parts of an axis."""
    side = min(_LOOK, length)
    return [slice(start, start + side) for start in ((length - side) * part // 2 for part in range(3))]


def _in_python(wanted: BandGroup, scale: float, offset: float) -> str:
    """What makes numbers that mean reflectance of `scale * number + offset` those of a network."""
    measure = (
        Measure(scale, offset) if wanted.unit == "reflectance" else Measure(scale * 10000, offset * 10000)
    )
    gain, bias = conversion("the array", None, measure, wanted)
    if (gain, bias) == (1, 0):
        return "image.attrs |= {'units': 'reflectance', 'scale_factor': 0.0001}"
    return f"image * {gain:g}{f' + {bias:g}' if bias else ''}"
