"""Every yes of the comparison is shown by the command beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/comparison.md"


def proofs() -> list[tuple[str, str, str]]:
    """Feature, answer and command."""
    rows = re.findall(
        r"^\| (.*?) \| \*\*([YPN])\*\* \| .*? \| (?:`(.*?)`)? \|$", PAGE.read_text(), re.MULTILINE
    )
    assert len(rows) > 30
    return rows


def test_every_yes_has_a_command() -> None:
    for feature, answer, command in proofs():
        assert command or answer != "Y", feature


def test_what_pytest_and_make_are_to_run_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (PAGE.parent.parent / "Makefile").read_text(), re.MULTILINE)
    for _, _, command in proofs():
        tool, _, what = command.partition(" ")
        assert tool in {"", "citycover", "rio", "pytest", "make"}, command
        assert tool != "pytest" or (PAGE.parent.parent / what).is_file(), command
        assert tool != "make" or what in targets, command


@pytest.mark.slow
def test_the_commands_do_what_is_said(tmp_path: Path) -> None:
    """Those of pytest and make are run by themselves."""
    (setup,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands = [c for _, _, c in proofs() if c.startswith(("citycover", "rio"))]
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in (setup, *commands):
        done = subprocess.run(
            ["bash", "-ec", command], check=False, cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"PATH": paths},
        )  # fmt: skip
        finished = "--skip-finished" in command and done.returncode == 5
        assert done.returncode == 0 or finished, f"{command}\n{done.stdout}\n{done.stderr}"
        if command.startswith("rio cogeo validate"):
            assert "is a valid cloud optimized GeoTIFF" in done.stdout
