"""The working store: what is read is what was written, and only the ledger proves it."""

from __future__ import annotations

import errno
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from citycover.errors import HeldError, MachineError, ProductError
from citycover.files.store import PosixStore, Store, put_text
from citycover.geometry.window import Window
from citycover.read.reader import Hole
from citycover.store.shard import ArraySpec, Layout, shard_key
from citycover.store.store import WorkingStore, whole_blocks

ARRAYS = (ArraySpec("classes", 255), ArraySpec("confidence", 0), ArraySpec("probabilities", 0, channels=3))
LAYOUT = Layout((100, 150), (64, 128), (16, 32))
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


def put(place: Store, key: str, content: bytes) -> None:
    place.put(key, lambda file: file.write(content))


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
    with WorkingStore.create(PosixStore(folder), layout, ARRAYS, IDENTITY) as store:
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
            store.array("probabilities", 2).read(window), pixels["probabilities"][2][window.slices]
        )


def test_the_ledger_keeps_what_is_known_of_a_block(place: Store) -> None:
    hole = Hole(Window(3, 4, 5, 6), "scene.tif", "cannot decode")
    with WorkingStore.create(place, LAYOUT, ARRAYS[:1], IDENTITY, {"note": 1}) as store:
        rows = np.zeros((36, 128), dtype=np.uint8)
        store.write_block((1, 0), {"classes": rows}, {"read": 0.5}, [hole], {"windows": 9})
    with WorkingStore.open(place) as store:
        (record,) = store.finished().values()
    assert (record.index, record.pixels) == ((1, 0), 36 * 128)
    assert (record.seconds, record.holes, record.counts) == ({"read": 0.5}, (hole,), {"windows": 9})


def test_only_a_whole_ledger_entry_proves_a_block(place: Store) -> None:
    with WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY) as store:
        write_all(store, make_pixels(LAYOUT))
        assert set(store.finished()) == {(0, 0), (0, 1), (1, 0), (1, 1)}
        place.delete("ledger/0_0.json")
        text = place.get("ledger/0_1.json")
        put(place, "ledger/0_1.json", text[: len(text) // 2])
        put(place, "ledger/1_0.json", b"\xff\x00garbage")
        put(place, "ledger/.1_0.json.77.tmp", text)
        assert set(store.finished()) == {(1, 1)}


def no_pixels(**changes: tuple[int, ...]) -> dict[str, NDArray[np.uint8]]:
    """Zeros in the shapes that block (0, 0) takes, but for the arrays named."""
    shapes = {spec.name: spec.shape((64, 128)) for spec in ARRAYS} | changes
    return {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "arrays",
    [
        no_pixels(confidence=(64, 127)),
        no_pixels(probabilities=(2, 64, 128)),
        no_pixels(another=(64, 128)),
        no_pixels() | {"classes": np.zeros((64, 128), np.int16)},
        {"classes": np.zeros((64, 128), np.uint8)},
    ],
    ids=["width", "channels", "unknown", "type", "missing"],
)
def test_a_block_that_does_not_fit_leaves_nothing(place: Store, arrays: dict[str, NDArray]) -> None:
    with WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY) as store:
        before = place.list("")
        with pytest.raises(ValueError, match="takes"):
            store.write_block((0, 0), arrays)
        assert place.list("") == before


def test_a_disk_that_fails_leaves_no_entry_and_no_temporary_file(
    place: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY) as store:
        with monkeypatch.context() as patch:
            patch.setattr("citycover.store.store.write_shard", full)
            with pytest.raises(OSError, match="full"):
                store.write_block((0, 0), no_pixels())
        assert not store.finished()
        assert not isinstance(place, PosixStore) or not list(place.folder.rglob("*.tmp"))
        store.write_block((0, 0), no_pixels())
        assert set(store.finished()) == {(0, 0)}


def test_of_two_runs_that_begin_one_is_refused(place: Store) -> None:
    WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY).close()
    before = place.get("identity.json")
    with pytest.raises(HeldError, match=r"another run has begun in .*; wait for it"):
        WorkingStore.create(place, LAYOUT, ARRAYS, {"plan": "another"})
    assert place.get("identity.json") == before


def test_an_entry_of_a_run_that_was_taken_over_is_not_read(place: Store) -> None:
    """It holds a store of the same layout, and lives on."""
    stale = WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY, ledger="ledger-a")
    place.delete("identity.json")
    with stale, WorkingStore.create(place, LAYOUT, ARRAYS, {"plan": "new"}, ledger="ledger-b") as store:
        stale.write_block((0, 0), no_pixels())
        assert set(stale.finished()) == {(0, 0)} and not store.finished()
        with (
            WorkingStore.open(place) as opened,
            WorkingStore.resume(place, LAYOUT, ARRAYS, {"plan": "new"}) as resumed,
        ):
            assert not opened.finished() and not resumed.finished()


def test_resume_needs_the_same_identity_and_names_what_differs(place: Store) -> None:
    WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY).close()
    WorkingStore.resume(place, LAYOUT, ARRAYS, IDENTITY).close()
    with pytest.raises(ProductError, match=r"from this one in: card, window; .*--restart"):
        WorkingStore.resume(place, LAYOUT, ARRAYS, {**IDENTITY, "card": "other", "window": "new"})
    with pytest.raises(ProductError, match="from this one in: layout, arrays"):
        WorkingStore.resume(place, Layout((99, 150), (64, 128), (16, 32)), ARRAYS[:2], IDENTITY)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 0}'])
def test_what_is_no_store_of_this_version_is_not_opened(place: Store, content: str | None) -> None:
    if content is not None:
        put_text(place, "identity.json", content)
    with pytest.raises(ProductError, match="--restart"):
        WorkingStore.open(place)


