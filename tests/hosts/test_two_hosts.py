"""Two hosts that share a disk: network namespaces with a bridge between them. Needs root and iproute2.

10.77.0.1 bridge: the client      10.77.0.2 host a: scheduler, worker      10.77.0.3 host b: worker
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
KEPT_UP = "trap 'kill $!; wait; exit' TERM; while :; do {} & wait $!; sleep 0.5; done"
"""A shell that starts a command again whenever it ends, as systemd would."""
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
def cluster(hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Scheduler on host a, a worker with a nanny on each, which is started again when it ends; their logs."""
    logs = tmp_path_factory.mktemp("logs")
    # A host that says nothing is given up after 12 s, the least that it takes.
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s"}
    dask = (sys.executable, "-m", "dask")
    address = HOSTS["cca"]
    commands = [("cca", (*dask, "scheduler", "--host", address, "--port", "8786", "--no-dashboard"))]
    for name, own in HOSTS.items():
        flags = ("--host", own, "--nthreads", "1", "--no-dashboard", "--name", name, "--memory-limit", "0")
        worker = shlex.join([*dask, "worker", SCHEDULER, *flags, "--local-directory", str(logs / name)])
        commands.append((name, ("sh", "-c", KEPT_UP.format(worker))))
    started = []
    for n, (name, command) in enumerate(commands):
        with (logs / f"{n}.log").open("wb") as log:
            words = ["ip", "netns", "exec", name, *command]
            started.append(subprocess.Popen(words, stdout=log, stderr=log, cwd="/", env=environment))
    yield logs
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
    found = [
        p for p in psutil.process_iter(["cmdline"]) if f"--name {name} " in " ".join(p.info["cmdline"] or ())
    ]
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


REGION = """name = "north"
out = "OUT"
model = "spectral-rgbn"
[[scenes]]
files = ["im/*.tif"]
[engine]
precision = "fp32"
window = 512
block = [512, 512]
ENGINE
[policy]
retries = 0
"""


@pytest.fixture(scope="module")
def imagery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes, and a region of them that one process has mapped."""
    folder = tmp_path_factory.mktemp("region")
    (folder / "im").mkdir()
    for name in ("a", "b"):
        write_scene(folder / f"im/{name}.tif", (2048, 500))
    code, said = ran_region(folder, "alone", "threads = 1")
    assert code == 0, said
    return folder


def region_file(folder: Path, out: str, engine: str) -> Path:
    path = folder / f"{out}.toml"
    path.write_text(REGION.replace("OUT", out).replace("ENGINE", engine))
    return path


def ran_region(folder: Path, out: str, engine: str) -> tuple[int, str]:
    words = [*CITYCOVER, "run", str(region_file(folder, out, engine)), "-v"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=800, cwd="/")
    return done.returncode, done.stderr


def until(there: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def told(logs: Path, what: str) -> int:
    """How often the scheduler has registered or removed the worker of host b."""
    return (logs / "0.log").read_text().count(f"{what} worker addr: tcp://{HOSTS['ccb']}")


@pytest.mark.parametrize("cut", ["for a moment", "until it is given up"])
def test_a_region_is_the_same_when_a_host_is_cut_off_and_back(cluster: Path, imagery: Path, cut: str) -> None:
    out, engine = cut.replace(" ", "-"), f'scheduler = "{SCHEDULER}"'
    region, before = region_file(imagery, out, engine), told(cluster, "Remove")
    words = [*CITYCOVER, "run", str(region), "-v"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd="/")
    blocks = imagery / out / ".region/next/a/.work/ledger"
    until(lambda: list(blocks.glob("*.json")) or process.poll() is not None)
    ip("link", "set", "ccb0", "down")
    try:
        if cut == "for a moment":
            time.sleep(1)
        else:
            until(lambda: told(cluster, "Remove") > before)
    finally:
        ip("link", "set", "ccb0", "up")
    _, said = process.communicate(timeout=800)
    assert process.returncode == 0, said
    for name in ("a", "b"):
        alone, far = (read(imagery / folder / "maps" / name) for folder in ("alone", out))
        np.testing.assert_array_equal(far, alone)
    # It is back: what is new is mapped by both.
    write_scene(imagery / f"im/{out}.tif", (2048, 500))
    until(lambda: told(cluster, "Register") > told(cluster, "Remove"))
    code, said = ran_region(imagery, out, engine)
    assert code == 0 and json.loads((imagery / out / f"maps/{out}/run.json").read_text())["workers"] == 2, (
        said
    )
    (imagery / f"im/{out}.tif").unlink()
