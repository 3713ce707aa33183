"""A real Airflow runs the DAG of production once, all tasks in one process: `make test-airflow`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_scene

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

REGION = 'name = "north"\nout = "products"\nmodel = "spectral-rgbn"\n[[scenes]]\nfiles = ["im/*.tif"]\n'


def test_airflow_runs_the_dag_to_its_end(tmp_path: Path) -> None:
    airflow = shutil.which("airflow")
    if airflow is None:
        pytest.skip("airflow, which lives in an environment of its own, is not on the PATH")
    place, home = tmp_path / "region", tmp_path / "airflow"
    for name in "abcd":
        write_scene(place / f"im/{name}.tif", (300, 200))
    (place / "region.toml").write_text(REGION)
    (home / "dags").mkdir(parents=True)
    shutil.copy(ROOT / "configs/production/airflow/citycover_region.py", home / "dags")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # where citycover is
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_VAR_CITYCOVER_FOLDER": str(place),
        "AIRFLOW_VAR_CITYCOVER_PARTS": "2",
    }
    for words in (("db", "migrate"), ("dags", "reserialize"), ("dags", "test", "citycover_region")):
        done = subprocess.run(
            [airflow, *words], check=False, env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "state=success" in done.stdout + done.stderr
    assert {path.parent.name for path in (place / "products").glob("maps/*/landcover.tif")} == set("abcd")
    runs = [json.loads(line) for line in (place / "products/runs.jsonl").read_text().splitlines()]
    assert len(runs) == 2
    assert sum(run["counts"]["mapped"] for run in runs) == 4
