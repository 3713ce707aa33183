"""The benchmark's arithmetic: what a reader of its tables relies on."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(method: str, turn: int, wall: float, allocator: str = "shipped", **more: Any) -> dict[str, Any]:
    where = {"network": "unet", "size": 64, "method": method, "allocator": allocator, "round": turn}
    return where | {"wall_s": wall, "cpu_s": 2.0, "setting": "512"} | more


def test_ratios_are_taken_within_a_round_before_the_median() -> None:
    table = load("table")
    runs = [
        run("citycover", 0, 1.0, "own"),
        run("citycover", 1, 4.0, "own"),  # the machine was busy in this round
        run("citycover", 2, 1.0, "own"),
        run("peer", 0, 3.0),
        run("peer", 1, 12.0),
        run("peer", 2, 5.0),
        run("peer", 0, 2.0, "tuned"),
    ]
    _, peer = table.rows_of(runs, "unet", 64, ["citycover", "peer"])
    assert peer["wall_s_ratio"] == 3.0  # of 3, 3 and 5; the ratio of medians would be 5
    assert peer["wall_s_ratio_tuned"] == 2.0
    assert peer["cpu_s_ratio"] == 1.0
    assert peer["wall_s"] == 5.0
    assert table.rows_of(runs, "cheap", 64, ["peer"]) == []
    assert table.rows_of([*runs[1:2], run("peer", 0, 9.0)], "unet", 64, ["peer"])[0]["wall_s_ratio"] is None
    del runs[3]["cpu_s"], runs[1]["cpu_s"]
    assert table.rows_of(runs, "unet", 64, ["peer"])[0]["cpu_s_ratio"] == 1.0  # of the third round alone


def test_a_method_that_failed_is_a_row_with_its_error_until_it_succeeds() -> None:
    table = load("table")
    wrong = run("peer", 0, 0.0, error="exit 1: no memory")
    rows = table.rows_of([wrong], "unet", 64, ["peer"])
    assert "not measured: exit 1: no memory" in table.markdown(rows)
    rows = table.rows_of([wrong, run("peer", 0, 2.5, cog=False, frame_lost=0)], "unet", 64, ["peer"])
    *_, line = table.markdown(rows).splitlines()
    assert "2.5" in line and "no memory" not in line
    assert line.endswith("| 0 | no |")


def test_every_line_of_the_table_has_all_columns() -> None:
    table = load("table")
    runs = [run("a", 0, 1.0), run("b", 0, 0.0, error="died")]
    lines = table.markdown(table.rows_of(runs, "unet", 64, ["a", "b"])).splitlines()
    assert {line.count("|") for line in lines} == {len(table.HEADINGS) + 1}


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    between = load("table").between
    once = between("before <b> old <e> after", "<b>", "<e>", "new")
    assert once == "before <b>\n\nnew\n\n<e> after"
    assert between(once, "<b>", "<e>", "new") == once
    with pytest.raises(ValueError, match="markers"):
        between("<e> the wrong way round <b>", "<b>", "<e>", "new")


def test_frame_pixels_lost_are_nodata_and_lines_where_the_first_class_won_by_default() -> None:
    frame_pixels_lost = load("peers").frame_pixels_lost
    expected = np.tile(np.arange(16, dtype=np.uint8) % 3, (16, 1))
    expected[:, 0] = expected[:, -1] = np.arange(16) % 3
    assert frame_pixels_lost(expected, expected) == 0
    framed = np.zeros_like(expected)
    framed[1:-1, 1:-1] = expected[1:-1, 1:-1]
    assert frame_pixels_lost(framed, expected) == 4 * 16 - 4
    assert frame_pixels_lost(np.zeros_like(expected), np.zeros_like(expected)) == 0  # one class, and rightly
    holed = expected.copy()
    holed[0, 3:5] = holed[8, 8] = 255
    assert frame_pixels_lost(holed, expected) == 2


def test_the_page_holds_the_tables_of_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    page = load("page")
    data = json.loads((page.DOCS / "benchmarks.json").read_text())
    text = (page.DOCS / "benchmarks.md").read_text()
    assert page.made(text, data) == text, "make bench-page"
    data["machines"][0]["rows"][0]["wall_s"] = 12345.6
    assert "12345.6" in page.made(text, data)


def test_what_other_machines_measured_stays_and_of_this_one_the_news_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    with_peers = load("page").with_peers

    def of(cpu: str, *rows: tuple[str, int, float]) -> dict[str, Any]:
        found = [{"network": network, "size": size, "wall_s": wall} for network, size, wall in rows]
        return {"machine": {"cpu": cpu}, "packages": [], "rows": found}

    old = [of("a", ("unet", 64, 1.0), ("unet", 32, 2.0)), of("b", ("unet", 64, 3.0))]
    merged = with_peers(old, of("a", ("unet", 32, 9.0), ("cheap", 64, 4.0)))
    assert merged == [of("a", ("unet", 64, 1.0), ("unet", 32, 9.0), ("cheap", 64, 4.0)), old[1]]
    assert with_peers(old, of("c", ("unet", 64, 5.0))) == [*old, of("c", ("unet", 64, 5.0))]
    assert with_peers([], old[0]) == [old[0]]
