"""An iterator that works ahead in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class _End:
    """After the last item, or after one that could not be made."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """Items in their order; while one is looked at the next is made, and one more waits at most.

    >>> with Ahead(iter([1, 2, 3]), "counting") as numbers:
    ...     list(numbers)
    [1, 2, 3]
    """

    def __init__(
        self,
        items: Iterator[T],
        name: str,
        waiting: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Prepare.

        Args:
            items: asked for no longer once this is left.
            name: of the thread that asks.
            waiting: entered while an item is waited for.
        """
        self._items, self._waiting = items, waiting
        self._queue: queue.Queue[T | _End] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Ahead[T]:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let the item in hand be the last, and wait for it."""
        self._closed.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        """Raises what ended the making, once everything before it was looked at."""
        while not isinstance(item := self._next(), _End):
            yield item
        if item.error is not None:
            raise item.error

    def _next(self) -> T | _End:
        with self._waiting():
            return self._queue.get()

    def _run(self) -> None:
        end = _End()
        try:
            for item in self._items:
                if not self._hand(item):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            end = _End(error)
        self._hand(end)

    def _hand(self, item: T | _End) -> bool:
        """Wait for room; False where nobody will look."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
