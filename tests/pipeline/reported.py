"""A product as its report sees it, with names that would be markup if they were not escaped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from making import make_record

from citycover.classes.legend import Legend, LegendClass
from citycover.product.record import Given, RunRecord
from citycover.product.shown import Shown

EVIL = "<script>alert('x')</script>&\"b"
LEGEND = Legend(
    name="test",
    nodata=0,
    classes=(
        LegendClass(id=1, name="water & ice", color="#0000ff"),
        LegendClass(id=2, name=EVIL, color="#00ff00"),
        LegendClass(id=5, name="never seen", color="#ff0000"),
    ),
)


def given(**changes: Any) -> Given:
    return replace(make_record(LEGEND).given, **changes)


def show(record: RunRecord | None = None, **changes: Any) -> Shown:
    classes = np.array([[1, 1, 2, 2], [1, 0, 2, 2], [1, 1, 1, 2]], np.uint8)
    fields: dict[str, Any] = {
        "title": "scene.tif",
        "record": record or make_record(LEGEND),
        "image": np.arange(36, dtype=np.uint8).reshape(3, 4, 3),
        "valid": classes > 0,
        "classes": classes,
        "confidence": np.where(classes > 0, 200, 0).astype(np.uint8),
        "metres": 2.5,
        "cropped": False,
        "counts": {1: 300, 2: 100},
        "pixel_area": 4.0,
        "shape": (20, 20),
        "crs": "EPSG:32633",
    }
    return Shown(**(fields | changes))


def parse(page: str) -> ET.Element:
    """A strict parser takes it."""
    assert page.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def text_of(page: str) -> str:
    return " ".join(" ".join(parse(page).itertext()).split())
