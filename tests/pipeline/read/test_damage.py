"""What could not be read is a hole: the same one for every codec, whatever the threads, and never a pixel."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasters import mosaic, read_rows, write

from citycover.errors import MachineError
from citycover.geometry.window import Window
from citycover.machine.descriptors import need_descriptors

SIDE, BLOCK = 256, 64
CODECS = ("none", "deflate", "lzw", "zstd", "packbits", "jpeg", "webp", "lerc", "lzma")
BUILT = {c for c in CODECS if c in {"none", "deflate", "lzw", "packbits"}}


def make_image() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    smooth = np.stack([np.sin(x / 20) * 60 + np.cos(y / 30) * 50 + 128, (x + y) / 3, y / 2])
    return np.clip(smooth + np.random.default_rng(0).normal(0, 3, smooth.shape), 1, 255).astype(np.uint8)


def coded(folder: Path, codec: str, tiled: bool) -> Path:
    more: dict[str, object] = {} if codec == "none" else {"compress": codec}
    more |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK} if tiled else {"blockysize": BLOCK}
    more |= {"photometric": "ycbcr"} if codec == "jpeg" else {}
    more |= {"webp_lossless": True} if codec == "webp" else {}
    try:
        return write(folder / "whole.tif", make_image(), interleave="pixel", **more)
    except rasterio.errors.RasterioError:
        assert codec not in BUILT
        pytest.skip(f"this GDAL is built without {codec}")


def damaged(path: Path, how: str, tiled: bool) -> Path:
    """A copy with one block damaged, the second or third one."""
    x, y = (1, 1) if tiled else (0, 2)
    with rasterio.open(path) as dataset:
        at, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{x}_{y}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    data = bytearray(path.read_bytes())
    if how == "flipped":
        for i in range(at + size // 3, at + size // 3 + 20):
            data[i] ^= 0x5A
    elif how == "runs":
        data[at] = 0x81
    elif how == "zeroed":
        data[at : at + size] = bytes(size)
    elif how == "half":
        data[at + size // 2 : at + size] = bytes(size - size // 2)
    else:
        del data[at + size // 2 :]
    copy = path.with_name("damaged.tif")
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize("how", ["flipped", "zeroed", "half", "cut"])
@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_the_same_hole_for_any_number_of_threads(
    tmp_path: Path, codec: str, tiled: bool, how: str
) -> None:
    whole = coded(tmp_path, codec, tiled)
    right, _, _ = read_rows(whole, 1)
    path = damaged(whole, how, tiled)
    block = np.zeros((SIDE, SIDE), np.bool_)
    block[(slice(64, 128), slice(64, 128)) if tiled else slice(128, 192)] = True
    # zlib compares its checksum where the stream ends: GDAL stops before, and the last bytes are anything.
    told = ~block if (codec, how) == ("deflate", "half") else np.ones_like(block)
    first = read_rows(path, 1)
    for threads, rows in ((1, 96), (2, SIDE), (4, SIDE), (4, 96)):
        again = read_rows(path, threads, rows)
        np.testing.assert_array_equal(again[0][told], first[0][told])
        np.testing.assert_array_equal(again[1], first[1])
    _, valid, holes = first
    if how == "cut":
        assert holes and not valid[block].any()
        np.testing.assert_array_equal(first[0][valid], right[valid])
    else:
        np.testing.assert_array_equal(first[0][~block], right[~block])  # nothing beside it is touched
        assert valid[~block].all()
    if how == "zeroed" and codec != "none":  # a codec without a checksum believes some of the rest
        assert holes and not valid[block].any()


@pytest.mark.parametrize(("codec", "how"), [("jpeg", "half"), ("jpeg", "flipped"), ("packbits", "runs")])
def test_decoders_that_only_warn_are_believed(tmp_path: Path, codec: str, how: str) -> None:
    _, valid, holes = read_rows(damaged(coded(tmp_path, codec, True), how, True), 2)
    assert [hole.window for hole in holes] == [Window(64, 64, 64, 64)]
    assert valid.sum() == SIDE * SIDE - 64 * 64


def test_too_few_descriptors_are_an_error_of_the_machine() -> None:
    with pytest.raises(MachineError, match="ulimit -n"):
        need_descriptors(1 << 20)


MANY = """
import resource, sys
sys.path[:0] = {paths!r}
import numpy as np
from citycover.errors import MachineError
from rasters import read_rows
held = resource.getrlimit(resource.RLIMIT_NOFILE)
try:
    from citycover.scene.assemble import describe_scene
    describe_scene([{vrt!r}], None)
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
    values, valid, holes = read_rows({vrt!r}, 2)
except MachineError as error:
    print("machine", error)
else:
    print("right" if valid.all() and not holes and (values > 0).all() else "wrong")
"""


@pytest.mark.parametrize("limit", [24, 32, 48, 64, 100, 110, 200])
def test_a_mosaic_under_few_descriptors_is_right_or_refused(tmp_path: Path, limit: int) -> None:
    pytest.importorskip("resource")
    vrt = mosaic(tmp_path, 12)
    script = MANY.format(paths=[p for p in sys.path if p], vrt=str(vrt), limit=limit)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(("right", "machine")), done.stdout + done.stderr
    assert limit < 200 or done.stdout.startswith("right"), done.stdout


TWICE = """
import resource, sys
sys.path[:0] = {paths!r}
import numpy as np
from citycover.geometry.window import Window
from citycover.read.file import BandFile
from citycover.scene.assemble import describe_scene
bands = describe_scene([{vrt!r}], None).groups[0].bands
window = Window(0, 0, 384, 384)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
files = []
for _ in range(4):
    files.append(BandFile({vrt!r}, bands, [0]))
    values, valid = np.zeros((384, 384, 1), np.uint8), np.ones((384, 384), np.bool_)
    assert not files[-1].read(window, values, valid)
    assert valid.all() and (values > 0).all()
print("right")
"""


def test_handles_of_one_mosaic_share_the_files_that_it_has_open(tmp_path: Path) -> None:
    """A pool that one thread has filled is not needed anew by the next one."""
    pytest.importorskip("resource")
    script = TWICE.format(paths=[p for p in sys.path if p], vrt=str(mosaic(tmp_path, 12)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "right", done.stderr
