"""What a command imports before it answers: the time of an answer is mostly that of its imports."""

from __future__ import annotations

import os
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
    heavy = {"torch", "dask", "distributed", "rasterio", "numpy", "shapely", "xarray", "pydantic"}
    assert not modules & heavy


def test_a_verb_is_imported_alone() -> None:
    _, modules = imported("view", "--help")
    files = {name for name in modules if name.startswith("citycover_cli.verbs.")}
    assert files == {"citycover_cli.verbs.view"}


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("citycover ma", "map"),
        ("citycover --version pl", "plan"),
        ("citycover map --lab", "--labels"),
        ("citycover models sh", "show"),
    ],
)
def test_a_shell_completes_verbs_and_options(line: str, among: str) -> None:
    asks = {"_CITYCOVER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    begin = "import sys; sys.argv = ['citycover']; from citycover_cli.start import main; main()"
    words = [sys.executable, "-c", begin]
    done = subprocess.run(words, env={**os.environ, **asks}, capture_output=True, text=True, check=False)
    assert among in done.stdout.split() and not any(word.startswith("0.") for word in done.stdout.split())


@pytest.mark.parametrize("words", [(), ("models",)])
def test_no_verb_is_answered_with_those_there_are(citycover, words: tuple[str, ...]) -> None:
    bare, asked = citycover(*words), citycover(*words, "--help")
    assert (bare.code, bare.out, bare.err) == (0, asked.out, "") and "Usage: citycover" in bare.out


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
