"""Hypothesis strategies that tests of several rooms share: small, valid and varied."""

from __future__ import annotations

from typing import Any

import numpy as np
from affine import Affine
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from making import make_card, make_scene, plan_of
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from citycover.classes.legend import Legend, LegendClass
from citycover.geometry.window import Window
from citycover.plan.axis import Axis
from citycover.plan.plan import Plan
from citycover.read.reader import Hole
from citycover.scene.scene import Scene


def shapes(most: int = 90) -> st.SearchStrategy[tuple[int, int]]:
    """(y, x) of a raster."""
    return st.tuples(st.integers(1, most), st.integers(1, most))


@st.composite
def windows(draw: st.DrawFn, shape: tuple[int, int]) -> Window:
    """A window inside of a raster."""
    row, col = (draw(st.integers(0, n - 1)) for n in shape)
    return Window(row, col, draw(st.integers(1, shape[0] - row)), draw(st.integers(1, shape[1] - col)))


@st.composite
def grids(draw: st.DrawFn, most: int = 90) -> GeoBox:
    """A grid in metres whose pixels may be no squares, north up."""
    sides = st.sampled_from([0.1, 0.25, 1.0, 3.0, 10.0, 30.0])
    west, north = draw(st.integers(200_000, 800_000)), draw(st.integers(1_000_000, 9_000_000))
    zone = draw(st.sampled_from([32601, 32633, 32733]))
    return GeoBox(draw(shapes(most)), Affine(draw(sides), 0, west, 0, -draw(sides), north), f"EPSG:{zone}")


@st.composite
def legends(draw: st.DrawFn, most: int = 9) -> Legend:
    """Classes of any ids in any order, with or without a number for nodata."""
    ids = draw(st.lists(st.integers(1, 255), min_size=1, max_size=most, unique=True))
    classes = tuple(LegendClass(id=i, name=f"class {i}", color=f"#{i:02x}{255 - i:02x}00") for i in ids)
    return Legend(name="drawn", nodata=draw(st.sampled_from([None, 0])), classes=classes)


@st.composite
def class_rasters(draw: st.DrawFn, legend: Legend) -> NDArray[np.uint8]:
    """(y, x) ids of a legend, its nodata too."""
    nodata = [] if legend.nodata is None else [legend.nodata]
    return draw(arrays(np.uint8, draw(shapes(20)), elements=st.sampled_from([*legend.ids, *nodata])))


def scenes(most: int = 90) -> st.SearchStrategy[Scene]:
    """A scene of one to three band groups, the later ones coarser."""
    ratios = st.sampled_from([(1,), (1, 2), (1, 2, 6)])
    return st.builds(make_scene, shapes(most), ratios)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    """Windows along one axis."""
    feather = draw(st.integers(0, 12))
    step = draw(st.integers(max(1, feather), 40))
    return Axis(draw(st.integers(1, 200)), step, draw(st.integers(0, 9)), feather)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Windows of 40 px and blocks of any size over a scene of one group."""
    card = make_card(40, 3, draw(st.integers(0, 6)))
    block = draw(st.tuples(st.integers(9, 90), st.integers(9, 90)))
    return plan_of(make_scene(draw(shapes(300))), card, block=block)


@st.composite
def holes(draw: st.DrawFn) -> Hole:
    """What could not be read; path and reason are any text."""
    return Hole(draw(windows((10**6, 10**6))), draw(st.text()), draw(st.text()))


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """A raster, windows and blocks over it, and how it is masked."""
    feather, trim = draw(st.integers(0, 6)), draw(st.integers(3, 6))
    mask = draw(st.sampled_from(["none", "scattered", "half", "corner", "all"]))
    return {
        "shape": draw(st.tuples(st.integers(1, 90), st.integers(1, 90))),
        "window": draw(st.integers(2 * trim + 2 * max(feather, 1), 60)),
        "trim": trim,
        "feather": feather,
        "block": draw(st.tuples(st.integers(5, 60), st.integers(5, 60))),
        "batch": draw(st.integers(1, 4)),
        "mask": mask,
    }
