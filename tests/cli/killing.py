"""A run that is killed at a chosen write, for a process of its own to call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from citycover.plan import fit
from citycover_cli.app import main


def map_until(write: int | None, arguments: Sequence[str]) -> None:
    """Map in blocks of 512 x 512 until the process has begun or ended so many writes; None: to the end.

    Args:
        write: counts what makes the store durable: each fsync and each rename, before it and after.
        arguments: of `citycover map`.
    """
    fit.MAX_BLOCK_HEIGHT = fit.MAX_BLOCK_WIDTH = fit.CHUNK
    if write is not None:
        left = iter(range(write))
        os.fsync = _deadly(os.fsync, left)
        for name in ("replace", "rename"):
            setattr(Path, name, _deadly(getattr(Path, name), left))
    main(["map", *arguments, "--quiet"])
    sys.exit(0)


def _deadly(function: Callable[..., Any], left: Any) -> Callable[..., Any]:
    def count() -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def call(*arguments: Any) -> Any:
        count()
        result = function(*arguments)
        count()
        return result

    return call
