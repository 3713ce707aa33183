"""A real SLURM of one node on the loopback, which the files of production are given: `make test-slurm`.

Debian's packages slurmctld, slurmd, slurm-client and munge. All daemons are this user's, all their files the
test's. The node says that it has more than the machine, so that what the files ask for fits.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import write_scene
from serving import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PRODUCTION = ROOT / "configs/production"

DAEMONS = ("munged", "slurmctld", "slurmd")

CONFIG = """ClusterName=citycover
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs=64 RealMemory=200000 Gres=gpu:2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

# SLURM wants a device for each; it opens none without cgroups.
GPUS = "NodeName=node Name=gpu File=/dev/null\nNodeName=node Name=gpu File=/dev/zero\n"

REGION = """name = "north"
out = "{out}"
model = "spectral-rgbn"
[[scenes]]
files = ["{images}/*.tif"]
[engine]
precision = "fp32"
threads = 1
window = 256
block = [512, 512]
"""


def until(fact: Callable[[], bool], seconds: float, what: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


@dataclass(frozen=True)
class Slurm:
    """The commands of a cluster."""

    folder: Path
    environment: Mapping[str, str]

    def ask(self, *words: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(
            [str(word) for word in words], check=False, capture_output=True, text=True, env=self.environment,
            cwd=cwd or self.folder, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def is_idle(self) -> bool:
        """Whether the node has answered the controller, and has nothing to do."""
        words = ("sinfo", "--noheader", "--format=%T")
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=self.environment)
        return done.stdout == "idle\n"

    def submit(self, place: Path, *words: str | Path) -> str:
        """Number of a job that starts in a folder."""
        found = re.fullmatch(r"Submitted batch job (\d+)\n", self.ask("sbatch", *words, cwd=place))
        assert found is not None
        return found[1]

    def tasks(self, job: str) -> dict[str, dict[str, str]]:
        """What SLURM says of each task of an array; a range of them waits as one."""
        lines = self.ask("scontrol", "--oneliner", "show", "job", job).splitlines()
        told = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {task["ArrayTaskId"]: task for task in told}

    def end(self, job: str, seconds: float) -> dict[str, str]:
        """State and exit code of each task, once all have ended."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
        until(
            lambda: all(task["JobState"] in over for task in self.tasks(job).values()),
            seconds,
            lambda: self.tasks(job),
        )
        return {name: f"{t['JobState']} {t['ExitCode']}" for name, t in self.tasks(job).items()}


def started(folder: Path, environment: Mapping[str, str], undo: ExitStack, *words: str | Path) -> None:
    """A daemon, in the foreground, so that it is ours to end."""
    name = str(words[0])
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words], env=dict(environment), stdout=log, stderr=log, cwd=folder
        )
    undo.callback(process.wait, 60)
    undo.callback(process.terminate)


def configure(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    host = socket.gethostname().split(".")[0]
    config = CONFIG.format(
        host=host, user=getpass.getuser(), folder=folder, control=free_port(), node=free_port()
    )
    (folder / "slurm.conf").write_text(config)
    (folder / "gres.conf").write_text(GPUS)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    os.environ["PATH"] += ":/usr/sbin"
    if missing := [name for name in (*DAEMONS, "sbatch") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)} (apt install slurmctld slurmd slurm-client munge)")
    folder = tmp_path_factory.mktemp("slurm")
    configure(folder)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    cluster = Slurm(folder, environment)
    with ExitStack() as undo:
        keys = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        keys += ["--force", f"--socket={folder}/munge.sock"]  # nobody else is to use it
        started(folder, environment, undo, "munged", "--foreground", *keys)
        until((folder / "munge.sock").exists, 30, (folder / "munged.log").read_text)
        started(folder, environment, undo, "slurmctld", "-D", "-c")
        started(folder, environment, undo, "slurmd", "-D")
        until(cluster.is_idle, 60, (folder / "slurmd.log").read_text)
        yield cluster


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Eleven scenes, one of which is cut."""
    for seed in range(11):
        values = np.random.default_rng(seed).integers(30, 220, (4, 300, 200 + 10 * seed), np.uint8)
        path = write_scene(tmp_path / f"im/s{seed:02d}.tif", values.shape[1:], values=values)
    path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "region.toml").write_text(REGION.format(out="products", images="im"))
    return tmp_path


def maps(out: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in out.glob("maps/*/landcover.tif")}


def test_an_array_makes_what_one_run_makes_and_says_which_part_has_a_bad_scene(
    slurm: Slurm, place: Path
) -> None:
    job = slurm.submit(place, PRODUCTION / "slurm/array.sh", "region.toml")
    ended = slurm.end(job, 600)
    assert set(ended) == {str(part) for part in range(1, 9)}
    assert sorted(ended.values()) == ["COMPLETED 0:0"] * 7 + ["FAILED 3:0"]
    (bad,) = [part for part, how in ended.items() if how == "FAILED 3:0"]
    assert "s10" in (place / f"citycover-{job}-{bad}.log").read_text()
    assert {path.name for path in place.glob("*.prom")} == {f"citycover-{part}.prom" for part in range(1, 9)}
    (place / "alone.toml").write_text(REGION.format(out="alone", images="im"))
    words = [sys.executable, "-m", "citycover_cli", "run", "alone.toml", "-q"]
    assert subprocess.run(words, check=False, cwd=place, stderr=subprocess.DEVNULL).returncode == 3
    made = maps(place / "products")
    assert len(made) == 10
    assert made == maps(place / "alone")


def test_a_part_that_reaches_its_time_limit_is_queued_again_and_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(30, 220, (4, 9000, 9000), np.uint8)
    write_scene(tmp_path / "im/large.tif", (9000, 9000), values=values)
    (tmp_path / "region.toml").write_text(REGION.format(out="products", images="im"))
    # The shortest that SLURM has, and its word comes a minute before: at the next look at the clock.
    short = ("--array=1-1", "--time=1", "--signal=B:TERM@60")
    job = slurm.submit(tmp_path, *short, PRODUCTION / "slurm/array.sh", "region.toml")

    def restarts() -> int:
        return int(slurm.tasks(job)["1"]["Restarts"])

    log = tmp_path / f"citycover-{job}-1.log"
    until(lambda: restarts() > 0, 180, lambda: (slurm.tasks(job), log.read_text()))
    slurm.ask("scontrol", "update", f"job={job}_1", "timelimit=60")
    assert slurm.end(job, 600) == {"1": "COMPLETED 0:0"}
    run = json.loads((tmp_path / "products/maps/large/run.json").read_text())
    assert run["resumed"] is True


def test_workers_of_dask_come_as_jobs_and_map_a_region(slurm: Slurm, place: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    (place / "im/s10.tif").unlink()
    on_loopback = Slurm(slurm.folder, {**slurm.environment, "DASK_JOBQUEUE__SLURM__INTERFACE": "lo"})
    said = on_loopback.ask(sys.executable, PRODUCTION / "dask/slurm.py", "region.toml", cwd=place)
    assert "{'mapped': 10, 'done': 0}" in said
    runs = [json.loads(path.read_text()) for path in (place / "products").glob("maps/*/run.json")]
    assert len(runs) == 10
    assert all(run["workers"] >= 1 for run in runs)
    until(slurm.is_idle, 60, lambda: slurm.ask("squeue"))  # none is left behind