def test_a_damaged_shard_is_noticed(place: Store) -> None:
    with WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY) as store:
        write_all(store, make_pixels(LAYOUT))
        shard = f"{store.array_key('classes')}/c/0/0"
        data = bytearray(place.get(shard))
        data[-20] ^= 1
        for content in (bytes(data), b"", bytes(data[:-3]), bytes(data[:8])):
            put(place, shard, content)
            with pytest.raises(MachineError, match="missing or damaged"):
                store.array("classes").read(Window(0, 0, 1, 1))
        place.delete(shard)
        with pytest.raises(MachineError, match="missing or damaged"):
            store.array("classes").read(Window(0, 0, 1, 1))


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bit_that_flips_makes_a_block_unfinished(whole_store: Store, data: st.DataObject) -> None:
    with WorkingStore.open(whole_store) as store:
        name = data.draw(st.sampled_from(sorted(store.arrays)))
        level = data.draw(st.integers(0, len(store.levels) - 1))
        index = data.draw(st.sampled_from(sorted(store.finished())))
        entry = f"ledger/{index[0]}_{index[1]}.json"
        shard = shard_key(store.array_key(name, level), store.arrays[name], index)
        said, content = whole_store.get(entry), whole_store.get(shard)
        assert store.drop_damaged()[1] == ()
        place = data.draw(st.integers(0, 8 * len(content) - 1))
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        put(whole_store, shard, bytes(flipped))
        assert store.drop_damaged()[1] == (index,)
        assert set(store.finished()) == {(0, 0), (0, 1), (1, 0), (1, 1)} - {index}
        put(whole_store, shard, content)
        put(whole_store, entry, said)
        whole_blocks(store)


@pytest.fixture
def whole_store(place: Store) -> Store:
    with WorkingStore.create(place, LAYOUT, ARRAYS, IDENTITY) as store:
        write_all(store, make_pixels(LAYOUT))
    return place


@pytest.mark.parametrize("loss", ["shard", "overview", "copy", "store", "entry"])
def test_what_is_lost_or_another_block_is_not_taken_for_finished(whole_store: Store, loss: str) -> None:
    with WorkingStore.open(whole_store) as store:
        shards = f"{store.array_key('classes')}/c"
        if loss == "shard":
            whole_store.delete(f"{shards}/0/0")
        elif loss == "overview":
            whole_store.delete(f"{store.array_key('probabilities', 2)}/c/0/0/0")
        elif loss == "copy":
            put(whole_store, f"{shards}/0/0", whole_store.get(f"{shards}/0/1"))
        elif loss == "store":
            whole_store.delete(*whole_store.list("store.zarr/"))
        else:
            whole_store.delete("ledger/0_0.json")
        with pytest.raises(MachineError, match=r"of 4 blocks .* computed anew"):
            whole_blocks(store)
        assert (0, 0) not in store.finished()


WRONG = [
    {"index": "ab"}, {"index": [9, 9]}, {"index": [-1, 0]}, {"pixels": 7}, {"pixels": None}, {"seconds": []},
    {"seconds": {"read": "x"}}, {"holes": [1]}, {"holes": [{"row": 1}]}, {"counts": {"run": "many"}},
    {"shards": {}}, {"shards": {"classes": 3}}, {"counts": 3}, {"statistics": {}},
    {"statistics": {"classes": 3}},
    {"statistics": {"classes": [{"pixels": 1}], "confidence": [], "probabilities": []}},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_an_entry_of_wrong_types_proves_nothing(whole_store: Store, change: dict[str, object]) -> None:
    entry = "ledger/0_0.json"
    put_text(whole_store, entry, json.dumps(json.loads(whole_store.get(entry)) | change))
    with WorkingStore.open(whole_store) as store:
        assert set(store.finished()) == {(0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize("key", ["layout", "arrays", "identity", "extra"])
@pytest.mark.parametrize("value", [None, 3, [1], {"shape": 1}])
def test_a_damaged_description_is_a_message(whole_store: Store, key: str, value: object) -> None:
    data = json.loads(whole_store.get("identity.json"))
    if value is None:
        del data[key]
    else:
        data[key] = value
    put_text(whole_store, "identity.json", json.dumps(data))
    if key in {"identity", "extra"} and isinstance(value, dict):
        with pytest.raises(ProductError, match="differs"):
            WorkingStore.read_extra(whole_store, IDENTITY | {"shape": "other"})
        return
    for action in (
        lambda: WorkingStore.open(whole_store),
        lambda: WorkingStore.resume(whole_store, LAYOUT, ARRAYS, IDENTITY),
        lambda: WorkingStore.read_extra(whole_store, IDENTITY),
    ):
        with pytest.raises(ProductError, match="--restart"):
            action()


def test_blocks_in_the_ledger_survive_a_kill_at_any_moment(tmp_path: Path) -> None:
    layout = Layout((512, 512), (16, 512), (16, 16))
    WorkingStore.create(PosixStore(tmp_path), layout, ARRAYS[:1], IDENTITY).close()
    script = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from citycover.files.store import PosixStore\n"
        "from citycover.store.store import WorkingStore\n"
        "store = WorkingStore.open(PosixStore(Path(sys.argv[1])))\n"
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
        with WorkingStore.open(PosixStore(tmp_path)) as store:
            done = store.finished()
            for row, col in done:
                window = layout.block_window((row, col))
                assert (store.array("classes").read(window) == row).all()
            assert store.drop_damaged()[1] == ()
        assert len(done) > min(kill_after, 31)
    assert len(done) == 32
