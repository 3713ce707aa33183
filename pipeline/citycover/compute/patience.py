"""How long a run waits for what may pass: a drive that was lost, a bucket that is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from citycover.errors import MachineError, StoppedError
from citycover.files.failures import is_passing

logger = logging.getLogger(__name__)

TRIES = 3
"""How often a block is tried."""

PAUSE = 10.0
"""Seconds between two tries: a store is asked for some seconds, and may be away for longer."""


def outwait(do: Callable[[], None], what: str, stop: threading.Event) -> None:
    """Do something, and again after a while where what kept it may pass.

    Args:
        do: may be called several times.
        what: is done, for the log.
        stop: ends the waiting.

    Raises:
        MachineError: it does not pass, or was tried often enough.
        StoppedError: `stop` was set while it waited.
    """
    for _ in range(TRIES - 1):
        try:
            return do()
        except MachineError as error:
            if not is_passing(error):
                raise
            logger.warning("%s is tried again in %.0f s: %s", what, PAUSE, error)
        if stop.wait(PAUSE):
            raise StoppedError
    return do()
