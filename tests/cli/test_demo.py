"""`citycover demo`: the whole story, and the same one from wherever it was ended."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from sharpening import OF_DEMO, killed

QUICK = ("epochs=1", "chips_per_epoch=8", "chip=32", "batch=4")
SMALL = ("--size", "192", *(word for change in QUICK for word in ("--set", change)))


def pixels(demo: Path) -> Any:
    with rasterio.open(demo / "product/landcover.tif") as product:
        return product.read(1)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What an undisturbed demo leaves, and says."""
    from citycover_cli.app import main

    folder = tmp_path_factory.mktemp("demo")
    said = io.StringIO()
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(said):
        main(["demo", str(folder), *SMALL, "--json", "--quiet"])
    assert end.value.code == 0
    return folder, json.loads(said.getvalue())


def test_it_tells_the_whole_story(straight: tuple[Path, dict[str, Any]]) -> None:
    folder, story = straight
    assert story["coarse_labels"]["miou"] > 0 and len(story["map"]["classes"]) == 6
    for name in (
        "story.png",
        "product/training/model.pt",
        "product/landcover.tif",
        "product/sharpen.json",
        "city/truth.tif",
    ):
        assert (folder / name).is_file()


def test_one_that_is_finished_is_left_alone(citycover, straight: tuple[Path, dict[str, Any]]) -> None:
    again = citycover("demo", straight[0], *SMALL)
    assert again.code == 5 and "finished and identical" in again.err
    other = citycover("demo", straight[0], *SMALL, "--size", 128)
    assert other.code == 2 and "already holds" in other.err


@pytest.mark.parametrize(
    "moment",
    [m if m == "training" else pytest.param(m, marks=pytest.mark.slow) for m in OF_DEMO],
)
def test_killed_at_any_stage_it_goes_on_to_the_same_map(
    citycover, straight: tuple[Path, dict[str, Any]], tmp_path: Path, moment: str
) -> None:
    assert killed(moment, ["demo", str(tmp_path), *SMALL]) == -signal.SIGKILL
    assert not (tmp_path / "story.png").exists()
    kept = [tmp_path / name for name in ("city/image.tif", "product/training/model.pt")]
    before = [path.stat().st_mtime_ns for path in kept if path.is_file()]
    done = citycover("demo", tmp_path, *SMALL, "--overwrite")  # as `make demo` has it
    assert done.code == 0, done.err
    np.testing.assert_array_equal(pixels(tmp_path), pixels(straight[0]))
    assert (tmp_path / "story.png").read_bytes() == (straight[0] / "story.png").read_bytes()
    if moment != "putting the first file in its place":  # the city was not whole: it is drawn once more
        assert before == [path.stat().st_mtime_ns for path in kept[: len(before)]]


@pytest.mark.slow
def test_overwrite_makes_a_finished_one_anew(citycover, tmp_path: Path) -> None:
    assert citycover("demo", tmp_path, *SMALL).code == 0
    before = (tmp_path / "story.png").stat().st_mtime_ns
    assert citycover("demo", tmp_path, *SMALL, "--overwrite").code == 0
    assert (tmp_path / "story.png").stat().st_mtime_ns > before
