"""A run that is killed at a chosen write, for a process of its own to call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from bucket import point_at

from citycover.files import lease, store
from citycover.files.remote import RemotePath
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


def map_in_a_bucket_until(
    change: int | None,
    arguments: Sequence[str],
    url: str,
    cache: Path,
    how: signal.Signals = signal.SIGKILL,
) -> None:
    """The same for a run that keeps its blocks in a bucket, on a machine of its own.

    Args:
        change: counts what changes the bucket, the signs of life of the lease among it, before and after.
        arguments: of `citycover map`.
        url: of the server.
        cache: of the machine.
        how: it ends, or sleeps (SIGSTOP).
    """
    fit.MAX_BLOCK_HEIGHT = fit.MAX_BLOCK_WIDTH = fit.CHUNK
    point_at(url, pytest.MonkeyPatch())
    os.environ["CITYCOVER_CACHE"] = str(cache)
    lease.BEAT, lease.PATIENCE = 0.2, 0.6
    if change is not None:
        left = iter(range(change))
        for name in ("write", "swap", "remove"):
            setattr(RemotePath, name, _deadly(getattr(RemotePath, name), left, how))
        store.remove_all = _deadly(store.remove_all, left, how)
    main(["map", *arguments, "--quiet"])
    sys.exit(0)


_ended: list[signal.Signals] = []


def _deadly(
    function: Callable[..., Any], left: Any, how: signal.Signals = signal.SIGKILL
) -> Callable[..., Any]:
    def count() -> None:
        if next(left, None) is None and not _ended:
            _ended.append(how)  # one that wakes does not fall asleep again
            os.kill(os.getpid(), how)

    def call(*arguments: Any) -> Any:
        count()
        result = function(*arguments)
        count()
        return result

    return call
