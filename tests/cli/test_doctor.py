"""The doctor on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citycover.run.doctor import Finding


def test_what_it_says(citycover, tmp_path: Path) -> None:
    said = citycover("doctor", "--quick", "-o", tmp_path)
    assert said.code == 0 and said.out.startswith("fit to map") and "GDAL" in said.out
    assert citycover("doctor", "--quick", "-q", "-o", tmp_path).out == ""
    assert json.loads(citycover("doctor", "--quick", "--json", "-o", tmp_path).out)["fit"] is True


def test_a_machine_that_cannot_map_is_said_also_quietly(
    citycover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Finding("disk", "it cannot be written", "bad", "mount it for writing")
    monkeypatch.setattr("citycover.run.doctor._disk", lambda *_: iter([bad]))
    said = citycover("doctor", "--quick", "-q", "-o", tmp_path)
    assert said.code == 4 and "BROKEN" in said.out and "cannot be written" in said.out
