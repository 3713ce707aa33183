"""One tiny cell of each kind of docs/methods, and the arithmetic of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import domain_cases
import domains
import numpy as np
import pytest
import rasterio
import small_networks
from affine import Affine

from citycover_models.catalogue.registry import presets


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished network is looked at on few chips."""
    from citycover_models.export import write as export
    from citycover_models.training import domains as material
    from citycover_models.training import knowledge

    monkeypatch.setattr(export, "probe_sides", lambda card: (2 * card.window.multiple,))
    monkeypatch.setattr(knowledge, "_CHIPS", 2)
    monkeypatch.setattr(material, "_SETTLING", 4)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The small networks are presets as long as a test lasts."""
    before = dict(presets())
    small_networks.register()
    yield
    presets().clear()
    presets().update(before)


def cell(system: str, row: str, steps: int = 1) -> domains.Cell:
    (found,) = (r for r in domains.ROWS[system] if r.name == row)
    return domains.Cell(system, "practice", found, 3, steps, "-small")


def test_rows_of_one_training_map_by_other_statistics(tmp_path: Path) -> None:
    place = domain_cases.second_camera(tmp_path, None, 3, size=128)
    (csn,) = domains.run(cell("lovecs", "CSN"), place, tmp_path)
    (plain,) = domains.run(cell("lovecs", "source only"), place, tmp_path)
    assert csn["row"] == "CSN" and 0 <= csn["miou"] < 1 and 0 < csn["accuracy"] < 1
    assert plain["row"] == "source only" and plain["cpu_s"] > 0


def test_a_map_in_the_pixels_of_the_target_is_enlarged_in_two_ways(tmp_path: Path) -> None:
    place = domain_cases.five_times_coarser(tmp_path, None, 3, size=640)
    rows = domains.run(cell("daspm", "x1, source only"), place, tmp_path)
    assert [r["row"] for r in rows] == ["x1, source only, nearest", "x1, source only, bicubic"]
    assert all(0 < r["accuracy"] < 1 for r in rows)


@pytest.mark.parametrize("row", ["x5, by the target's own labels", "two resolutions, uniform, chips of 320"])
def test_other_networks_and_the_bound_are_cells_like_others(tmp_path: Path, row: str) -> None:
    place = domain_cases.five_times_coarser(tmp_path, None, 3, size=640)
    (found,) = domains.run(cell("daspm", row), place, tmp_path)
    assert found["row"] == row and 0 < found["accuracy"] < 1


def test_smooth_probabilities_move_a_border_by_less_than_a_coarse_pixel(tmp_path: Path) -> None:
    from citycover.classes.legend import read_legend

    legend = read_legend("city")
    coarse = np.zeros((2, 4, 4), np.uint8)
    coarse[0, :, :2], coarse[0, :, 2] = 255, 102
    coarse[1] = 255 - coarse[0]
    place = Affine(10, 0, 0, 0, -10, 40)
    probabilities = domain_cases._write(tmp_path / "p.tif", coarse, place)
    like = domain_cases._write(
        tmp_path / "t.tif", np.zeros((1, 20, 20), np.uint8), Affine(2, 0, 0, 0, -2, 40)
    )
    with rasterio.open(domains.enlarged(probabilities, like, tmp_path / "o.tif", legend)) as made:
        row = made.read(1)[10]
    first = int((row == legend.ids[0]).sum())
    assert 10 < first < 15, "40 % in the third column draw the border into it"


def test_near_infrared_tells_water_sparse_and_green_where_it_is_sure() -> None:
    pixels = np.array([[60, 100, 60, 0, 100], [90, 100, 80, 0, 100], [1, 1, 1, 0, 1], [20, 120, 180, 0, 98]])
    found = domain_cases.by_infrared(pixels.astype(np.uint8)[:, None])
    assert found.tolist() == [[0, 1, 2, 255, 255]]


def test_a_row_is_compared_with_the_row_before_over_the_same_seeds() -> None:
    def row(name: str, seed: int, miou: float) -> dict[str, object]:
        return {"system": "lovecs", "case": "naip", "row": name, "seed": seed, "steps": 9, "miou": miou}

    rows = [row("AdaBN", 1, 0.5), row("source only", 1, 0.4), row("source only", 2, 0.5)]
    lines = domains.table("lovecs", "naip", rows).splitlines()
    assert lines[2] == "| source only | 1, 2 | 9 | 45.0 ± 63.5 |  |  |"
    assert lines[3] == "| AdaBN | 1 | 9 | 50.0 | +10.0 | source only |"
    assert domains.table("daspm", "practice", rows) == ""


def test_x5_must_beat_the_best_x1_map_of_each_seed() -> None:
    def row(name: str, seed: int, miou: float) -> dict[str, object]:
        return {"system": "daspm", "case": "sheets", "row": name, "seed": seed, "steps": 9, "miou": miou}

    rows = [
        row("x5, source only", 1, 0.5),
        row("x5, source only", 2, 0.5),
        *(row("x1, adapted, bicubic", seed, miou) for seed, miou in ((1, 0.4), (2, 0.3))),
        *(row("x1, source only, nearest", seed, miou) for seed, miou in ((1, 0.2), (2, 0.45))),
    ]
    lines = domains.table("daspm", "sheets", rows).splitlines()
    assert lines[4].startswith("| the best x1 of each seed, enlarged | 1, 2 | 9 | 42.5 ±")
    assert lines[5].startswith("| x5, source only | 1, 2 | 9 | 50.0 ± 0.0 | +7.5 ±")
