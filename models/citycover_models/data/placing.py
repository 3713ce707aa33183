"""Images without a georeference: chips as PNG, for instance. Pixel lies on pixel of their labels."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from citycover.errors import ConfigError
from citycover.files.gdal import options_for
from citycover_models.data.pairs import PLACED, ImageAndLabels

logger = logging.getLogger(__name__)

_ROW = 1000
"""Images side by side, before the next row of them begins further north."""


def place(items: Sequence[ImageAndLabels]) -> list[ImageAndLabels]:
    """Give each image without a georeference, and its labels, a place of their own near the equator.

    Only the names change: GDAL reads the georeference from them. A pixel is taken as 1 m.

    Raises:
        ConfigError: labels of such an image have a georeference, or another size.
    """
    sizes = [bare_size(item.image) for item in items]
    bare = [size for size in sizes if size is not None]
    if not bare:
        return list(items)
    logger.warning(
        "%d of %d images have no georeference: their labels are laid on them pixel by pixel, and a pixel is "
        "taken as 1 m",
        len(bare), len(items),
    )  # fmt: skip
    spacing = 1 + max(max(size) for size in bare)
    placed = []
    for number, (item, size) in enumerate(zip(items, sizes, strict=True)):
        if size is None:
            placed.append(item)
            continue
        others = [*(("file", f) for f in item.further), *(("label raster", f) for f in item.labels)]
        for kind, label in others:
            if (other := bare_size(label)) != size:
                raise ConfigError(
                    f"{item.image} has no georeference and {size[1]} x {size[0]} px; {kind} "
                    f"{label} has {'one' if other is None else f'{other[1]} x {other[0]} px'}; needed are "
                    "labels of the same pixels, or an image with a CRS"
                )
        corner = spacing * (number % _ROW - _ROW // 2), spacing * (number // _ROW)
        image, *further = (_named(path, size, corner) for path in item.files)
        labels = tuple(_named(path, size, corner) for path in item.labels)
        placed.append(replace(item, image=image, further=tuple(further), labels=labels))
    return placed


def check_whose(items: Sequence[ImageAndLabels], what: str) -> None:
    """Refuse labels of several images that do not say where they lie: each would be laid on all.

    Args:
        items: images with labels that nobody has told apart.
        what: they are, for messages: `image`, `target`.

    Raises:
        ConfigError: there are such labels.
    """
    shared = Counter(label for item in items for label in item.labels)
    for item in items:
        label = next((label for label in item.labels if shared[label] > 1), None)
        if label is not None and bare_size(item.image) is not None:
            raise ConfigError(
                f"{what} {item.image} has no georeference, so nothing says whether {label} is of it or of "
                f"another {what}; give one {what}, or a --folder where images and labels are named alike"
                + (", or a --list" if what == "image" else "")
            )


def bare_size(path: str) -> tuple[int, int] | None:
    """(y, x) of a raster that says nothing of where it lies; None: it does, or it cannot be read."""
    try:
        with rasterio.Env(**options_for(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as file:
                known = file.crs is not None or not file.transform.is_identity or file.gcps[0] or file.rpcs
                return None if known else (file.height, file.width)
    except RasterioError:
        return None


def _named(path: str, size: tuple[int, int], corner: tuple[int, int]) -> str:
    """A GDAL connection string: the file, lying with its lower left corner at (x, y).

    Raises:
        ConfigError: the name cannot stand in one.
    """
    if "?" in path:
        raise ConfigError(f"{path} has no georeference and a question mark in its name; rename it")
    (height, width), (x, y) = size, corner
    return f"{PLACED}{path}?a_srs=EPSG:3857&a_ullr={x},{y + height},{x + width},{y}"
