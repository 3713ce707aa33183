"""A training of two processes that is told to end: by a signal to either of them, or to torchrun."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from citycover.synth.write import write_city

QUICK = (
    "network=l2hnet-tiny", "method.name=ce", "epochs=2", "chips_per_epoch=8", "chip=32", "batch=2",
)  # fmt: skip

SCRIPT = """
import os, sys, time
from citycover_cli.app import main
from citycover_models.training import coarse, finish, journal, loop

journal._events, journal.Journal.draw_curves = lambda *_: None, lambda *_: None  # slow to import
finish.safe_precision, finish.measurable = lambda *_: "fp32", lambda _card: False
where, rank, pid, number = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
owner, name = {"step": (loop.Run, "_note"), "judging": (coarse, "validate"), "": (loop, "Run"),
               "finishing": (finish, "export_torchscript")}[where]
real = getattr(owner, name)


def told(*given, **named):
    step = where != "step" or given[0].state.step == 3
    if step and int(os.environ["RANK"]) == rank:
        os.kill(os.getpid() if pid == "own" else os.getppid(), number)
        time.sleep(1)  # in which the other one waits for this one
    return real(*given, **named)


setattr(owner, name, told if where else real)
sys.argv[1:] = sys.argv[5:]
main()
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of a training, but for its folder."""
    city = tmp_path_factory.mktemp("city")
    write_city(city, 96, 3)
    named = ["--image", str(city / "image.tif"), "--labels", str(city / "labels_10m.tif"), "--legend", "city"]
    changes = [word for change in QUICK for word in ("--set", change)]
    return ["train", "--recipe", "l2hnet-light", *named, "--workers", "0", "--device", "cpu", *changes, "-o"]


def by_two(folder: Path, told: tuple[Any, ...], *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "run.py").write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(folder / "run.py"), *(str(part) for part in told), *words],
        capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_signal_ends_both_and_they_go_on_to_the_same_weights(words: list[str], tmp_path: Path) -> None:
    names = ("straight", "stepping", "judging", "finishing")
    straight, stepping, judging, finishing = (str(tmp_path / name) for name in names)

    one = by_two(tmp_path, ("step", 1, "own", int(signal.SIGTERM)), *words, stepping)
    ends = dict(re.findall(r"\(local_rank: (\d)\)\s+exitcode\s*: (-?\d+)", one.stderr))
    assert "citycover: stopped by" not in one.stderr
    assert ends == {"0": "130", "1": "143"}, one.stderr
    assert one.stderr.count("citycover: stopped since another process was") == 1, "the first of them talks"
    assert "torchrun --nproc-per-node 2 -m citycover_cli train" in one.stderr

    all_ = by_two(tmp_path, ("judging", 0, "parent", int(signal.SIGINT)), *words, judging)
    assert "forcefully" not in all_.stderr and all_.stderr.count("stopped by SIGINT") == 1, all_.stderr
    assert [Path(stepping, "checkpoint.pt").is_file(), Path(judging, "model.pt").exists()] == [True, False]

    ending = by_two(tmp_path, ("finishing", 0, "own", int(signal.SIGTERM)), *words, finishing)
    ends = dict(re.findall(r"\(local_rank: (\d)\)\s+exitcode\s*: (-?\d+)", ending.stderr))
    assert ends == {"0": "143", "1": "130"}, ending.stderr
    assert not Path(finishing, "model.pt").exists()

    for out in ((stepping, "--resume"), (judging, "--resume"), (finishing, "--resume"), (straight,)):
        done = by_two(tmp_path, ("", 0, "own", 0), *words, *out)
        assert done.returncode == 0, done.stderr
    wanted = load_file(Path(straight, "weights.safetensors"))
    for out in (stepping, judging, finishing):
        found = load_file(Path(out, "weights.safetensors"))
        assert all(torch.equal(weight, found[name]) for name, weight in wanted.items())
