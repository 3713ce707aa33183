"""One tiny cell of docs/accuracy.md: train, map, map with labels, score; and the arithmetic of its tables."""

from __future__ import annotations

from pathlib import Path

import accuracy
import accuracy_cases
import numpy as np
import pytest
import rasterio
from affine import Affine


def test_a_cell_trains_maps_and_scores(tmp_path: Path) -> None:
    small = accuracy_cases.city(tmp_path, 3, 192)
    cell = accuracy.Cell("city", "clean", "l2hnet-light", "ce", 3, steps=2)
    rows = {row["output"]: row for row in accuracy.run(cell, small, tmp_path)}
    assert list(rows) == ["labels", "bilinear", "network", "network + labels"]
    for row in rows.values():
        assert 0 < row["accuracy"] < 1 and len(row["iou"]) == 6 and row["steps"] == 2
    assert rows["labels"]["ece"] is None and 0 <= rows["network + labels"]["ece"] <= 1


def test_boosting_and_labels_are_above_the_labels_in_a_city(tmp_path: Path) -> None:
    small = accuracy_cases.city(tmp_path, 3, 192)
    ground = accuracy.ground_of(small)
    ranks, sure = accuracy.boosted(small, ground, 0)
    assert sure.min() >= 1 / 6 - 1e-6 and sure.max() <= 1
    known = ground.truth >= 0
    assert (ranks == ground.truth)[known].mean() > (ground.nearest == ground.truth)[known].mean()


def test_variants_change_labels_and_nothing_else(tmp_path: Path) -> None:
    case = accuracy_cases.city(tmp_path, 3, 192)
    assert accuracy_cases.variant_of(case, "clean", tmp_path, 1) is case
    noisy, moved = (accuracy_cases.variant_of(case, v, tmp_path, 1) for v in ("noise", "shift"))
    with rasterio.open(case.coarse) as clean, rasterio.open(noisy.coarse) as drawn:
        changed = (clean.read(1) != drawn.read(1)).mean()
        assert 0.03 < changed < 0.25 and clean.transform == drawn.transform
    with rasterio.open(case.coarse) as clean, rasterio.open(moved.coarse) as shifted:
        assert (clean.read(1) == shifted.read(1)).all()
        assert ~clean.transform * (shifted.transform.c, shifted.transform.f) == pytest.approx((0.5, 0.5))


def test_redrawn_cells_are_a_fifth_at_most_and_never_where_there_is_no_label() -> None:
    rng = np.random.default_rng(0)
    cells = rng.choice([0, 1, 2, 255], (200, 200), p=[0.6, 0.3, 0.05, 0.05]).astype(np.uint8)
    new = accuracy_cases.redraw(cells, 255, np.random.default_rng(1))
    assert ((new == 255) == (cells == 255)).all()
    assert 0.08 < (new != cells).mean() < 0.2


def test_majority_makes_labels_coarse(tmp_path: Path) -> None:
    codes = np.array([[1, 1, 2, 2, 0], [1, 3, 2, 9, 0], [9, 9, 9, 9, 9]], np.uint8)
    source = accuracy_cases._write(tmp_path / "a.tif", codes[None], Affine(1, 0, 0, 0, -1, 0), nodata=9)
    accuracy_cases._coarsen(Path(source), tmp_path / "b.tif", 2)
    with rasterio.open(tmp_path / "b.tif") as coarse:
        assert coarse.read(1).tolist() == [[1, 2, 0], [9, 9, 9]]
        assert coarse.transform == Affine(2, 0, 0, 0, -2, 0)


def test_tables_pair_outputs_over_the_same_seeds() -> None:
    common = {"case": "city", "variant": "clean", "recipe": "x", "method": "ce", "steps": 9, "ece": 0.05}

    def row(output: str, seed: int, miou: float) -> dict[str, object]:
        same = dict.fromkeys(("miou", "big", "accuracy", "edge"), miou)
        return {**common, **same, "output": output, "seed": seed}

    rows = [
        row(output, seed, miou + seed / 100)
        for seed in (1, 2)
        for output, miou in (("labels", 0.4), ("bilinear", 0.42), ("network", 0.5), ("network + labels", 0.6))
    ]
    rows[-1]["miou"] = 0.52
    (line,) = [text for text in accuracy.tables(rows).splitlines() if text.startswith("| city")]
    assert "| 1, 2 | 41.5 ± 0.7 | 43.5 ± 0.7 |" in line and "| +15.0 (+10.0) |" in line
    assert "5.0 ± 0.0" in line


def test_calibration_is_told_apart_by_whether_the_noise_was_seen() -> None:
    def row(case: str, output: str, accuracy_: float, **more: float) -> dict[str, object]:
        score = {"miou": 0.5, "big": 0.5, "accuracy": accuracy_, "edge": 0.5, "ece": None} | more
        head = {"case": case, "variant": "clean", "recipe": "l2hnet-light", "method": "ce", "seed": 1}
        return head | {"steps": 9, "output": output} | score

    rows = [
        row(case, output, right, **(more if "+" in output else {}))
        for case, right, more in (
            ("half", 0.8, {"ece": 0.05, "eta": 0.1}),
            ("less", 0.8, {"ece": 0.09, "eta": 0.09}),
            ("none", 0.9, {"ece": 0.01, "eta": 0.0}),
        )
        for output in ("labels", "bilinear", "network", "network + labels")
    ]
    told = [line for line in accuracy.tables(rows).splitlines() if line.startswith("| `l2hnet-light`")]
    assert told == [
        "| `l2hnet-light` | seen: at least half of it is contradicted | 1 | 5.0 | 5.0 | half, clean |",
        "| `l2hnet-light` | not seen | 2 | 5.0 | 9.0 | less, clean |",
    ]
