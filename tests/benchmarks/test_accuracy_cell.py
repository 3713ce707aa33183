"""One tiny cell of docs/accuracy.md: train, map, compare; and the arithmetic of its tables."""

from __future__ import annotations

import math
from pathlib import Path

import accuracy
import accuracy_cases
import pytest
import rasterio


def test_a_cell_trains_maps_and_compares(tmp_path: Path) -> None:
    small = accuracy_cases.city(tmp_path, 3, 192)
    cell = accuracy.Cell("city", "l2hnet-light", "own", 3)
    (row,) = accuracy.run([cell], small, tmp_path, steps=2)
    assert 0 < row["coarse_miou"] < 1 and 0 <= row["miou"] < 1
    assert len(row["iou"]) == 6 and row["steps"] == 2


def test_steps_that_two_methods_share_are_done_once_with_the_same_result(tmp_path: Path) -> None:
    small = accuracy_cases.city(tmp_path, 3, 192)
    own, plain = (accuracy.Cell("city", "l2hnet-light", method, 3) for method in ("own", "ce"))
    assert accuracy.plain_steps(accuracy.recipe_of(own, small, 5)) == 4
    assert accuracy.plain_steps(accuracy.recipe_of(plain, small, 5)) == 5
    together = accuracy.run([own, plain], small, tmp_path, steps=5)
    alone = [accuracy.run([cell], small, tmp_path, steps=5)[0] for cell in (own, plain)]
    for row in (*together, *alone):
        del row["seconds"]
    assert together == alone


def test_majority_makes_labels_coarse(tmp_path: Path) -> None:
    import numpy as np
    from affine import Affine

    codes = np.array([[1, 1, 2, 2, 0], [1, 3, 2, 9, 0], [9, 9, 9, 9, 9]], np.uint8)
    source = accuracy_cases._write(tmp_path / "a.tif", codes[None], Affine(1, 0, 0, 0, -1, 0), nodata=9)
    accuracy_cases._coarsen(Path(source), tmp_path / "b.tif", 2)
    with rasterio.open(tmp_path / "b.tif") as coarse:
        assert coarse.read(1).tolist() == [[1, 2, 0], [9, 9, 9]]
        assert coarse.transform == Affine(2, 0, 0, 0, -2, 0)


def test_intervals_are_students(tmp_path: Path) -> None:
    mean, half = accuracy.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert math.isnan(accuracy.interval([1.0])[1])


def test_tables_pair_methods_over_the_same_seeds() -> None:
    common = {"case": "city", "recipe": "x", "steps": 9, "coarse_miou": 0.4}
    rows = [
        {**common, "method": "own", "seed": 1, "miou": 0.6},
        {**common, "method": "ce", "seed": 1, "miou": 0.5},
        {**common, "method": "own", "seed": 2, "miou": 0.9},
    ]
    (line,) = [text for text in accuracy.tables(rows).splitlines() if text.startswith("| `x`")]
    assert line == "| `x` | 1 | 9 | 40.0 | 50.0 | 60.0 | +20.0 | +10.0 |"
