"""Memory outside the heap."""

from __future__ import annotations

import errno
import mmap

import numpy as np
import pytest

from citycover.machine import memory
from citycover.machine.memory import pages, release_memory


@pytest.mark.parametrize("shape", [(3, 5), (2048, 1024), (700, 900, 4), (0, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_pages_are_zeros_that_may_be_written(shape: tuple[int, ...], dtype: type) -> None:
    array = pages(shape, dtype)
    assert array.shape == shape and array.dtype == dtype and not array.any()
    array[...] = 1
    assert array.all()


def test_pages_that_are_not_given_are_memory_that_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    with pytest.raises(MemoryError, match="Cannot allocate"):
        pages((1 << 20,), np.uint8)


def test_only_large_arrays_have_pages_of_their_own() -> None:
    def owner(array: object) -> object:
        while (base := getattr(array, "base", None)) is not None:
            array = base
        return array.obj if isinstance(array, memoryview) else array

    assert isinstance(owner(pages((1 << 20,), np.uint8)), mmap.mmap)
    assert not isinstance(owner(pages((1 << 10,), np.uint8)), mmap.mmap)
    release_memory()


@pytest.mark.parametrize(("cores", "heaps"), [(1, 1), (2, 1), (16, 8)])
def test_threads_get_heaps_of_their_own_where_there_are_many(
    monkeypatch: pytest.MonkeyPatch, cores: int, heaps: int
) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, option: int, value: int) -> int:
            asked.append((option, value))
            return 1

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: Library())
    monkeypatch.setattr(memory, "threads_here", lambda: cores)
    assert memory.tune_allocator()
    memory.share_heaps()
    arenas = [value for option, value in asked if option == -8]
    assert arenas == [1, heaps], "one, until a GPU computes"
