"""Styles beside the rasters, in which QGIS shows them as it opens them: `landcover.qml` for `landcover.tif`.

QGIS knows names and colours of classes from a GeoTIFF only in part, and a quantity it draws in grey.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from citycover.classes.legend import Legend
from citycover.files.atomic import write_atomic
from citycover.plan.layers import Layer

_RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""Dark to light, evenly perceived, also by the colour-blind."""


def write_style(path: Path, layer: Layer, legend: Legend) -> None:
    """Write the style of a layer."""
    root = Element("qgis", version="3.28", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    if layer.categorical:
        _classes(pipe, legend)
    else:
        _quantity(pipe)
    indent(root, space=" ")
    kind = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    write_atomic(path, kind + tostring(root, encoding="unicode") + "\n")


def _classes(pipe: Element, legend: Legend) -> None:
    """A colour and a name each."""
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = SubElement(renderer, "colorPalette")
    for one in legend.classes:
        SubElement(palette, "paletteEntry", value=str(one.id), color=one.color, alpha="255", label=one.name)


def _quantity(pipe: Element) -> None:
    """A ramp from 0 to 1; QGIS applies the scale of the band."""
    limits = {"classificationMin": "0", "classificationMax": "1"}
    kind = "singlebandpseudocolor"
    renderer = SubElement(pipe, "rasterrenderer", limits, type=kind, band="1", opacity="1", alphaBand="-1")
    ramp = {
        "colorRampType": "INTERPOLATED",
        "minimumValue": "0",
        "maximumValue": "1",
        "classificationMode": "1",
    }
    shader = SubElement(
        SubElement(renderer, "rastershader"), "colorrampshader", ramp, classificationMode="1", clip="0"
    )
    for step, color in enumerate(_RAMP):
        value = f"{step / (len(_RAMP) - 1):g}"
        SubElement(shader, "item", value=value, color=color, alpha="255", label=value)
