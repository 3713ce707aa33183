"""What a run warns of, for its record."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def heard_warnings() -> Iterator[Sequence[str]]:
    """What citycover logs as a warning meanwhile, in order; grows while the context lasts."""
    heard, parent = _Heard(), logging.getLogger("citycover")
    parent.addHandler(heard)
    try:
        yield heard.messages
    finally:
        parent.removeHandler(heard)
