"""Two hosts that share a disk: network namespaces with a bridge between them. Needs root and iproute2.

10.77.0.1 bridge: the client      10.77.0.2 host a: scheduler, worker      10.77.0.3 host b: worker
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from conftest import write_scene

pytestmark = pytest.mark.root
BRIDGE = "ccbr0"
HOSTS = {"cca": "10.77.0.2", "ccb": "10.77.0.3"}
SCHEDULER = f"tcp://{HOSTS['cca']}:8786"
CITYCOVER = (sys.executable, "-m", "citycover_cli")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces are made")
    if shutil.which("ip") is None:
        pytest.skip("needs the ip command (package iproute2)")
    with ExitStack() as undo:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this kernel makes no bridges here: {error.stderr.decode().strip()}")
        undo.callback(ip, "link", "del", BRIDGE)
        ip("addr", "add", "10.77.0.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for name, address in HOSTS.items():
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
            ip("link", "add", f"{name}0", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"{name}0", "master", BRIDGE, "up")
            for command in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                ip("-n", name, *command)
            ip("-n", name, "link", "set", "lo", "up")
        yield


@pytest.fixture(scope="module")
def cluster(hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scheduler on host a, a worker with a nanny on each."""
    logs = tmp_path_factory.mktemp("logs")
    dask = (sys.executable, "-m", "dask")
    address = HOSTS["cca"]
    commands = [("cca", (*dask, "scheduler", "--host", address, "--port", "8786", "--no-dashboard"))]
    for name, own in HOSTS.items():
        flags = ("--host", own, "--nthreads", "1", "--no-dashboard", "--name", name, "--memory-limit", "0")
        commands.append((name, (*dask, "worker", SCHEDULER, *flags, "--local-directory", str(logs / name))))
    started = []
    for n, (name, command) in enumerate(commands):
        with (logs / f"{n}.log").open("wb") as log:
            started.append(
                subprocess.Popen(["ip", "netns", "exec", name, *command], stdout=log, stderr=log, cwd="/")
            )
    yield
    for process in reversed(started):
        process.terminate()
    for process in started:
        process.wait(30)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("shared") / "scene.tif", (9000, 600))


@pytest.fixture(scope="module")
def wanted(scene: Path) -> np.ndarray:
    out = scene.parent / "alone"
    subprocess.run([*CITYCOVER, "map", scene, "-o", out, "--window", "1024", "-q"], check=True, timeout=120)
    return read(out)


def read(out: Path) -> np.ndarray:
    with rasterio.open(out / "landcover.tif") as dataset:
        return dataset.read(1)


def start(scene: Path, out: Path) -> subprocess.Popen[str]:
    # Paths are relative here and absolute there: the workers run in another folder.
    command = [
        *CITYCOVER,
        "map",
        scene.name,
        "-o",
        out.name,
        "--window",
        "1024",
        "--scheduler",
        SCHEDULER,
        "-v",
    ]
    return subprocess.Popen(command, cwd=scene.parent, stderr=subprocess.PIPE, text=True)


def workers_of(name: str) -> list[psutil.Process]:
    """Worker processes of a host: the children of its nanny."""
    found = [p for p in psutil.process_iter() if f"--name {name} " in " ".join(p.cmdline())]
    return [
        child
        for nanny in found
        for child in nanny.children(recursive=True)
        if "spawn" in str(child.cmdline())
    ]


def test_two_hosts_compute_the_map_of_one_process(cluster: None, scene: Path, wanted: np.ndarray) -> None:
    out = scene.parent / "two"
    process = start(scene, out)
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    np.testing.assert_array_equal(read(out), wanted)
    run = json.loads((out / "run.json").read_text())
    assert run["workers"] == 2 and run["stages"]["forward"] > 0
    assert said.count("loaded the network") == 2, "both hosts took part"


def test_a_host_that_loses_its_worker_changes_nothing(cluster: None, scene: Path, wanted: np.ndarray) -> None:
    out = scene.parent / "killed"
    process = start(scene, out)
    until = time.monotonic() + 120
    while not list((out / ".work" / "ledger").glob("*.json")) and time.monotonic() < until:
        time.sleep(0.02)
    victims = workers_of("ccb")
    assert victims
    for victim in victims:
        victim.kill()
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    np.testing.assert_array_equal(read(out), wanted)
