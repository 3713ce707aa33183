"""A run as a whole: what happens to it from outside."""

from __future__ import annotations

import logging
import shutil
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import write_scene

from citycover.errors import MachineError, StoppedError
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.plan import fit
from citycover.product.record import RunRecord
from citycover.run.map import map_scene


@pytest.fixture
def request_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MapRequest:
    """A map in four blocks."""
    monkeypatch.setattr(fit, "MAX_BLOCK_HEIGHT", fit.CHUNK)
    monkeypatch.setattr(fit, "MAX_BLOCK_WIDTH", fit.CHUNK)
    scene = write_scene(tmp_path / "scene.tif", (600, 700))
    return MapRequest(
        (str(scene),), tmp_path / "out", "spectral-rgbn", window=256, batch=1, precision="fp32", threads=1
    )


def test_a_run_whose_folder_is_removed_stops_and_publishes_nothing(request_of_blocks: MapRequest) -> None:
    out = request_of_blocks.out
    watch = Watch(advanced=lambda _block: shutil.rmtree(out, ignore_errors=True))
    with pytest.raises(MachineError, match="removed or taken over"):
        map_scene(request_of_blocks, watch)
    assert not (out / "item.json").exists()
    product = map_scene(request_of_blocks)
    with rasterio.open(product.folder / "landcover.tif") as dataset:
        assert np.unique(dataset.read(1)).size > 1


def test_a_run_whose_folder_is_removed_before_it_publishes_publishes_nothing(
    request_of_blocks: MapRequest,
) -> None:
    out = request_of_blocks.out
    with pytest.raises(MachineError, match=r"removed or taken over|not there"):
        map_scene(request_of_blocks, Watch(publishing=lambda: shutil.rmtree(out)))
    assert not out.exists()


def test_the_record_tells_of_attempts_and_warnings(request_of_blocks: MapRequest) -> None:
    stop = threading.Event()
    with pytest.raises(StoppedError):
        map_scene(request_of_blocks, Watch(advanced=lambda _block: stop.set(), stop=stop))
    watch = Watch(publishing=lambda: logging.getLogger("citycover.test").warning("a warning of %s", "mine"))
    begin = datetime.now(UTC).replace(microsecond=0)
    run = map_scene(request_of_blocks, watch).run
    assert (run.attempts, run.resumed) == (2, True)
    assert "a warning of mine" in run.warnings
    timing = run.timing
    assert timing.started and timing.finished and timing.started <= begin <= timing.finished
    assert run.machine.host == socket.gethostname() and run.given.command == tuple(sys.argv)
    assert RunRecord.from_json((request_of_blocks.out / "run.json").read_text()) == run


def test_a_run_at_one_go_is_one_attempt(request_of_blocks: MapRequest) -> None:
    run = map_scene(request_of_blocks).run
    assert (run.attempts, run.resumed, run.warnings) == (1, False, ())
