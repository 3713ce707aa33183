"""Work on small parts of a block, shared out among threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LONGEST = 8
"""Parts in a task at most: a task costs the thread that waits for it as much as writing 20 KiB."""

_TASKS = 64
"""Tasks at least, where there are as many parts, so that many threads have enough of them."""


def spread(pool: Executor, function: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
    """What a function makes of each part, in their order; neighbours are made by one thread.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> with ThreadPoolExecutor(2) as pool:
    ...     sum(spread(pool, abs, range(-1000, 0)))
    500500
    """
    for _, made in spread_runs(pool, function, parts):
        yield from made


def spread_runs(
    pool: Executor, function: Callable[[T], R], parts: Sequence[T]
) -> Iterator[tuple[Sequence[T], list[R]]]:
    """Parts that one thread made, and what became of them, in their order."""
    size = max(1, min(_LONGEST, len(parts) // _TASKS))
    runs = [parts[first : first + size] for first in range(0, len(parts), size)]
    yield from zip(runs, pool.map(lambda run: [function(part) for part in run], runs), strict=True)
