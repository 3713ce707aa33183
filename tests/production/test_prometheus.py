"""A real Prometheus looks at a run while it goes on, a real node exporter at one that has ended.

Debian's packages prometheus and prometheus-node-exporter: `make test-prometheus`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_scene
from serving import free_port

pytestmark = pytest.mark.slow

MONITORING = Path(__file__).parents[2] / "configs/production/monitoring"

REGION = """name = "north"
out = "products"
model = "spectral-rgbn"
[[scenes]]
files = ["im/*.tif"]
[engine]
precision = "fp32"
threads = 1
window = 512
block = [512, 512]
"""


class Prometheus:
    """As much of its API as is asked."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(f"{self.address}/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def highest(self, metric: str) -> float | None:
        """The highest value that was seen of a metric; None: it was not seen."""
        found = self.get("query", query=f"max(max_over_time({metric}[1h]))")["result"]
        return float(found[0]["value"][1]) if found else None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Prometheus, int]]:
    """Prometheus with our rules, and the port where it looks for a run."""
    if (tool := shutil.which("prometheus")) is None:
        pytest.skip("needs prometheus (Debian's package of that name)")
    port, target = free_port(), free_port()
    config = (MONITORING / "prometheus.yml").read_text()
    config = config.replace("citycover:9108", f"127.0.0.1:{target}").replace("15s", "200ms")
    (tmp_path / "prometheus.yml").write_text(config.replace("/etc/prometheus/", ""))
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    command = [tool, "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}"]
    command.append(f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    prometheus = Prometheus(port)
    try:
        for _ in range(300):
            # It hears of its targets seconds after it answers, and a run may be over by then.
            with contextlib.suppress(urllib.error.URLError):
                if prometheus.get("targets")["activeTargets"]:
                    break
            time.sleep(0.2)
        yield prometheus, target
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.timeout(600)
def test_it_sees_what_a_run_does_and_has_our_rules(served: tuple[Prometheus, int], tmp_path: Path) -> None:
    prometheus, target = served
    for seed in range(3):
        values = np.random.default_rng(seed).integers(30, 220, (4, 1024, 1024), np.uint8)
        write_scene(tmp_path / f"im/{seed}.tif", (1024, 1024), values=values)
    (tmp_path / "region.toml").write_text(REGION)
    command = [sys.executable, "-m", "citycover_cli", "run", "region.toml", "-q"]
    subprocess.run([*command, "--metrics", f"127.0.0.1:{target}"], cwd=tmp_path, check=True)
    seen = {
        name: prometheus.highest(f"citycover_{name}")
        for name in ("pixels_total", "blocks_total", "progress_ratio", "memory_bytes", "stage_seconds_total")
    }
    assert all(seen.values()), seen
    assert (seen["pixels_total"] or 0) <= 3 * 1024**2 and (seen["memory_bytes"] or 0) > 1e8
    labels = prometheus.get("label/name/values", start="0", end=str(time.time()))
    assert labels == ["region"]
    (group,) = prometheus.get("rules")["groups"]
    assert all(rule["health"] in ("ok", "unknown") and not rule.get("lastError") for rule in group["rules"])
    assert {"CitycoverStalled", "CitycoverFailing"} <= {rule["name"] for rule in group["rules"]}


def test_the_node_exporter_serves_what_a_run_left(tmp_path: Path) -> None:
    if (tool := shutil.which("prometheus-node-exporter")) is None:
        pytest.skip("needs prometheus-node-exporter (Debian's package of that name)")
    write_scene(tmp_path / "im/a.tif", (300, 200))
    (tmp_path / "region.toml").write_text(REGION)
    command = [
        sys.executable,
        "-m",
        "citycover_cli",
        "run",
        "region.toml",
        "-q",
        "--metrics",
        "left/citycover.prom",
    ]
    (tmp_path / "left").mkdir()
    subprocess.run(command, cwd=tmp_path, check=True)
    port = free_port()
    only = [
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={tmp_path}/left",
    ]
    process = subprocess.Popen(
        [tool, *only, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    try:
        served = ""
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    served = answer.read().decode()
                break
            except urllib.error.URLError:
                time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(30)
    assert "node_textfile_scrape_error 0" in served
    assert re.search(r"^citycover_pixels_total\{.*\} 60000$", served, re.MULTILINE), served
