"""What the files of a product are called."""

from __future__ import annotations

from citycover.plan.layers import LAYERS

_RASTERS = tuple(layer.file for layer in LAYERS)

PRODUCT_FILES = frozenset(
    {
        *_RASTERS,
        *(f"{name}.aux.xml" for name in _RASTERS),
        "landcover.zarr",
        "run.json",
        "preview.png",
        "report.html",
        "item.json",
    }
)
"""Every name that a product may hold; nothing else in a folder is ever touched."""

SIGN = "item.json"
