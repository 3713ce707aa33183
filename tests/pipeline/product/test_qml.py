"""Styles for QGIS: every class with its colour and name; a quantity with a ramp."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from citycover.classes.legend import Legend, LegendClass
from citycover.plan.layers import CLASSES, LAYERS, SECOND, Layer
from citycover.product.names import PRODUCT_FILES
from citycover.product.qml import write_style

LEGEND = Legend(
    name="test",
    classes=(
        LegendClass(id=1, name='water & "ice"', color="#0000ff"),
        LegendClass(id=7, name="forêt", color="#00ff00"),
    ),
)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_style_lies_beside_its_raster(tmp_path: Path, layer: Layer) -> None:
    write_style(tmp_path / layer.style, layer, LEGEND)
    assert Path(layer.style).stem == Path(layer.file).stem and layer.style in PRODUCT_FILES
    root = ET.parse(tmp_path / layer.style).getroot()
    renderer = root.find("pipe/rasterrenderer")
    assert root.tag == "qgis" and renderer is not None and renderer.get("band") == "1"
    if layer in (CLASSES, SECOND):
        entries = [(e.get("value"), e.get("color"), e.get("label")) for e in renderer.iter("paletteEntry")]
        assert entries == [("1", "#0000ff", 'water & "ice"'), ("7", "#00ff00", "forêt")]
    else:
        values = [float(item.get("value") or "nan") for item in renderer.iter("item")]
        assert values == [0, 0.25, 0.5, 0.75, 1]
