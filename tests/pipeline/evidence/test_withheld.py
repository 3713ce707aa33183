"""Cells that are kept back: which they are, wherever a window begins, and which pixels lie in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from labelled import UTM, grid_of, image_grid, write_sheet

from citycover.classes.table import NO_CLASS
from citycover.evidence.cells import CellReader
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence
from citycover.evidence.place import Placement
from citycover.evidence.rule import Rule
from citycover.evidence.withheld import WithheldCells, cells_under, is_withheld
from citycover.geometry.window import Window

CELLS = grid_of((9, 11), Affine(10, 0, 500_000, 0, -10, 5_800_000))


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory):
    channels = np.random.default_rng(5).integers(0, 4, (9, 11))
    return write_sheet(tmp_path_factory.mktemp("cells") / "labels.tif", channels, CELLS)


@given(row=st.integers(-4, 8), col=st.integers(-4, 10), height=st.integers(1, 9), width=st.integers(1, 9))
def test_even_rows_and_columns_are_kept_back_in_any_window(
    sheet, row: int, col: int, height: int, width: int
) -> None:
    window = Window(row, col, height, width)
    rows, cols = np.mgrid[row : row + height, col : col + width]
    wanted = np.where(is_withheld(rows, cols), NO_CLASS, CellReader(sheet).read(window))
    np.testing.assert_array_equal(WithheldCells(sheet).read(window), wanted)


@pytest.mark.parametrize("angle", [0, 20])
def test_a_pixel_lies_in_the_cell_that_its_centre_is_in(angle: int) -> None:
    pixels = image_grid((60, 80))
    pixels = grid_of((60, 80), pixels.transform * Affine.translation(10, 15) * Affine.rotation(angle), UTM)
    window = Window(7, 5, 40, 50)
    rows, cols = cells_under(Placement(pixels, CELLS), window)
    y, x = np.mgrid[7:47, 5:55]
    col, row = (~CELLS.transform * pixels.transform) * (x + 0.5, y + 0.5)
    away = np.minimum(abs(row - np.rint(row)), abs(col - np.rint(col))) > 1e-6  # not on a border
    np.testing.assert_array_equal(rows[away], np.floor(row)[away])
    np.testing.assert_array_equal(cols[away], np.floor(col)[away])


def test_nothing_that_is_kept_back_has_a_say(sheet, tmp_path: Path) -> None:
    """Other labels in those cells change nothing in the field."""
    channels = CellReader(sheet).read(Window(0, 0, 9, 11)).astype(int)
    channels[::2, ::2] = (channels[::2, ::2] + 1) % 4
    other = write_sheet(tmp_path / "other.tif", channels, CELLS)
    window = Window(0, 0, 90, 110)
    fields = [
        LabelField(
            LabelEvidence((one,), (0.25,) * 4, (0.25,) * 4, Rule(0.3)),
            image_grid((90, 110)),
            torch.device("cpu"),
            WithheldCells,
        )
        for one in (sheet, other)
    ]
    torch.testing.assert_close(fields[0].smoothed(window), fields[1].smoothed(window), rtol=0, atol=0)
