"""What a region file may say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from citycover.errors import ConfigError
from citycover.files.configs import config_path
from citycover.files.remote import place_of
from citycover.job.request import Imagery, MapRequest
from citycover.region.config import read_region, region_of
from citycover.scene.laying import Laying

LEAST = 'name = "north"\nout = "products"\n[[scenes]]\nfiles = ["*.tif"]\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "region.toml"
    path.write_text(text)
    return path


def test_paths_hold_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pt").touch()
    (tmp_path / "labels.tif").touch()
    more = (
        'model = "net.pt"\n[where]\naoi = "aoi.geojson"\n[labels]\nfiles = ["labels.tif", "worldcover"]\n'
        '[imagery.trust]\nfolders = ["tiles"]\n[areas]\nzones = "/data/zones.gpkg"\n'
        '[refine]\nburn = [["water.gpkg", "Water"]]\n'
    )
    head, scenes = LEAST.split("[[", 1)
    path = written(tmp_path, head + more.split("[", 1)[0] + "[[" + scenes + "[" + more.split("[", 1)[1])
    monkeypatch.chdir("/")
    region = read_region(path)
    assert region.out == tmp_path / "products"
    assert region.scenes[0].files == (str(tmp_path / "*.tif"),)
    assert region.model == str(tmp_path / "net.pt")
    assert region.where.aoi == tmp_path / "aoi.geojson"
    assert region.labels is not None and region.labels.files == (str(tmp_path / "labels.tif"), "worldcover")
    assert region.imagery.trust.folders == (tmp_path / "tiles",)
    assert region.areas is not None and region.areas.zones == Path("/data/zones.gpkg")
    assert region.refine is not None and region.refine.burn == ((tmp_path / "water.gpkg", "Water"),)


def test_the_request_of_a_scene_is_what_map_takes(tmp_path: Path) -> None:
    text = LEAST + '[engine]\nprecision = "fp32"\nwindow = 64\n[product]\nformats = ["cog", "zarr"]\n'
    text += '[imagery.laying]\ncomposite = "median"\n'
    asked = read_region(written(tmp_path, text)).request(("a.tif",), tmp_path / "a")
    assert asked.imagery.files == ("a.tif",) and asked.engine.window == 64
    assert asked.imagery.laying == Laying(composite="median")
    assert asked.engine.precision == "fp32" and asked.product.formats == ("cog", "zarr")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('out = "x"\n[[scenes]]\nfiles = ["a"]\n', "name"),
        ('name = "a"\nout = "x"\n', "scenes"),
        ('name = "../a"\nout = "x"\n[[scenes]]\nfiles = ["a"]\n', "cannot name a folder"),
        ('name = "a"\nout = "gs://bucket/x"\n[[scenes]]\nfiles = ["a"]\n', "is no place for"),
        (LEAST + "[engine]\nwindo = 3\n", "engine.windo"),
        (LEAST + '[engine]\nprecision = "fp8"\n', "precision"),
        (LEAST + "[engine]\nwindow = 0\n", "at least 1"),
        (LEAST + '[imagery.laying]\ncomposite = "mean"\n', "composite"),
        (LEAST + "[product]\noverwrite = true\n", "scene by scene"),
        (LEAST + '[imagery]\nfiles = ["a.tif"]\n', "under [[scenes]]"),
        (LEAST + '[policy]\nheld = "kill"\n', "policy.held"),
        (LEAST + "[policy]\nkeep = -1\n", "policy.keep"),
        (LEAST + "[refine]\nmajority = 4\n", "odd number"),
        (LEAST + '[polygons]\nformat = "shp"\n', "polygons.format"),
        (LEAST + '[[scenes]]\nfiles = ["b"]\nname = "b"\nby = "folder"\n', "leave out by"),
        ("name = [", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_region(path)
    assert words in str(error.value) and str(path) in str(error.value)


def test_the_example_that_ships_can_be_read() -> None:
    region = read_region(config_path("regions", "example.toml"))
    assert [source.by for source in region.scenes] == ["file", "folder", "file"]
    assert region.policy.held == "leave" and region.areas is not None


def test_a_map_of_many_scenes_is_a_region_of_one_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = MapRequest(Imagery(("a.tif", "b.tif")), Path("maps"), "model", layers=("entropy",))
    region = region_of(request)
    assert (region.name, region.out, region.layers) == ("maps", tmp_path / "maps", ("entropy",))
    assert region.scenes[0].files == (str(tmp_path / "a.tif"), str(tmp_path / "b.tif"))
    assert region_of(replace(request, out="s3://bucket/2026/maps")).out == place_of("s3://bucket/2026/maps")
