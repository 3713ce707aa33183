"""COGs: GDAL, rio-cogeo and brute force say whether they are right."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rio_cogeo import cog_validate

from citycover.classes.legend import Legend, LegendClass
from citycover.files.store import PosixStore
from citycover.product import tiles
from citycover.product.cog import CogInfo, write_cog
from citycover.product.tiff import BandInfo, Level, compose_head, gdal_tags
from citycover.product.tiles import ArraySource
from citycover.store.pyramid import halve_average, halve_mode, halve_nearest
from citycover.store.shard import ArraySpec, Layout
from citycover.store.statistics import Statistics
from citycover.store.store import WorkingStore

LEGEND = Legend(
    name="test",
    classes=(
        LegendClass(id=1, name="water & ice", color="#0000ff"),
        LegendClass(id=2, name="forêt", color="#00ff00"),
        LegendClass(id=5, name="built-up", color="#ff0000"),
    ),
)
CLASSES = BandInfo(255, "land cover", legend=LEGEND, tags={"MODEL": "test-1"})
CONFIDENCE = BandInfo(0, "confidence", scale=1 / 255)


def make_classes(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    patches = rng.choice(np.array([1, 2, 5, 255], np.uint8), (shape[0] // 7 + 1, shape[1] // 7 + 1))
    pixels = np.repeat(np.repeat(patches, 7, axis=0), 7, axis=1)[: shape[0], : shape[1]].copy()
    pixels[rng.random(shape) < 0.05] = 2
    pixels[: shape[0] // 3, : shape[1] // 2] = 255
    return pixels


def make_grid(shape: tuple[int, int], step: float = -2.0, crs: str = "EPSG:32633") -> GeoBox:
    return GeoBox(shape, Affine(2, 0, 500_000, 0, step, 5_800_000), crs)


def write(path: Path, pixels: NDArray[np.uint8], band: BandInfo = CLASSES, **options: Any) -> CogInfo:
    return write_cog(path, [ArraySource(pixels)], make_grid(pixels.shape), [band], **options)


def brute(pixels: NDArray[np.uint8], nodata: int, how: str) -> NDArray[np.uint8]:
    """One overview by the definition, pixel by pixel."""
    out = np.full([n // 2 for n in pixels.shape], nodata, np.uint8)
    for y, x in np.ndindex(out.shape):
        square = [int(v) for v in pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel() if v != nodata]
        if square and how == "mode":
            out[y, x] = Counter(square).most_common(1)[0][0]  # of equals, the first inserted
        elif square and how == "average":
            out[y, x] = (2 * sum(square) + len(square)) // (2 * len(square))
        elif square:
            out[y, x] = square[0]
    return out


def overview(pixels: NDArray[np.uint8], nodata: int, halve: Any) -> NDArray[np.uint8]:
    """One overview of any shape by the halving that is proven against brute force on small ones."""
    padded = np.pad(pixels, [(0, n % 2) for n in pixels.shape], constant_values=nodata)
    out: NDArray[np.uint8] = halve(padded, nodata)
    return out


@given(arrays(np.uint8, (12, 16), elements=st.integers(0, 3)), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_halves_are_what_their_definition_says(pixels: NDArray[np.uint8], nodata: int) -> None:
    np.testing.assert_array_equal(halve_mode(pixels, nodata), brute(pixels, nodata, "mode"))
    np.testing.assert_array_equal(halve_average(pixels, nodata), brute(pixels, nodata, "average"))
    np.testing.assert_array_equal(halve_nearest(pixels, nodata), brute(pixels, nodata, "nearest"))


@given(arrays(np.uint8, (8, 8)), st.sampled_from([0, 255]))
@settings(max_examples=25, deadline=None)
def test_means_of_large_numbers_do_not_overflow(pixels: NDArray[np.uint8], nodata: int) -> None:
    np.testing.assert_array_equal(halve_average(pixels, nodata), brute(pixels, nodata, "average"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (511, 512), (513, 3), (700, 1300), (2050, 90)])
@pytest.mark.parametrize("compress", ["zstd", "deflate"])
def test_any_shape_is_a_valid_cog_with_mode_overviews(
    tmp_path: Path, shape: tuple[int, int], compress: Any
) -> None:
    path, pixels = tmp_path / "landcover.tif", make_classes(shape)
    info = write(path, pixels, compress=compress)
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), pixels)
        assert (dataset.crs, dataset.transform) == (CRS.from_epsg(32633), make_grid(shape).transform)
        assert dataset.tags(ns="IMAGE_STRUCTURE") == {
            "LAYOUT": "COG",
            "COMPRESSION": compress.upper(),
            "INTERLEAVE": "BAND",
        }
        overviews = len(dataset.overviews(1))
    for level in range(overviews):
        pixels = overview(pixels, 255, halve_mode)
        with rasterio.open(path, overview_level=level) as dataset:
            np.testing.assert_array_equal(dataset.read(1), pixels)
    assert max(pixels.shape) <= 512
    assert info.size == path.stat().st_size
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in tmp_path.iterdir() if "aux" not in p.name] == ["landcover.tif"], (
        "no spill file is left"
    )


def test_gdal_reads_colours_names_nodata_and_tags_back(tmp_path: Path) -> None:
    path = tmp_path / "landcover.tif"
    write(path, make_classes((600, 40)))
    with rasterio.open(path) as dataset:
        colormap = dataset.colormap(1)
        assert [colormap[i] for i in (1, 2, 5)] == [(0, 0, 255, 255), (0, 255, 0, 255), (255, 0, 0, 255)]
        assert colormap[255] == (0, 0, 0, 0)
        assert (dataset.nodata, dataset.descriptions) == (255, ("land cover",))
        assert dataset.tags()["MODEL"] == "test-1"
    # rasterio cannot show category names, but a VRT made by GDAL does.
    rasterio.shutil.copy(path, tmp_path / "copy.vrt", driver="VRT")
    names = [e.text or "" for e in ET.parse(tmp_path / "copy.vrt").iter("Category")]
    assert names == ["", "water & ice", "forêt", "", "", "built-up"]


def test_confidence_is_scaled_and_averaged_over_valid_pixels(tmp_path: Path) -> None:
    path = tmp_path / "confidence.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (530, 600), dtype=np.uint8)
    statistics = write(path, pixels, CONFIDENCE, resampling="average").statistics[0]
    valid = pixels[pixels > 0]
    with rasterio.open(path) as dataset:
        assert (dataset.scales, dataset.nodata) == ((1 / 255,), 0)
        tags = dataset.tags(1)
        assert float(tags["STATISTICS_MEAN"]) == pytest.approx(valid.mean())
        assert float(tags["STATISTICS_STDDEV"]) == pytest.approx(valid.std())
        assert (tags["STATISTICS_MINIMUM"], tags["STATISTICS_MAXIMUM"]) == ("1", "255")
    with rasterio.open(path, overview_level=0) as dataset:
        np.testing.assert_array_equal(dataset.read(1), overview(pixels, 0, halve_average))
    assert (statistics.valid, statistics.pixels) == (valid.size, pixels.size)
    assert not path.with_name("confidence.tif.aux.xml").exists()


def test_pixels_of_each_class_are_counted(tmp_path: Path) -> None:
    pixels = make_classes((700, 1300))
    statistics = write(tmp_path / "landcover.tif", pixels).statistics[0]
    assert statistics.counts == {i: int((pixels == i).sum()) for i in (1, 2, 5)}
    assert statistics.valid == sum(statistics.counts.values())
    empty = np.full((600, 600), 255, np.uint8)
    assert write(tmp_path / "empty.tif", empty).statistics[0].counts == {1: 0, 2: 0, 5: 0}


@pytest.mark.parametrize("shape", [(40, 30), (700, 1300)])
@pytest.mark.parametrize("compress", ["zstd", "deflate"])
def test_bands_are_planes_of_a_valid_cog(tmp_path: Path, shape: tuple[int, int], compress: Any) -> None:
    rng = np.random.default_rng(1)
    planes = rng.integers(0, 255, (3, *shape), dtype=np.uint8)
    planes[:, : shape[0] // 3] = 255
    bands = [BandInfo(255, name, 1 / 255) for name in ("water", "forêt", "built-up")]
    path = tmp_path / "probabilities.tif"
    sources = [ArraySource(plane) for plane in planes]
    info = write_cog(path, sources, make_grid(shape), bands, compress=compress, resampling="average")
    assert cog_validate(path, strict=True) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), planes)
        assert dataset.descriptions == ("water", "forêt", "built-up")
        assert dataset.scales == (1 / 255,) * 3 and dataset.nodatavals == (255,) * 3
        assert dataset.tags(ns="IMAGE_STRUCTURE")["INTERLEAVE"] == "BAND"
        assert dataset.colorinterp[0].name == "gray" and "alpha" not in {c.name for c in dataset.colorinterp}
        seen = [float(dataset.tags(k)["STATISTICS_MEAN"]) for k in (1, 2, 3)]
        overviews = len(dataset.overviews(3))
    assert seen == pytest.approx([plane[plane < 255].mean() for plane in planes])
    assert [one.valid for one in info.statistics] == [int((plane < 255).sum()) for plane in planes]
    for level in range(overviews):
        planes = np.stack([overview(plane, 255, halve_average) for plane in planes])
        with rasterio.open(path, overview_level=level) as dataset:
            np.testing.assert_array_equal(dataset.read(), planes)
    assert max(planes.shape) <= 512
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_a_store_gives_byte_for_byte_the_file_of_its_pixels(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cog")
    side = st.integers(1, 2600)
    chunks = st.sampled_from([1, 2, 3, 4])
    layout = Layout(
        data.draw(st.tuples(side, side)),
        (512 * data.draw(chunks), 512 * data.draw(chunks)),
        data.draw(st.sampled_from([(512, 512), (512, 512), (256, 512)])),
    )
    resampling = data.draw(st.sampled_from(["mode", "average", "nearest"]))
    compress = data.draw(st.sampled_from(["zstd", "zstd", "deflate"]))
    channels = data.draw(st.sampled_from([0, 0, 3]))
    band = data.draw(st.sampled_from([CLASSES, BandInfo(255, "quantity")]))
    ids = band.legend.ids if band.legend else ()
    planes = [make_classes(layout.shape, seed) for seed in range(channels or 1)]
    spec = ArraySpec("it", 255, channels, resampling, ids)
    options: dict[str, Any] = {"compress": compress, "resampling": resampling}
    grid, bands = make_grid(layout.shape), [band] * len(planes)
    with WorkingStore.create(PosixStore(folder), layout, [spec], {}) as store:
        for index in itertools.product(*map(range, layout.blocks)):
            parts = [plane[layout.block_window(index).slices] for plane in planes]
            store.write_block(index, {"it": np.stack(parts) if channels else parts[0]})
        blocks = store.finished().values()
        sources = [store.raster("it", channel, blocks) for channel in range(len(planes))]
        info = write_cog(folder / "a.tif", sources, grid, bands, threads=3, **options)
    assert info == write_cog(folder / "b.tif", list(map(ArraySource, planes)), grid, bands, **options)
    assert (folder / "a.tif").read_bytes() == (folder / "b.tif").read_bytes()
    assert info.sha256 == hashlib.sha256((folder / "a.tif").read_bytes()).hexdigest()
    assert (folder / "a.tif").stat().st_size == info.size


def test_what_the_store_holds_as_tiles_is_copied_not_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout((2500, 4500), (2048, 2048))
    pixels = make_classes(layout.shape)
    with WorkingStore.create(PosixStore(tmp_path), layout, [ArraySpec("classes", 255)], {}) as store:
        for index in itertools.product(*map(range, layout.blocks)):
            store.write_block(index, {"classes": pixels[layout.block_window(index).slices]})
        source = store.raster("classes", 0, store.finished().values())
        encoded: list[tuple[int, ...]] = []
        real = tiles._compress
        monkeypatch.setattr(tiles, "_compress", lambda p, how: encoded.append(p.shape) or real(p, how))
        write_cog(tmp_path / "a.tif", [source], make_grid(layout.shape), [CONFIDENCE])
    # Levels of 2500 x 4500, 1250 x 2250 and 625 x 1125 px lie in the store; 313 x 563 and 157 x 282 do not.
    assert len(encoded) == 1 + 2 + 1, "the blank tile, and what no block has alone"


def test_bands_lie_in_a_store_all_or_none(tmp_path: Path) -> None:
    pixels = make_classes((20, 30))
    with WorkingStore.create(
        PosixStore(tmp_path), Layout((20, 30), (512, 512)), [ArraySpec("a", 255)], {}
    ) as store:
        store.write_block((0, 0), {"a": pixels})
        sources = [store.raster("a", 0, store.finished().values()), ArraySource(pixels)]
        with pytest.raises(ValueError, match="some bands"):
            write_cog(tmp_path / "a.tif", sources, make_grid(pixels.shape), [CONFIDENCE] * 2)


@pytest.mark.parametrize("step", [-2.0, 2.0])
def test_north_up_and_south_up_grids_are_kept(tmp_path: Path, step: float) -> None:
    grid = make_grid((20, 30), step)
    write_cog(tmp_path / "a.tif", [ArraySource(make_classes((20, 30)))], grid, [CLASSES])
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.transform == grid.transform


def test_a_crs_that_geotiff_cannot_express_is_kept_beside_it(tmp_path: Path) -> None:
    # Spilhaus has no GeoTIFF projection code; GDAL alone would lose it.
    crs = CRS.from_proj4("+proj=adams_ws2 +lon_0=0 +datum=WGS84 +units=m")
    path = tmp_path / "a.tif"
    grid = GeoBox((20, 30), Affine(2, 0, 0, 0, -2, 0), crs.to_wkt())
    write_cog(path, [ArraySource(make_classes((20, 30)))], grid, [CONFIDENCE])
    with rasterio.open(path) as dataset:
        assert dataset.crs == crs


def test_every_tile_has_its_leader_and_trailer(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, make_classes((700, 1300)))
    content = path.read_bytes()
    (at,) = struct.unpack_from("<I", content, 4)
    previous = len(content)
    while at:
        (count,) = struct.unpack_from("<H", content, at)
        entries = [struct.unpack_from("<HHII", content, at + 2 + 12 * k) for k in range(count)]
        index = {code: (n, value) for code, _, n, value in entries}
        n, where = index[324]
        offsets = struct.unpack_from(f"<{n}I", content, where) if n > 1 else (where,)
        lengths = struct.unpack_from(f"<{n}I", content, index[325][1]) if n > 1 else (index[325][1],)
        for offset, length in zip(offsets, lengths, strict=True):
            assert struct.unpack_from("<I", content, offset - 4) == (length,)
            end = offset + length
            assert content[end : end + 4] == content[end - 4 : end]
        assert list(offsets) == sorted(offsets)
        assert offsets[-1] < previous, "smaller overviews come first"
        previous = offsets[0]
        (at,) = struct.unpack_from("<I", content, at + 2 + 12 * count)


def test_files_beyond_4_gib_are_bigtiff(tmp_path: Path) -> None:
    # Of a raster of 51,200 x 51,200 only the head is written, in front of a sparse file.
    levels = []
    size = 51_200
    while True:
        tiles = -(-size // 512)
        levels.append(Level((size, size), np.full(tiles * tiles, 600_000, np.uint32)))
        if size <= 512:
            break
        size = (size + 1) // 2
    tags, _ = gdal_tags(make_grid((51_200, 51_200)), [CLASSES])
    head = compose_head(levels, tags, 8)
    big = tmp_path / "big.tif"
    with big.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(level.size for level in levels))
    assert head[:4] == b"II\x2b\x00"
    with rasterio.open(big) as dataset:
        assert dataset.shape == (51_200, 51_200)
        assert dataset.overviews(1) == [2, 4, 8, 16, 32, 64, 128]
        end = int(dataset.get_tag_item("BLOCK_OFFSET_99_99", "TIFF", 1))
    assert end + 600_000 + 4 == big.stat().st_size


def test_statistics_add_up() -> None:
    a = Statistics(10, 5, 3, 7, 25, 130, {1: 2})
    assert a + Statistics() == a
    assert (a + Statistics(1, 1, 1, 1, 1, 1, {2: 1})).counts == {1: 2, 2: 1}
    assert np.isnan(Statistics().mean)


def test_a_source_of_another_shape_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        write_cog(tmp_path / "a.tif", [ArraySource(make_classes((4, 5)))], make_grid((5, 4)), [CLASSES])
