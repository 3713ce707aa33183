"""`citycover synth`: what it prints can be gone on with."""

import json
from collections.abc import Callable
from pathlib import Path

from conftest import Result

from citycover.classes.legend import read_legend


def test_each_file_is_named_by_its_place_in_the_folder(
    citycover: Callable[..., Result], tmp_path: Path
) -> None:
    said = json.loads(citycover("synth", tmp_path / "city", "--size", 64, "--second-sensor", "--json").out)
    written = [p.relative_to(tmp_path / "city").as_posix() for p in (tmp_path / "city").rglob("*.tif")]
    assert sorted(said["files"]) == sorted(written)
    assert "sensor_b/image.tif" in said["files"]


def test_the_legend_of_truth_and_labels_is_said(citycover: Callable[..., Result], tmp_path: Path) -> None:
    shown = citycover("synth", tmp_path / "city", "--size", 64).out
    name = read_legend("city").name
    assert f"--legend {name}" in shown and f"--labels-legend {name}" in shown
