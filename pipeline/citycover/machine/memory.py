"""Where big buffers live: short-lived tensors in a heap that keeps them, long-lived arrays outside of it.

glibc gives big buffers back to the kernel at once and faults them in anew at the next call: keeping them
takes a U-Net sweep from 21 to 13 s on 2 cores. A heap that keeps everything must hold nothing that outlives
a batch, or the gaps between such things fill with memory that fits nowhere: so strips and blocks get pages of
their own.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from citycover.machine.cores import threads_here

_M_TRIM_THRESHOLD = -1

_M_MMAP_THRESHOLD = -3

_M_ARENA_MAX = -8

_OWN_PAGES = 1 << 20
"""Bytes from which on an array gets pages of its own."""


def tune_allocator() -> bool:
    """Keep freed memory for reuse, from before torch is imported on; False where the C library cannot."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    settings = ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_ARENA_MAX, 1))
    results = [_mallopt(option, value) for option, value in settings]  # each, whatever the others say
    return all(results)


def share_heaps() -> None:
    """A heap for two cores from now on: threads that compress need not take turns at one.

    Where a GPU computes, because no tensor here is large then. A thread's own heap keeps 64 MiB at most, and
    what is larger would come from the system anew each time.
    """
    _mallopt(_M_ARENA_MAX, max(1, threads_here() // 2))


def release_memory() -> None:
    """Give what the heap keeps back to the system: after a stage whose tensors nobody will need again."""
    _ask_heap("malloc_trim", 0)


def _mallopt(option: int, value: int) -> bool:
    return _ask_heap("mallopt", option, value) == 1


def _ask_heap(call: str, *about: int) -> int:
    """What glibc's heap answers; 0 where the C library has no such call: musl, which keeps nothing."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return int(getattr(ctypes.CDLL(None), call)(*about))
    except (OSError, AttributeError):
        return 0


def pages(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros outside the heap, for what outlives a batch: memory comes when touched, and goes with the array.

    Raises:
        MemoryError: the system does not give so much.

    >>> int(pages((2048, 1024), np.uint8).max())
    0
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _OWN_PAGES:
        return np.zeros(shape, dtype)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:  # as the heap says it: no file is in the way
        raise MemoryError(str(error)) from None
    return np.frombuffer(memory, dtype).reshape(shape)


def peak_rss() -> int:
    """Bytes of memory that this process held at most so far."""
    # Linux hands ru_maxrss on to children: a small process would answer for the large one that started it.
    return process_memory("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory() -> int:
    """Bytes that the machine has to give; all that it has where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limit() -> int | None:
    """Bytes that the container may hold; None: no limit, or none that can be read."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def process_memory(name: str) -> int:
    """Bytes that Linux counts under a name; 0 where it does not."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)
