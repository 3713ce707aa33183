"""`--workers` and `--scheduler`: the same map, the same exit codes, nothing left running."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from conftest import write_scene

CITYCOVER = (sys.executable, "-m", "citycover_cli")


def read(out: Path) -> np.ndarray:
    with rasterio.open(out / "landcover.tif") as product:
        return product.read(1)


def test_a_map_by_two_workers_is_the_map(
    citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert citycover("map", scene, "-o", tmp_path / "alone").code == 0
    monkeypatch.setattr("citycover.publish.peak_rss", lambda: 1)
    result = citycover("map", scene, "-o", tmp_path / "two", "--workers", 2)
    assert result.code == 0 and "2 workers of tcp://" in result.err and "dashboard" in result.err
    np.testing.assert_array_equal(read(tmp_path / "two"), read(tmp_path / "alone"))
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    alone = json.loads((tmp_path / "alone" / "run.json").read_text())
    assert (alone["workers"], run["workers"]) == (1, 2) and re.search(r"^ +workers +2$", result.out, re.M)
    assert run["peak_rss_bytes"] > 2**20, "workers hold more than the client is made to say"
    assert 0 < run["stages"]["forward"] <= run["sweep_s"] and 0 < run["forward_share"] <= 1
    assert run["windows"] == {"run": run["plan"]["windows"], "skipped": 0}


def test_workers_and_a_scheduler_contradict_each_other(citycover, scene: Path, tmp_path: Path) -> None:
    result = citycover("map", scene, "-o", tmp_path / "out", "--workers", 2, "--scheduler", "tcp://x:1")
    assert result.code == 2 and "give one of them" in result.err


def test_a_scheduler_that_is_not_there_is_the_environments_fault(
    citycover, scene: Path, tmp_path: Path
) -> None:
    begin = time.monotonic()
    result = citycover("map", scene, "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert result.code == 4 and "no scheduler answers at tcp://127.0.0.1:9" in result.err
    assert time.monotonic() - begin < 20 and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_and_the_run_goes_on_later(
    number: signal.Signals, code: int, citycover, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", (20_000, 500))
    out = tmp_path / "out"
    fixed = ("--window", "1024", "--precision", "fp32", "--batch", "1")
    command = [*CITYCOVER, "map", scene, "-o", out, "--workers", "2", *fixed]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    while not list((out / ".work" / "ledger").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "to go on" in said and "Traceback" not in said
    assert not psutil.wait_procs(family, timeout=10)[1]
    assert not (out / "item.json").exists()
    assert citycover("map", scene, "-o", out, *fixed).code == 0
    assert citycover("map", scene, "-o", tmp_path / "alone", *fixed).code == 0
    np.testing.assert_array_equal(read(out), read(tmp_path / "alone"))
