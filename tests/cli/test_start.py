"""What a command imports before it answers: the time of an answer is mostly that of its imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from citycover_cli.app import verbs

LISTEN = """
import sys
from citycover_cli.start import main
try:
    main()
finally:
    print("IMPORTED", *sys.modules, file=sys.stderr)
"""


def imported(*words: str) -> tuple[int, set[str]]:
    """The exit code of a command and all that it imported."""
    done = subprocess.run([sys.executable, "-c", LISTEN, *words], capture_output=True, text=True, check=False)
    return done.returncode, set(done.stderr.rpartition("IMPORTED")[2].split())


@pytest.mark.parametrize("verb", [(), *verbs()], ids=" ".join)
def test_help_imports_nothing_heavy(verb: tuple[str, ...]) -> None:
    code, modules = imported(*verb, "--help")
    assert code == 0 and "typer" in modules
    assert not modules & {"torch", "dask", "distributed", "rasterio", "numpy", "shapely", "xarray"}


@pytest.mark.parametrize("verb", ["map", "plan"])
def test_a_mistake_is_answered_without_torch(tmp_path: Path, verb: str) -> None:
    words = (verb, str(tmp_path / "nothing.tif"), *(("-o", str(tmp_path / "out")) if verb == "map" else ()))
    code, modules = imported(*words)
    assert code == 2 and "rasterio" in modules
    assert not modules & {"torch", "distributed", "xarray", "pandas"}


@pytest.mark.parametrize("module", ["job.job", "plan.fit", "plan.cost", "plan.columns", "run.map"])
def test_planning_imports_no_torch(module: str) -> None:
    script = f"import sys, citycover.{module}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
