"""What of a raster says that pixels are invalid: nodata, masks, opacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from citycover.errors import SceneError
from citycover.scene.given import Given
from citycover.scene.scene import Validity


def validities(flags: Sequence[Sequence[Any]], colours: Sequence[str]) -> tuple[Validity, ...]:
    """Where the validity of each band comes from.

    GDAL takes an alpha band for one only at the second or fourth place and of uint8 or uint16, and not at all
    beside a nodata tag; here alpha is what is tagged so.
    """
    found = [_validity(of_band) for of_band in flags]
    for i in range(len(found)):
        if found[i] in {"none", "nodata"} and "alpha" in (*colours[:i], *colours[i + 1 :]):
            found[i] = "alpha"
    return tuple(found)


def _validity(flags: Sequence[Any]) -> Validity:
    names = {flag.name for flag in flags}
    if "all_valid" in names:
        return "none"
    if "alpha" in names:
        return "alpha"
    # No flag at all is GDAL's word for a mask of each band.
    return "nodata" if names == {"nodata"} else "mask"


def band_nodata(
    tags: Sequence[float | None], masks: Sequence[Validity], dtypes: Sequence[str], given: Given
) -> tuple[float | None, ...]:
    """Nodata of each band, without numbers that cannot occur in its type.

    Args:
        tags: of the file.
        masks: where the validity of each band comes from; what is said elsewhere is for bands without one.
        dtypes: numpy names of pixel types.
        given: what is said elsewhere.
    """
    said = (given.nodata if mask == "none" else tag for tag, mask in zip(tags, masks, strict=True))
    return tuple(
        value if value is not None and can_occur(value, dtype) else None
        for value, dtype in zip(said, dtypes, strict=True)
    )


def check_nodata(path: str, dataset: Any, given: Given) -> None:
    """Raise SceneError where a scene file says a nodata that cannot stand in a band."""
    wrong = [d for d in dataset.dtypes if given.nodata is not None and not can_occur(given.nodata, d)]
    if given.strict and wrong:
        raise SceneError(
            f"{given.named} says nodata {given.nodata:g} of {path}, whose pixels are {wrong[0]} and cannot "
            f"be that; give the number that stands in its invalid pixels"
        )


def can_occur(value: float, dtype: str) -> bool:
    """True where a pixel of this type can hold the number: -9999 never occurs in uint8.

    >>> can_occur(-9999, "uint8"), can_occur(0.5, "int16"), can_occur(float("nan"), "float32")
    (False, False, True)
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return True
    if not float(value).is_integer():
        return False
    limits = np.iinfo(kind)
    return int(limits.min) <= int(value) <= int(limits.max)
