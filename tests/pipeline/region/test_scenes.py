"""Which scenes there are, and which shard has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citycover.errors import ConfigError
from citycover.region.config import SceneSource
from citycover.region.scenes import Shard, find_scenes


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_files_folders_and_sets(tmp_path: Path) -> None:
    touched(
        tmp_path,
        "t/b.tif",
        "t/a.tif",
        "s/S2A_1/B02.jp2",
        "s/S2A_1/B03.jp2",
        "s/S2A_2/B02.jp2",
        "p.tif",
        "q.tif",
    )
    found = find_scenes(
        [
            SceneSource(files=(str(tmp_path / "t/*.tif"),)),
            SceneSource(files=(str(tmp_path / "s/*/B0?.jp2"),), by="folder"),
            SceneSource(files=(str(tmp_path / "p.tif"), str(tmp_path / "q.tif")), name="harbour"),
            SceneSource(files=(str(tmp_path / "missing.tif"),)),
            SceneSource(files=(str(tmp_path / "none/*.tif"),)),
        ],
        tmp_path / "out",
    )
    assert [scene.name for scene in found] == ["S2A_1", "S2A_2", "a", "b", "harbour", "missing"]
    assert [Path(file).name for file in found[0].files] == ["B02.jp2", "B03.jp2"]
    assert len(found[4].files) == 2


def test_zarr_stores_are_scenes_by_pattern(tmp_path: Path) -> None:
    touched(tmp_path, "t/a.zarr/zarr.json", "t/a.zarr/red/c/0/0", "t/b.zarr.zip", "t/x/c.zarr/.zgroup")
    found = find_scenes([SceneSource(files=(str(tmp_path / "t/**/*.zarr*"),))], tmp_path / "out")
    assert [(scene.name, Path(scene.files[0]).name) for scene in found] == [
        ("a", "a.zarr"), ("b", "b.zarr.zip"), ("c", "c.zarr"),
    ]  # fmt: skip


def test_a_file_that_two_patterns_match_is_one_scene(tmp_path: Path) -> None:
    touched(tmp_path, "a.tif")
    both = (str(tmp_path / "*.tif"), str(tmp_path / "a.*"))
    assert len(find_scenes([SceneSource(files=both), SceneSource(files=both[:1])], tmp_path / "out")) == 1


def test_products_are_no_scenes_and_names_fit_into_file_systems(tmp_path: Path) -> None:
    touched(tmp_path, "a.tif", "out/maps/a/landcover.tif")
    (scene,) = find_scenes([SceneSource(files=(str(tmp_path / "**/*.tif"),))], tmp_path / "x/../out")
    assert scene.name == "a"
    with pytest.raises(ValueError, match="200 bytes at most"):
        SceneSource(files=("a.tif",), name="é" * 101)


def test_one_more_file_in_a_folder_makes_another_scene_of_it(tmp_path: Path) -> None:
    touched(tmp_path, "s/x.tif")
    source = SceneSource(files=(str(tmp_path / "s"),))
    (before,) = find_scenes([source], tmp_path / "out")
    touched(tmp_path, "s/y.tif")
    (after,) = find_scenes([source], tmp_path / "out")
    assert (before.name, len(before.files), len(after.files)) == ("s", 1, 2)


def test_addresses_are_no_patterns(tmp_path: Path) -> None:
    (scene,) = find_scenes([SceneSource(files=("https://example.org/x.tif?sig=[a]",))], tmp_path)
    assert (scene.name, scene.files) == ("x", ("https://example.org/x.tif?sig=[a]",))
    with pytest.raises(ConfigError, match="name each file"):
        find_scenes([SceneSource(files=("https://example.org/*.tif",))], tmp_path)


@pytest.mark.parametrize(
    ("names", "pattern", "words"),
    [
        ((), "*.tif", "no file matches"),
        (("x/a.tif", "y/a.tif"), "*/a.tif", "would be called 'a'"),
        (("A.tif", "a.tif"), "*.tif", "upper and lower case being one"),
        (("_a.tif",), "*.tif", "cannot name a folder"),
        (("a\n.tif",), "*.tif", "cannot name a folder"),
    ],
)
def test_what_no_region_can_have(tmp_path: Path, names: tuple[str, ...], pattern: str, words: str) -> None:
    touched(tmp_path, *names)
    with pytest.raises(ConfigError, match=words):
        find_scenes([SceneSource(files=(str(tmp_path / pattern),))], tmp_path / "out")


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 9))
def test_shards_share_all_scenes_and_never_meet(names: list[str], count: int) -> None:
    held = [[name for name in names if Shard(k, count).holds(name)] for k in range(1, count + 1)]
    assert sorted(name for part in held for name in part) == sorted(names)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/3", "1/0", "-1/3", "1/3/4", "1/1000000"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard takes i/n"):
        Shard.parse(text)


def test_a_pattern_that_finds_nothing_beside_others_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.tif").touch()
    sources = [SceneSource(files=(f"{tmp_path}/{name}*.tif",)) for name in ("a", "b")]
    for _ in range(2):
        assert [scene.name for scene in find_scenes(sources, tmp_path / "out")] == ["a"]
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"no file matches {tmp_path}/b*.tif" in told
