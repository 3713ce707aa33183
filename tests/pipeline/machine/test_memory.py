"""Memory outside the heap."""

from __future__ import annotations

import mmap

import numpy as np
import pytest

from citycover.machine.memory import pages, release_memory


@pytest.mark.parametrize("shape", [(3, 5), (2048, 1024), (700, 900, 4), (0, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_pages_are_zeros_that_may_be_written(shape: tuple[int, ...], dtype: type) -> None:
    array = pages(shape, dtype)
    assert array.shape == shape and array.dtype == dtype and not array.any()
    array[...] = 1
    assert array.all()


def test_only_large_arrays_have_pages_of_their_own() -> None:
    def owner(array: object) -> object:
        while (base := getattr(array, "base", None)) is not None:
            array = base
        return array.obj if isinstance(array, memoryview) else array

    assert isinstance(owner(pages((1 << 20,), np.uint8)), mmap.mmap)
    assert not isinstance(owner(pages((1 << 10,), np.uint8)), mmap.mmap)
    release_memory()
