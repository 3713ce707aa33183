"""Labels that cannot be evidence, for every verb that takes some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

BAD_LABELS: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "elsewhere": ({"transform": Affine(10, 0, 9_000, 0, -10, 9_000)}, (), "they do not overlap"),
    "no such legend": ({}, ("--labels-legend", "moon"), "there is no legend 'moon'"),
    "one class": ({"values": lambda v: np.full_like(v, 2)}, (), "everywhere over the map"),
    "nothing": ({"values": np.zeros_like}, (), "have no label over the map"),
    "old codes": ({"values": lambda v: v * 10}, (), "these built-in legends hold all its ids"),
    "a picture": (
        {"values": lambda v: v.repeat(3, 0), "photometric": "RGB", "nodata": None},
        (),
        "needed is one band of class numbers",
    ),
    "too much trust": ({}, ("--trust", "1.2"), "--trust takes auto or a number from 0 to 1, got 1.2"),
}
"""What is wrong -> how the labels are changed, options, what is said: `map` and `sharpen` refuse alike."""


def changed(city: Path, path: Path, **changes: Any) -> Path:
    """The labels of the city with other values or metadata."""
    with rasterio.open(city / "labels_10m.tif") as source:
        values, profile = source.read(), source.profile
    values = changes.pop("values", lambda v: v)(values)
    profile |= {"count": len(values), "tiled": False} | changes
    with rasterio.open(path, "w", **profile) as out:
        out.write(values)
    return path
