"""The working store: what is read is what was written, and only the ledger proves it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover.errors import ProductError
from citycover.geometry.window import Window
from citycover.read.reader import Hole
from citycover.store.shard import ArraySpec, Layout
from citycover.store.store import WorkingStore

ARRAYS = (ArraySpec("classes", 255), ArraySpec("confidence", 0), ArraySpec("probabilities", 0, channels=3))
LAYOUT = Layout((100, 150), (64, 96), (16, 32))
SHAPES: dict[str, tuple[int, ...]] = {"classes": (), "confidence": (), "probabilities": (3,)}
IDENTITY = {"plan": "p", "card": "c", "scene": "s"}


def make_pixels(layout: Layout, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Smooth-looking pixels with empty stretches, so that cells of every kind occur."""
    rng = np.random.default_rng(seed)
    pixels = {}
    for spec in ARRAYS:
        lead = (spec.channels,) if spec.channels else ()
        values = rng.integers(0, 6, (*lead, *layout.shape), dtype=np.uint8)
        values[..., : layout.shape[0] // 2, layout.shape[1] // 3 :] = spec.fill
        pixels[spec.name] = values
    return pixels


def write_all(store: WorkingStore, pixels: dict[str, NDArray[np.uint8]]) -> None:
    for index in itertools.product(*map(range, store.layout.blocks)):
        part = store.layout.block_window(index).slices
        store.write_block(index, {name: values[(..., *part)] for name, values in pixels.items()})


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_zarr_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("store")
    cell = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    block = cell[0] * data.draw(st.integers(1, 3)), cell[1] * data.draw(st.integers(1, 3))
    layout = Layout(data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90))), block, cell)
    pixels = make_pixels(layout)
    with WorkingStore.create(folder, layout, ARRAYS, IDENTITY) as store:
        write_all(store, pixels)
        group = zarr.open_group(folder / "store.zarr", mode="r")
        for name, values in pixels.items():
            np.testing.assert_array_equal(group[name][:], values)
        row, col = (data.draw(st.integers(0, n - 1)) for n in layout.shape)
        height, width = (
            data.draw(st.integers(1, layout.shape[0] - row)),
            data.draw(st.integers(1, layout.shape[1] - col)),
        )
        window = Window(row, col, height, width)
        np.testing.assert_array_equal(store.array("classes").read(window), pixels["classes"][window.slices])
        np.testing.assert_array_equal(
            store.array("probabilities").read(window, channel=2), pixels["probabilities"][2][window.slices]
        )


def test_rows_may_arrive_in_any_portions(tmp_path: Path) -> None:
    pixels = make_pixels(LAYOUT)
    checksums = []
    for number, portions in enumerate(([64], [1, 15, 30, 18], [7] * 9 + [1])):
        folder = tmp_path / str(number)
        folder.mkdir()
        with WorkingStore.create(folder, LAYOUT, ARRAYS, IDENTITY) as store:
            with store.block((0, 1)) as block:
                for row, rows in zip(itertools.accumulate(portions, initial=0), portions, strict=False):
                    buffer = {
                        name: values[..., row : row + rows, 96:].copy() for name, values in pixels.items()
                    }
                    block.write_rows(buffer)
                    for values in buffer.values():
                        values[:] = 77  # the caller's buffer is its own again
            np.testing.assert_array_equal(
                store.array("classes").read(Window(0, 96, 64, 54)), pixels["classes"][:64, 96:]
            )
            checksums.append(store.finished()[0, 1].crc32)
    assert checksums[0] == checksums[1] == checksums[2]


def test_the_ledger_keeps_what_is_known_of_a_block(tmp_path: Path) -> None:
    hole = Hole(Window(3, 4, 5, 6), "scene.tif", "cannot decode")
    with WorkingStore.create(tmp_path, LAYOUT, ARRAYS[:1], IDENTITY, {"note": 1}) as store:
        rows = np.zeros((36, 96), dtype=np.uint8)
        store.write_block((1, 0), {"classes": rows}, {"read": 0.5}, [hole], {"windows": 9})
    with WorkingStore.open(tmp_path) as store:
        (record,) = store.finished().values()
    assert (record.index, record.pixels) == ((1, 0), 36 * 96)
    assert (record.seconds, record.holes, record.counts) == ({"read": 0.5}, (hole,), {"windows": 9})


