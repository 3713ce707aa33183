from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from citycover.errors import PlanError
from citycover.job.job import prepare_request
from citycover.job.request import EngineOptions, Imagery, MapRequest


def test_understanding_a_request_loads_neither_torch_nor_dasks_arrays_and_clusters() -> None:
    code = (
        "import sys, citycover.job.job, citycover.job.watch, citycover.plan.columns, citycover.run.map\n"
        "print(sorted({'torch', 'dask.array', 'distributed', 'xarray'} & set(sys.modules)))"
    )  # of dask, odc.geo looks at the top package
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("block", "near"), [((1000, 512), r"\[1024, 512\]"), ((512, 0), r"\[512, 512\]")])
def test_blocks_that_cannot_be_stored_are_refused(tmp_path: Path, block: tuple[int, int], near: str) -> None:
    request = MapRequest(Imagery(("city.tif",)), tmp_path / "out", engine=EngineOptions(block=block))
    with pytest.raises(PlanError, match=f"whole chunks of 512 px.*nearest is {near}"):
        prepare_request(request)
