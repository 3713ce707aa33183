"""The page of the first month: its shell is run in its order, and what it says of each run is looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent.parent / "docs/first-month.md"


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_month_goes_as_its_page_says(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/citycover"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m citycover_cli "$@"\n')
    command.chmod(0o755)
    home = tmp_path / "srv"
    home.mkdir()
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    said = []
    for block in blocks():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            check=False,
            capture_output=True,
            text=True,
            cwd=home,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
        said.append(done.stdout + done.stderr)
    runs = [json.loads(line) for line in (home / "products/runs.jsonl").read_text().splitlines()]
    assert len(runs) == 5  # one by hand, four by the scheduler
    assert (home / "ends.jsonl").read_text().count('"exit_code": 3') == 1
    maps = {path.name for path in (home / "products/maps").iterdir() if path.is_dir()}
    assert maps == {"block-1", "quarter-2", "block-3", "broken"}
    assert [path.name for path in (home / "products/earlier").iterdir()] == ["block-1"]
    assert "broken" in said[5]