def test_only_a_whole_ledger_entry_proves_a_block(tmp_path: Path) -> None:
    with WorkingStore.create(tmp_path, LAYOUT, ARRAYS, IDENTITY) as store:
        write_all(store, make_pixels(LAYOUT))
        ledger = tmp_path / "ledger"
        assert set(store.finished()) == {(0, 0), (0, 1), (1, 0), (1, 1)}
        (ledger / "0_0.json").unlink()
        text = (ledger / "0_1.json").read_text()
        (ledger / "0_1.json").write_text(text[: len(text) // 2])
        (ledger / "1_0.json").write_bytes(b"\xff\x00garbage")
        (ledger / ".1_0.json.77.tmp").write_text(text)
        assert set(store.finished()) == {(1, 1)}


def test_an_error_in_the_middle_of_a_block_leaves_nothing_of_it(tmp_path: Path) -> None:
    with WorkingStore.create(tmp_path, LAYOUT, ARRAYS, IDENTITY) as store:
        before = sorted(tmp_path.rglob("*"))
        rows = {name: np.zeros((*lead, 40, 96), np.uint8) for name, lead in SHAPES.items()}
        with pytest.raises(ValueError, match="takes uint8"), store.block((0, 0)) as block:
            block.write_rows({"classes": rows["classes"], "confidence": np.zeros((1, 5), np.uint8)})
        with pytest.raises(ValueError, match="40 were written"), store.block((0, 0)) as block:
            block.write_rows(rows)
        with pytest.raises(ValueError, match="no rows for the arrays"), store.block((0, 0)) as block:
            block.write_rows({"classes": rows["classes"]})
        assert not store.finished()
        left = [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.is_file()]
        assert left == []


def test_resume_needs_the_same_identity_and_names_what_differs(tmp_path: Path) -> None:
    WorkingStore.create(tmp_path, LAYOUT, ARRAYS, IDENTITY).close()
    WorkingStore.resume(tmp_path, LAYOUT, ARRAYS, IDENTITY).close()
    with pytest.raises(ProductError, match=r"from this one in: card, window; .*--restart"):
        WorkingStore.resume(tmp_path, LAYOUT, ARRAYS, {**IDENTITY, "card": "other", "window": "new"})
    with pytest.raises(ProductError, match="from this one in: layout, arrays"):
        WorkingStore.resume(tmp_path, Layout((99, 150), (64, 96), (16, 32)), ARRAYS[:2], IDENTITY)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 0}'])
def test_what_is_no_store_of_this_version_is_not_opened(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "identity.json").write_text(content)
    with pytest.raises(ProductError, match="--restart"):
        WorkingStore.open(tmp_path)


def test_a_damaged_shard_is_noticed(tmp_path: Path) -> None:
    with WorkingStore.create(tmp_path, LAYOUT, ARRAYS, IDENTITY) as store:
        write_all(store, make_pixels(LAYOUT))
        shard = store.array_path("classes") / "c" / "0" / "0"
        data = bytearray(shard.read_bytes())
        data[-20] ^= 1
        shard.write_bytes(data)
        with pytest.raises(OSError, match="checksum"):
            store.array("classes").read(Window(0, 0, 1, 1))


def test_blocks_in_the_ledger_survive_a_kill_at_any_moment(tmp_path: Path) -> None:
    layout = Layout((512, 512), (16, 512), (16, 16))
    WorkingStore.create(tmp_path, layout, ARRAYS[:1], IDENTITY).close()
    script = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from citycover.store.store import WorkingStore\n"
        "store = WorkingStore.open(Path(sys.argv[1]))\n"
        "for row in sorted({(r, 0) for r in range(32)} - set(store.finished())):\n"
        "    store.write_block(row, {'classes': np.full((16, 512), row[0], np.uint8)})\n"
        "    print(row[0], flush=True)\n"
    )
    for kill_after in (3, 11, 32):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= kill_after:
                    process.kill()
        with WorkingStore.open(tmp_path) as store:
            done = store.finished()
            for row, col in done:
                window = layout.block_window((row, col))
                assert (store.array("classes").read(window) == row).all()
                assert done[row, col].crc32["classes"] == zlib.crc32(bytes([row]) * window.pixels)
        assert len(done) > min(kill_after, 31)
    assert len(done) == 32
