"""`citycover plan` prints the run that `citycover map` makes of the same options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import write_scene

from citycover.compute.trials import Speed
from citycover.model.bench import Lane
from citycover.model.predictor import Predictor
from citycover.plan.cost import BESIDE
from citycover.plan.plan import CHUNK, Plan

SETTLED = ("window", "step", "batch", "precision", "form", "block_shape", "blocks", "windows", "redundancy")


def test_plan_says_the_run_that_map_makes(
    citycover, small_windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(tmp_path / "scene.tif", (1300, 2100))
    tried: list[int] = []

    def speed(plan: Plan, _predictor: Predictor, _repeats: int) -> Speed:
        tried.append(plan.y.window)
        return Speed(
            plan.window_pixels ** (0.9 if len(tried) % 3 else 0.95), 0
        )  # larger is faster, up to a point

    monkeypatch.setattr("citycover.compute.window.measure_speed", speed)
    monkeypatch.setattr(
        "citycover.compute.choices.choose_lane",
        lambda lanes, *_: Lane("torchscript", "bf16") if len(lanes) > 1 else lanes[0],
    )
    monkeypatch.setattr("citycover.model.gate.fast_precision", lambda _device: "bf16")
    options = (scene, "--model", small_windows, "--batch", 1)
    plan = json.loads(citycover("plan", *options, "--json").out)
    assert len(tried) == 3 and tried == sorted(tried), "windows of three sizes were tried"
    run = json.loads(citycover("map", *options, "-o", tmp_path / "out", "--json").out)
    assert len(tried) == 6
    assert {name: plan[name] for name in SETTLED} == {name: run["plan"][name] for name in SETTLED}
    assert plan["precision"] == "bf16" and plan["window"][0] > 64 and plan["unsettled"] == []
    assert plan["device"] == run["device"] and plan["workers"] == run["workers"]


def test_plan_counts_memory_as_map_does(citycover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = write_scene(tmp_path / "scene.tif", (1100, 2100))
    held = int(1.95 * 2**30) - BESIDE
    monkeypatch.setattr("citycover.compute.bound.peak_rss", lambda: held)
    monkeypatch.setattr("citycover.compute.bound.process_memory", lambda _name: held)
    options = (scene, "--window", 256, "--memory", 2, "--precision", "fp32")
    plan = json.loads(citycover("plan", *options, "--json").out)
    run = json.loads(citycover("map", *options, "-o", tmp_path / "out", "--json").out)
    assert {name: plan[name] for name in SETTLED} == {name: run["plan"][name] for name in SETTLED}
    unbounded = json.loads(citycover("plan", *options[:3], "--json").out)
    assert plan["batch"] < unbounded["batch"] and plan["block_shape"][1] >= CHUNK


def test_a_small_run_holds_no_more_than_its_plan_says(tmp_path: Path) -> None:
    """Where the engine holds next to nothing, libraries that publish and the picture are most of it."""
    scene, out = write_scene(tmp_path / "scene.tif", (512, 512)), tmp_path / "out"

    def told(*words: object) -> dict[str, int]:
        options = ("--model", "spectral-rgbn", "--precision", "fp32", "--form", "torchscript", "--json")
        command = [sys.executable, "-m", "citycover_cli", *map(str, (*words, *options))]
        facts: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return facts

    plan, run = told("plan", scene), told("map", scene, "-o", out, "--format", "cog,zarr")
    assert run["peak_rss_bytes"] <= plan["peak_memory_bytes"] < 3 * run["peak_rss_bytes"]


def test_workers_of_this_machine_share_its_cores(
    citycover, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(6)))
    before = torch.get_num_threads()
    try:
        alone = json.loads(citycover("plan", scene, "--threads", 1, "--json").out)
        shared = json.loads(citycover("plan", scene, "--workers", 3, "--json").out)
        both = json.loads(citycover("plan", scene, "--workers", 3, "--threads", 1, "--json").out)
    finally:
        torch.set_num_threads(before)
    assert [p["threads"] for p in (alone, shared, both)] == [1, 2, 1]
    assert [p["workers"] for p in (alone, shared, both)] == [1, 3, 3]


def test_without_a_probe_nothing_is_loaded_and_what_is_open_is_named(scene: Path) -> None:
    code = (
        "import sys; from citycover_cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'torch', 'distributed'} & set(sys.modules)"
    )

    def plan(*options: str) -> dict[str, object]:
        command = [sys.executable, "-c", code, "plan", str(scene), "--no-probe", "--json", *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    assert plan()["unsettled"] == ["window", "batch", "precision", "form"]
    fixed = plan("--window", "48", "--batch", "3", "--precision", "bf16", "--form", "torchscript")
    assert fixed["unsettled"] == [] and (fixed["batch"], fixed["precision"]) == (3, "bf16")
    assert plan("--window", "256", "--precision", "fp32", "--memory", "2")["unsettled"] == [
        "batch",
        "form",
        "block_shape",
    ]


def test_a_cluster_that_is_not_there_cannot_settle_a_plan(citycover, scene: Path) -> None:
    result = citycover("plan", scene, "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == 4 and "no scheduler answers at tcp://127.0.0.1:9" in result.err
