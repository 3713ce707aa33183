"""Zarr scenes: what cannot be decoded, and what is not there, is a hole and never a pixel."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from affine import Affine
from bucket import BUCKET, point_at, serving_bucket
from rasters import read_scene, write
from stores import NORTH, WEST, geozarr, write_arrays, zip_store
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from citycover.errors import CitycoverError, SceneError
from citycover.files.remote import tag_of
from citycover.geometry.window import Window
from citycover.scene.assemble import describe_scene
from citycover.scene.file import describe_files

IMAGE = np.random.default_rng(5).integers(1, 250, (3, 100, 90)).astype(np.uint8)

LOST = (slice(32, 64), slice(32, 64))
"""The chunk that is damaged: the second down and across."""

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"chunks": (1, 32, 32)},
    "all bands": {"chunks": (3, 32, 32), "compressors": GzipCodec()},
    "sharded": {"chunks": (3, 16, 16), "shards": (3, 32, 32), "compressors": ZstdCodec(checksum=True)},
    "not compressed": {"chunks": (3, 32, 32), "compressors": None},
    "blosc": {"chunks": (3, 32, 32), "compressors": BloscCodec()},
}

PARTS = [Window(row, col, 25, 45) for row in range(0, 100, 25) for col in (0, 45)]


def stored(folder: Path, layout: str, **more: Any) -> Path:
    return write_arrays(folder / "a.zarr", {"image": IMAGE}, ("band", "y", "x"), **LAYOUTS[layout], **more)


def damage(store: Path, how: str) -> None:
    chunk = store / "image/c/0/1/1"
    data = chunk.read_bytes()
    if how == "gone":
        chunk.unlink()
    else:
        chunk.write_bytes(
            {"cut": data[: len(data) // 2], "empty": b"", "garbage": b"\xa5" * (len(data) - 1)}[how]
        )


@pytest.mark.parametrize("how", ["gone", "cut", "empty", "garbage"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_chunk_is_a_hole_and_nothing_else_is(tmp_path: Path, layout: str, how: str) -> None:
    store = stored(tmp_path, layout)
    damage(store, how)
    scene = describe_scene([store], None)
    for parts in (None, PARTS):
        values, valid, holes = read_scene(scene, parts)
        np.testing.assert_array_equal(values[valid], np.moveaxis(IMAGE, 0, 2)[valid])
        assert not valid[LOST].any() and valid.sum() == valid.size - 32 * 32
        lost = np.zeros(valid.shape, bool)
        for hole in holes:
            assert hole.path == f"{store}/image" and hole.reason
            lost[hole.window.slices] = True
        np.testing.assert_array_equal(lost, ~valid)
    assert how != "gone" or "is not in the store, and 0 would count as its pixels" in holes[0].reason


def test_a_chunk_that_was_not_written_is_no_hole_where_it_says_that_there_is_no_value(tmp_path: Path) -> None:
    """Zarr leaves out chunks of fill values: by nodata of the store, by NaN, or as the user says."""
    for name, fill, dtype, attributes in (
        ("tag", "0", "uint8", {"_FillValue": 0}), ("nan", "NaN", "float32", {}), ("asked", "0", "uint8", {}),
    ):  # fmt: skip
        image = IMAGE.astype(dtype)
        image[(slice(None), *LOST)] = float(fill)
        store = write_arrays(
            tmp_path / f"{name}.zarr", {"image": image}, ("band", "y", "x"), chunks=(3, 32, 32),
            fill_value=float(fill), config={"write_empty_chunks": False},
        )  # fmt: skip
        zarr.open_array(store / "image").attrs.update(attributes)
        assert not (store / "image/c/0/1/1").exists()
        nodata = 0 if name == "asked" else None
        _, valid, holes = read_scene(describe_scene([store], None, nodata=nodata))
        assert not holes and not valid[LOST].any() and valid.sum() == valid.size - 32 * 32


def test_a_part_of_a_shard_that_holds_only_fill_is_valid(tmp_path: Path) -> None:
    """Its shard is there, and says that it holds nothing else."""
    image = IMAGE.copy()
    image[:, 16:32, 16:32] = 0
    how = LAYOUTS["sharded"] | {"config": {"write_empty_chunks": False}}
    store = write_arrays(tmp_path / "a.zarr", {"image": image}, ("band", "y", "x"), **how)
    values, valid, holes = read_scene(describe_scene([store], None))
    assert valid.all() and not holes
    np.testing.assert_array_equal(np.moveaxis(values, 2, 0), image)


@pytest.mark.parametrize("shift", [0, 0.25])
def test_sheets_in_stores_and_in_files_are_one_image(tmp_path: Path, shift: float) -> None:
    """Laid pixel on pixel, and warped."""
    files, stores = [], []
    for number, rows in enumerate((slice(0, 50), slice(50, 100))):
        part = IMAGE[:, rows]
        moved = Affine(1, 0, WEST + shift * number, 0, -1, NORTH - 50 * number)
        files.append(write(tmp_path / f"{number}.tif", part, transform=moved, photometric="minisblack"))
        place = geozarr(*part.shape[1:]) | {"spatial:transform": list(moved)[:6]}
        path = tmp_path / f"{number}.zarr"
        stores.append(write_arrays(path, {"a": part}, ("band", "y", "x"), place, chunks=(2, 16, 32)))
    wanted = read_scene(describe_scene(files, None))
    for sheets in (stores, [files[0], stores[1]]):
        for parts in (None, PARTS):
            got = read_scene(describe_scene(sheets, None), parts)
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layout", ["plain", "sharded"])
@pytest.mark.parametrize("scheme", ["s3", "gs", "http"])
def test_a_store_across_the_network_is_the_one_on_the_disk(
    tmp_path: Path, scheme: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole; with a chunk that is lost, and one that is damaged."""
    pytest.importorskip("obstore")
    store = stored(tmp_path, layout)
    zarr.consolidate_metadata(store)  # a plain server does not say what it holds
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        there = f"{bucket.url if scheme == 'http' else f'{scheme}:/'}/{BUCKET}/in/a.zarr"
        for path in store.rglob("*"):
            if path.is_file():
                bucket.objects[f"in/a.zarr/{path.relative_to(store)}"] = path.read_bytes()
        (info,) = describe_files([there])
        assert info.path == f"{there}/image" and info.bands[0].file == "a.zarr/image"
        values, valid, holes = read_scene(describe_scene([info.path], None), PARTS)
        assert valid.all() and not holes
        np.testing.assert_array_equal(np.moveaxis(values, 2, 0), IMAGE)
        chunk, tag = bucket.objects["in/a.zarr/image/c/0/1/1"], tag_of(there)
        assert bool(tag) == (scheme != "http") and tag == tag_of(there)
        del bucket.objects["in/a.zarr/image/c/0/2/0"]
        bucket.objects["in/a.zarr/image/c/0/1/1"] = chunk[: len(chunk) // 2]
        assert not tag or tag_of(there) not in {tag, ""}
        assert not tag_of(there.replace("a.zarr", "b.zarr"))
        _, valid, holes = read_scene(describe_scene([there], None), PARTS)
        wanted = np.ones(valid.shape, bool)
        wanted[LOST] = wanted[64:96, :32] = False
        np.testing.assert_array_equal(valid, wanted)
        assert any("c/0/2/0 is not in the store" in hole.reason for hole in holes)


def test_what_a_server_does_not_give_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    stored(tmp_path, "plain")
    stored(tmp_path / "shards", "sharded")
    with serving_bucket() as bucket:
        point_at(bucket.url, monkeypatch)
        for path in tmp_path.rglob("*"):
            if path.is_file():
                bucket.objects[f"in/{path.relative_to(tmp_path)}"] = path.read_bytes()
        there = f"{bucket.url}/{BUCKET}/in/a.zarr"
        shards = f"{bucket.url}/{BUCKET}/in/shards/a.zarr/image"
        assert describe_files([shards])
        bucket.whole = True
        with pytest.raises(SceneError, match=r"shards, and its server gives whole files .*; mend it"):
            describe_files([shards])
        with pytest.raises(
            SceneError, match=r"does not list what it holds.* name an array in it, as .*a\.zarr/"
        ):
            describe_files([there])
        assert read_scene(describe_scene([f"{there}/image"], None))[1].all()
        for other in (f"{bucket.url}/{BUCKET}/in/b.zarr", f"{there}.zip", f"gs://{BUCKET}/b.zarr"):
            with pytest.raises(SceneError, match="is no Zarr store that is read across the network"):
                describe_files([other])
        bucket.denied = True
        with pytest.raises(SceneError, match="is no Zarr store that is read across the network"):
            describe_files([there])
        with pytest.raises(CitycoverError, match="GOOGLE_APPLICATION_CREDENTIALS"):
            describe_files([f"gs://{BUCKET}/in/a.zarr"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inside", ["", "a.zarr/"])
def test_a_zipped_store_is_the_one_on_the_disk(tmp_path: Path, layout: str, inside: str) -> None:
    """Whole; without a chunk; with one whose bytes in the archive are damaged."""
    store = stored(tmp_path, layout)
    zipped = zip_store(store, inside)
    (info,) = describe_files([zipped])
    assert info.path == str(zipped / inside / "image") and info.beside[0][:2] == (
        str(zipped), zipped.stat().st_size,
    )  # fmt: skip
    for given in (zipped, info.path):
        values, valid, holes = read_scene(describe_scene([given], None), PARTS)
        assert valid.all() and not holes
        np.testing.assert_array_equal(np.moveaxis(values, 2, 0), IMAGE)
    damage(store, "gone")
    _, valid, holes = read_scene(describe_scene([zip_store(store, inside)], None), PARTS)
    assert "c/0/1/1 is not in the store" in holes[0].reason
    assert not valid[LOST].any() and valid.sum() == valid.size - 32 * 32
    with zipfile.ZipFile(zipped) as archive:
        start = archive.getinfo(f"{inside}image/c/0/2/0").header_offset + 60 + len(inside)
    data = bytearray(zipped.read_bytes())
    data[start] ^= 255
    zipped.write_bytes(data)
    _, valid, holes = read_scene(describe_scene([zipped], None), PARTS)
    assert len(holes) > 1 and not valid[64:96, :32].any() and valid.sum() == valid.size - 2 * 32 * 32


def test_a_zipped_store_of_zarr_2_is_a_scene(tmp_path: Path) -> None:
    """Of a date among several, too."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs.update(geozarr(100, 90))
    array = group.create_array("red", shape=(2, 100, 90), dtype="uint8", chunks=(1, 32, 32))
    array[...] = IMAGE[:2]
    array.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"]
    zipped = zip_store(tmp_path / "a.zarr")
    assert [info.path for info in describe_files([zipped])] == [f"{zipped}@0/red", f"{zipped}@1/red"]
    values, valid, _ = read_scene(describe_scene([f"{zipped}@1"], None, nodata=255))
    np.testing.assert_array_equal(values[..., 0], IMAGE[1])
    assert valid.all()
