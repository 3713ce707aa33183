"""Files that a user names for what comes out: none that would be missed is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result, write_scene
from mapped import patchy, write_product

import citycover as library
from citycover.errors import ConfigError

Run = Callable[..., Result]


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A product whose `item.json` lists what is its own, and a file of the user's beside it."""
    folder = write_product(tmp_path / "product", patchy((30, 40)))
    (folder / "item.json").write_text(
        '{"properties": {"processing:software": {"citycover": "0"}}, "assets": {'
        '"a": {"href": "landcover.tif"}, "b": {"href": "run.json"}, "c": {"href": "preview.png"}}}'
    )
    (folder / "preview.png").write_bytes(b"png")
    return folder


SPOILING: dict[str, tuple[str, ...]] = {
    "stats": ("stats", "{p}", "-o", "{p}/run.json"),
    "evaluate -o": ("evaluate", "{p}", "--truth", "{p}", "-o", "{p}/item.json"),
    "evaluate --figure": ("evaluate", "{p}", "--truth", "{p}", "--figure", "{p}/preview.png"),
    "compare": ("compare", "{p}", "{p}", "-o", "{p}/landcover.tif"),
    "compare --table": ("compare", "{p}", "{p}", "--table", "{p}/run.json"),
    "compare --figure": ("compare", "{p}", "{p}", "--figure", "{p}/preview.png"),
    "--log-file": ("stats", "{p}", "--log-file", "{p}/run.json"),
    "models show": ("models", "show", "spectral-rgb", "--figure", "{p}/preview.png"),
}


@pytest.mark.parametrize("verb", SPOILING)
def test_no_output_replaces_a_file_of_a_product(citycover: Run, product: Path, verb: str) -> None:
    before = {path: path.read_bytes() for path in product.iterdir() if path.is_file()}
    refused = citycover(*(word.replace("{p}", str(product)) for word in SPOILING[verb]))
    assert refused.code == 2 and "belongs to the product in" in refused.err
    assert {path: path.read_bytes() for path in product.iterdir() if path.is_file()} == before


def test_no_output_replaces_what_the_command_reads(citycover: Run, tmp_path: Path) -> None:
    values = np.ones((1, 9, 9)) + np.arange(9) % 2
    raster = write_scene(tmp_path / "map.tif", (9, 9), 1, values=values, descriptions=())
    assert citycover("compare", raster, raster, "-o", raster, "--map-legend", "base4").code == 2
    zones = tmp_path / "zones.json"
    zones.write_text("{}")
    refused = citycover("stats", raster, "--map-legend", "base4", "--zones", zones, "-o", zones)
    assert refused.code == 2 and "is read by this command and would be replaced" in refused.err
    assert zones.read_text() == "{}"
    for name, words in (
        ("n.pt", ("export", "--torchscript", "{}", "--card", raster)),
        ("w.safetensors", ("import-weights", "{}", "--from", "deit", "--to", "l2hnet-tiny")),
        ("m.gpkg", ("vectorize", "{}", "--map-legend", "base4")),
        ("m.csv", ("sample", "{}", "--points", 9, "--map-legend", "base4")),
    ):
        path = raster.rename(tmp_path / name) if name.startswith("m.") else tmp_path / name
        path.touch()
        before = path.read_bytes()
        refused = citycover(*(path if word == "{}" else word for word in words), "-o", path)
        assert refused.code == 2 and "is read by this command and would be replaced" in refused.err
        assert path.read_bytes() == before
        raster = path if name.startswith("m.") else raster


FAR: dict[str, tuple[str, ...]] = {
    "stats": ("stats", "{p}", "-o", "s3://maps/a.csv"),
    "vectorize": ("vectorize", "{p}", "-o", "s3://maps/a.gpkg"),
    "compare": ("compare", "{p}", "{p}", "-o", "s3://maps/a.tif"),
    "evaluate --figure": ("evaluate", "{p}", "--truth", "{p}", "--figure", "https://example.org/a.png"),
    "sample": ("sample", "{p}", "--points", "9", "-o", "gs://maps/a.csv"),
    "--log-file": ("stats", "{p}", "--log-file", "s3://maps/log"),
    "synth": ("synth", "s3://maps/city", "--size", "64"),
    "train": (
        "train",
        "--image",
        "a.tif",
        "--labels",
        "b.tif",
        "--recipe",
        "l2hnet-light",
        "-o",
        "s3://maps/t",
    ),
}


@pytest.mark.parametrize("verb", FAR)
def test_files_of_this_machine_are_not_written_to_an_address(
    citycover: Run, product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """As a path it would be a folder called `s3:`, which nobody would look into."""
    monkeypatch.chdir(tmp_path)
    refused = citycover(*(word.replace("{p}", str(product)) for word in FAR[verb]))
    assert refused.code == 2 and "is an address; needed is a file or folder" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["product"]


def test_a_table_of_the_library_is_not_written_to_an_address(product: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"s3://maps/a\.gpkg is an address"):
        library.vectorize(product, Path("s3://maps/a.gpkg"))


def test_an_address_of_this_machine_is_a_path(citycover: Run, product: Path, tmp_path: Path) -> None:
    table = tmp_path / "a table.csv"
    done = citycover("stats", product.as_uri(), "-o", table.as_uri())
    assert done.code == 0 and table.is_file(), done.err


def test_models_and_logs_are_not_written_over_imagery(citycover: Run, scene: Path, tmp_path: Path) -> None:
    before = scene.read_bytes()
    exported = citycover("export", "l2hnet-tiny", "-o", scene)
    assert exported.code == 2 and "ends in .pt or .pt2" in exported.err
    imported = citycover("import-weights", scene, "--from", "deit", "--to", "l2hnet-tiny", "-o", scene)
    assert imported.code == 2 and ".safetensors" in imported.err
    logged = citycover("inspect", scene, "--log-file", scene)
    assert logged.code == 2 and "is no text" in logged.err
    assert scene.read_bytes() == before


@pytest.mark.parametrize(("option", "told"), [("--model", "there is no model ''"), ("--bands", "is empty")])
def test_an_empty_variable_of_a_script_is_no_choice_left_open(
    citycover: Run, scene: Path, option: str, told: str
) -> None:
    refused = citycover("plan", scene, option, "", "--no-probe")
    assert refused.code == 2 and told in refused.err
