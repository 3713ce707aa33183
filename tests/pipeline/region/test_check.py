"""What a region file shows to be wrong for every scene is refused before one is tried."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_scene

from citycover.errors import CitycoverError, MachineError
from citycover.files.configs import config_path
from citycover.region.config import Region, read_region
from citycover.region.forecast import forecast_region
from citycover.region.record import settings_of
from citycover.region.run import run_region
from citycover.region.status import status_of

HEAD = 'name = "north"\nout = "products"\nmodel = "spectral-rgbn"\n'

SCENES = '[[scenes]]\nfiles = ["im/*.tif"]\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """One scene, and a file of zones that lies elsewhere."""
    (tmp_path / "im").mkdir()
    values = np.random.default_rng(0).integers(30, 220, (4, 40, 50), np.uint8)
    write_scene(tmp_path / "im/a.tif", (40, 50), values=values)
    ring = [[0, 0], [1, 0], [1, 1], [0, 0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    zone = {"type": "Feature", "properties": {"name": "x"}, "geometry": geometry}
    (tmp_path / "zones.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [zone]}))
    return tmp_path


def region(place: Path, head: str, more: str) -> Region:
    (place / "region.toml").write_text(HEAD + head + SCENES + more)
    return read_region(place / "region.toml")


@pytest.mark.parametrize(
    ("head", "more", "words"),
    [
        ("", '[areas]\nby = "name"\n', "give zones"),
        ("", '[areas]\nzones = "nothing.gpkg"\n', "does not exist"),
        ("", '[areas]\nzones = "zones.geojson"\nby = "district"\n', "no column 'district'; it has: name"),
        ("", '[where]\naoi = "nothing.geojson"\n', "does not exist"),
        ("", "[where]\nbbox = [1, 2, 3]\n", "west,south,east,north"),
        ("", "[where]\nbbox = [3, 2, 1, 0]\n", "south < north"),
        ("", "[labels]\nfiles = []\n", "no file and no product"),
        ("", '[labels]\nfiles = ["worldcover"]\n', "trained_prior"),
        ('layers = ["entrop"]\n', "", "there is no layer 'entrop'"),
        ('layers = ["disagreement"]\n', "", "give several models"),
        ("", '[imagery]\nbands = ["1", "2"]\n', "names 2 bands"),
        ("", '[imagery.laying]\ngrid = "EPSG:32633/0"\n', "no pixel size"),
        ("", '[imagery.laying]\ngrid = "nothing.tif"\n', "is no CRS"),
        ("", '[refine]\nburn = [["nothing.gpkg", "Water"]]\n', "does not exist"),
        ("", '[refine]\nburn = [["zones.geojson", "Lava"]]\n', "no class 'Lava'"),
        ("", '[engine]\ndevice = "gpu"\n', "takes auto, cpu, cuda"),
        ("", "[engine]\ntrim = -1\n", "0 or more"),
        ("", "[engine]\nwindow = 7\n", "leaves no step"),
        ("", "[engine]\nblock = [100, 100]\n", "whole chunks"),
        ("", "[engine]\nthreads = 1000000\n", "this machine takes"),
    ],
)
def test_what_no_scene_could_be_mapped_by_is_refused_at_once(
    place: Path, head: str, more: str, words: str
) -> None:
    for tried in (run_region, forecast_region):
        with pytest.raises(CitycoverError) as refused:
            tried(region(place, head, more))
        assert words in str(refused.value) and refused.value.exit_code == 2
    assert not (place / "products/maps/a").exists()


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ('device = "cpu"\nform = "cudnn"', "--form cudnn"),
        ('device = "cuda:99"', "99"),
        ('scheduler = "tcp://127.0.0.1:9"', "no scheduler answers"),
    ],
)
def test_what_this_machine_lacks_is_refused_before_a_scene_is_tried(
    place: Path, engine: str, words: str
) -> None:
    asked = region(place, "", f"[engine]\n{engine}\n[areas]\n")
    assert not forecast_region(asked).scenes[0].problem, "it may be asked where the device is not"
    with pytest.raises(MachineError, match=words):
        run_region(asked)
    assert not (place / "products/.region/next/a").exists()


def test_what_is_made_of_maps_that_are_there_asks_for_no_device(place: Path) -> None:
    run_region(region(place, "", ""))
    table = "[areas]\n"
    there = region(place, "", table)
    lacking = there.model_copy(update={"engine": replace(there.engine, device="cuda:99")})
    assert [outcome.what for outcome in run_region(lacking).outcomes] == ["completed"]


def test_a_region_can_be_looked_at_where_the_files_that_it_names_are_not(place: Path) -> None:
    assert status_of(region(place, "", '[areas]\nzones = "nothing.gpkg"\n')).counts == {"new": 1}


@pytest.mark.parametrize("label", ["nothing.tif", "nothing/*.tif", "worldcovr", "worldcover:1990"])
def test_labels_that_are_nowhere_are_refused_where_the_model_is_not_known_yet(
    place: Path, label: str
) -> None:
    (place / "region.toml").write_text(
        f'name = "north"\nout = "products"\n{SCENES}[labels]\nfiles = ["{label}"]\n'
    )
    with pytest.raises(CitycoverError) as refused:
        run_region(read_region(place / "region.toml"))
    assert refused.value.exit_code == 2


def test_a_grid_and_a_legend_that_are_files_lie_beside_the_region_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legend = config_path("legends", "base4.toml").read_text()
    (place / "own.toml").write_text(legend)
    (place / "grid.tif").write_bytes((place / "im/a.tif").read_bytes())
    monkeypatch.chdir("/")
    asked = region(place, "", '[imagery.laying]\ngrid = "grid.tif"\n[refine]\nto = "own.toml"\n')
    assert asked.imagery.laying.grid == str(place / "grid.tif")
    assert asked.refine is not None and asked.refine.to == str(place / "own.toml")
    before = settings_of(asked).after["refine"]
    (place / "own.toml").write_text(legend + "\n")
    assert settings_of(asked).after["refine"] != before, "it counts with its content"
