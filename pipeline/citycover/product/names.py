"""What the files of a product are called."""

from __future__ import annotations

PRODUCT_FILES = frozenset(
    {
        "landcover.tif",
        "landcover.tif.aux.xml",
        "landcover.zarr",
        "confidence.tif",
        "confidence.tif.aux.xml",
        "entropy.tif",
        "entropy.tif.aux.xml",
        "labels.tif",
        "labels.tif.aux.xml",
        "run.json",
        "preview.png",
        "report.html",
        "item.json",
    }
)
"""Every name that a product may hold; nothing else in a folder is ever touched."""

SIGN = "item.json"
