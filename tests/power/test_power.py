"""A power cut, for real: a file system whose disk is copied while it is mounted. Needs root and loop devices.

The copy holds what the disk would hold if the power had gone at that moment: bytes and names that were not
synchronised are still in the memory of the mounted file system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import write_scene
from scenarios import product_of

pytestmark = pytest.mark.root
MIB = 48
"""Of the disk."""
PAUSE = 0.1
"""Seconds between two power cuts while it runs."""
MOST = 12
"""Power cuts while it runs that are gone on with; on a busy machine there are many more."""
LATER = (0.0, 1.0, 3.0, 6.0, 12.0)
"""Seconds after the command said that it was done."""


@contextmanager
def mounted(disk: Path, place: Path) -> Iterator[Path]:
    """The file system of a disk; its journal is replayed, as after a power cut."""
    place.mkdir(exist_ok=True)
    options = "loop,commit=300"  # nothing reaches the disk but what is synchronised
    done = subprocess.run(["mount", "-o", options, disk, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def mapping(scene: Path, out: Path) -> subprocess.Popen[str]:
    """A run in four blocks."""
    code = "import sys; from killing import map_until; map_until(None, sys.argv[1:])"
    words = [scene, "-o", out, "--window", "256", "--precision", "fp32", "--threads", "1"]
    paths = os.pathsep.join(sys.path)
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], text=True, env=os.environ | {"PYTHONPATH": paths}
    )


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit code."""
    with process:
        return process.wait()


def test_whatever_a_power_cut_leaves_goes_on_to_identical_pixels(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    scene = write_scene(tmp_path / "scene.tif", (1000, 1000))
    assert ended(mapping(scene, tmp_path / "straight")) == 0
    wanted = product_of(tmp_path / "straight")
    disk, cuts = tmp_path / "disk", list[Path]()
    with disk.open("wb") as file:
        file.truncate(MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)

    def cut() -> None:
        cuts.append(tmp_path / f"cut-{len(cuts)}")
        subprocess.run(["cp", "--sparse=always", disk, cuts[-1]], check=True)

    with mounted(disk, tmp_path / "mount") as place, mapping(scene, place / "product") as process:
        while process.poll() is None:
            if (place / "product" / ".work").exists():
                cut()
            time.sleep(PAUSE)
        assert process.returncode == 0
        done = time.monotonic()
        for seconds in LATER:
            time.sleep(max(0.0, done + seconds - time.monotonic()))
            cut()
    during, after = cuts[: -len(LATER)], cuts[-len(LATER) :]
    judged = [*during[:: max(1, -(-len(during) // MOST))], *after]
    finished = 0
    for copy in judged:
        with mounted(copy, tmp_path / "mount") as place:
            left = product_of(place / "product")
            assert left in (None, wanted), f"{copy.name} left another product"
            finished += left is not None
            assert ended(mapping(scene, place / "product")) == (0 if left is None else 5)
            assert product_of(place / "product") == wanted
        copy.unlink()
    print(f"{len(judged)} power cuts, after {finished} of them the product was there; all identical")
    assert len(judged) > len(LATER)
    assert finished >= len(LATER), "what the command calls done is done"
