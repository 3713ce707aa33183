"""Cores share the work on a block: counted in rounds of a clock, for machines that are not here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lockstep import Lockstep

from citycover.files.store import PosixStore
from citycover.store import shard
from citycover.store.shard import ArraySpec, Layout
from citycover.store.spread import spread
from citycover.store.store import WorkingStore


@given(st.integers(0, 2000))
def test_parts_come_in_their_order_each_once(count: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(spread(pool, lambda part: part + 1, range(count))) == list(range(1, count + 1))


@pytest.mark.parametrize("threads", [1, 4, 16])
@pytest.mark.parametrize("cells", [(8, 8), (4, 256)])
def test_cells_of_a_block_are_compressed_by_all_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, cells: tuple[int, int]
) -> None:
    clock = Lockstep(threads)
    monkeypatch.setattr(shard, "_encode", clock.slow(shard._encode))
    side = (cells[0] * 8, cells[1] * 8)
    layout, spec = Layout((side[0] * 2, side[1]), side, (8, 8)), ArraySpec("classes", 0)
    values = np.random.default_rng(0).integers(1, 5, side, np.uint8)
    with WorkingStore.create(PosixStore(tmp_path), layout, [spec], {}, threads=threads) as store:
        monkeypatch.setattr(store, "levels", store.levels[:1])  # halves are too few for whole rounds
        store.write_block((0, 0), {"classes": values})
        assert (store.array("classes").read(layout.block_window((0, 0))) == values).all()
    assert clock.rounds == cells[0] * cells[1] / threads
    assert clock.most <= threads
