from __future__ import annotations

import subprocess
import sys


def test_understanding_a_request_loads_neither_torch_nor_dasks_arrays_and_clusters() -> None:
    code = (
        "import sys, citycover.job.job, citycover.job.watch, citycover.plan.columns, citycover.run.map\n"
        "print(sorted({'torch', 'dask.array', 'distributed', 'xarray'} & set(sys.modules)))"
    )  # of dask, odc.geo looks at the top package
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
