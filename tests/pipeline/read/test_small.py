"""Small versions: what is cheap, and the same pixels whichever way they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling

from citycover.read import small
from citycover.read.small import decoded_bytes, read_small

PIXELS = np.random.default_rng(0).integers(1, 200, (3, 400, 600), np.uint8)
PIXELS[:, :, :60] = 0


def write(path: Path, block: int = 64, **changes: object) -> str:
    profile = {
        "driver": "GTiff", "height": 400, "width": 600, "count": 3, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(1, 0, 5e5, 0, -1, 5.8e6), "tiled": True, "blockxsize": block, "blockysize": block,
        "nodata": 0, **changes,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(PIXELS)
    return str(path)


def test_a_cheap_raster_is_decimated_as_gdal_does_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    got = read_small({path: [3, 1]}, 150)
    with rasterio.open(path) as dataset:
        expected = dataset.read([3, 1], out_shape=(2, 100, 150), masked=True)
    assert got is not None and got.shape == (2, 100, 150)
    np.testing.assert_array_equal(got.filled(0), expected.filled(0))
    assert got.mask.mean() == pytest.approx(0.1)


def test_a_dear_raster_is_sampled_at_a_lattice(tmp_path: Path) -> None:
    got = read_small({write(tmp_path / "a.tif"): [1], write(tmp_path / "b.tif"): [2, 3]}, 150, budget=1000)
    assert got is not None and got.shape == (3, 32, 32)
    rows, cols = (np.array([int((i + 0.5) * n / 32) for i in range(32)]) for n in (400, 600))
    np.testing.assert_array_equal(got.filled(0), PIXELS[:, rows[:, None], cols])


def test_a_lattice_is_coarser_where_blocks_are_large_and_none_where_they_are_huge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tif", block=16)
    monkeypatch.setattr(small, "HINT_BYTES", 5_000)
    sides = []
    for blocks in (36, 35, 16, 15, 9, 8):  # 6, 4 and 3 blocks along a side, of 256 bytes
        monkeypatch.setattr(small, "_LATTICE_BYTES", blocks * 256)
        got = read_small({path: [1]}, 150, budget=1000)
        sides.append(None if got is None else got.shape[1])
    assert sides == [30, 16, 16, 6, 6, None]


def test_a_lattice_of_few_blocks_has_the_pixels_of_the_file_and_reaches_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small, "HINT_BYTES", 1)
    got = read_small({write(tmp_path / "a.tif", block=16): [2]}, 150, budget=1000)
    rows, cols = small._lattice(400, 16, 32, 6), small._lattice(600, 16, 32, 6)
    assert rows[:6] == [1, 4, 8, 11, 14, 65] and rows[-1] == 398, "blocks 0, 4, 9, 14, 19 and 24 of 25"
    assert cols[0] == 1 and cols[-1] == 599 and len({col // 16 for col in cols}) == 6
    assert got is not None
    np.testing.assert_array_equal(got.filled(0)[0], PIXELS[1][np.ix_(rows, cols)])


@pytest.mark.parametrize("block", [64, 16])
def test_hints_read_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    path, hints, calls = write(tmp_path / "a.tif", block=block), small.Hints(), []
    read = read_small
    monkeypatch.setattr(small, "read_small", lambda *given, **how: calls.append(given) or read(*given, **how))
    first = hints.of({path: [1, 2]})
    assert hints.of({path: [1, 2]}) is first and len(calls) == 1
    assert hints.of({path: [1]}) is not first and hints.of({path: [1, 2]}, unseen=True) is not first
    assert len(calls) == 3


def test_overviews_make_a_raster_cheap(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.nearest)
    with rasterio.open(path) as dataset:
        whole = 400 * 600 * 3
        assert decoded_bytes(dataset, 3, 400 * 600, 1.5) == whole
        assert decoded_bytes(dataset, 3, 400 * 600, 5.0) == whole // 16


@pytest.mark.parametrize(("side", "block"), [(100_000, 8192), (1_000_000, 512)])
def test_an_empty_raster_of_any_size_is_looked_at_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, block: int
) -> None:
    path = tmp_path / "sparse.tif"
    rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint8", crs="EPSG:32633",
        transform=Affine(1, 0, 0, 0, -1, 0), tiled=True, blockxsize=block, blockysize=block, sparse_ok=True,
        bigtiff=True,
    ).close()  # fmt: skip
    caches = []
    env = rasterio.Env

    def spy(**options: object) -> rasterio.Env:
        caches.append(int(str(options.get("GDAL_CACHEMAX", 0))))
        return env(**options)

    monkeypatch.setattr(small.rasterio, "Env", spy)
    got = read_small({str(path): [1]}, 1000)
    assert max(caches) <= 16 << 20
    assert got is None if block == 8192 else got is not None and not got.any()
