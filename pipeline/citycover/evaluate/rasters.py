"""A map against a raster of truth."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from citycover.classes.legend import Legend
from citycover.classes.raster import ClassRaster, Progress, refuse_apart
from citycover.classes.table import ClassTable
from citycover.errors import ConfigError
from citycover.evaluate.confusion import Confusion, count_pairs
from citycover.evaluate.reliability import Certainty
from citycover.files.remote import Place


def compare_rasters(
    mapped: Place,
    truth: Place,
    legend: Legend,
    map_table: Mapping[int, int] | None = None,
    truth_table: Mapping[int, int] | None = None,
    progress: Progress | None = None,
    certainty: Certainty | None = None,
) -> Confusion:
    """Compare a class raster with a truth raster, streamed in strips of the truth's grid.

    The comparison is one of points: for each pixel of the truth, what the map says at its centre. So a map
    coarser than the truth is seen at the truth's resolution, and of a map finer than the truth one pixel in
    many is looked at.

    Args:
        mapped: class raster on any grid, in any CRS.
        truth: class raster.
        legend: classes to compare in.
        map_table: ids of `mapped` to ids of the legend; None: they are the same.
        truth_table: the same for `truth`.
        progress: is told how far it is.
        certainty: of the map, counted too.

    Raises:
        ConfigError: a file cannot be read or holds ids that its table does not know, or the two have no
            pixel with a class in common.
    """
    tables = ClassTable.onto(legend, truth_table), ClassTable.onto(legend, map_table)
    total = Confusion.empty(len(legend.ids))
    with ClassRaster(mapped) as ours, ClassRaster(truth, "truth") as theirs:
        refuse_apart(ours, theirs)
    with ExitStack() as stack:
        theirs = stack.enter_context(ClassRaster(truth, "truth"))
        ours = stack.enter_context(ClassRaster(mapped, "map", onto=theirs.grid))
        if certainty is not None:
            stack.enter_context(certainty.on(theirs.grid))
        for window in theirs.strips(progress=progress):
            ranks = theirs.read_ranks(window, tables[0]), ours.read_ranks(window, tables[1])
            total += count_pairs(*ranks, len(legend.ids))
            if certainty is not None:
                certainty.add(window, *ranks)
    return check_compared(total, mapped, truth)


def check_compared(confusion: Confusion, mapped: Place | str, truth: Place) -> Confusion:
    """The matrix, if anything was counted.

    Raises:
        ConfigError: nothing was.
    """
    if confusion.compared == 0:
        raise ConfigError(
            f"truth {truth} and map {mapped} have a class in common nowhere: the truth has "
            f"{confusion.left_out} pixels or points of a class, and the map none there; "
            "check that both show one place, their nodata, and that polygons hold the centre of a pixel"
        )
    return confusion
