"""What the files of a product are called."""

from __future__ import annotations

from pathlib import Path

from citycover.plan.layers import LAYERS

ZARR = "landcover.zarr"
"""All layers in one store."""

HOLES = "holes.geojson"
"""Parts of the imagery that could not be read; there where there are any."""

_RASTERS = tuple(layer.file for layer in LAYERS)

PRODUCT_FILES = frozenset(
    {
        *_RASTERS,
        *(f"{name}.aux.xml" for name in _RASTERS),
        *(layer.style for layer in LAYERS),
        ZARR,
        "run.json",
        HOLES,
        "preview.png",
        "report.html",
        "item.json",
    }
)
"""Every name that a product may hold; nothing else in a folder is ever touched."""

SIGN = "item.json"

SHARPENING = Path(".sharpen") / "begun.json"
"""There where a product is made from labels of its place, with the training and a report beside it."""

BESIDE = frozenset({".sharpen", "training", "training-selecting", "sharpen.json", "sharpen.png"})
"""What then may lie in the folder too."""
