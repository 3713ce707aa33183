"""A sharpening that is killed at a chosen moment, for a process of its own to call."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from citycover.product import folder as product_folder
from citycover_cli import follow
from citycover_cli.app import main
from citycover_models.sharpen import sharpen as sharpening
from citycover_models.training import loop, start

MOMENTS: dict[str, tuple[Any, str]] = {
    "before the first step": (start, "write_plan"),
    "training": (loop, "write_checkpoint"),
    "mapping": (follow._Follower, "advanced"),
    "publishing": (product_folder, "sync_folder"),
    "judging": (sharpening, "judge"),
}
"""What is the last thing that a run does, by name."""


def sharpen_until(moment: str, arguments: Sequence[str]) -> None:
    owner, name = MOMENTS[moment]
    setattr(owner, name, _deadly(getattr(owner, name)))
    main(["sharpen", *arguments, "--quiet"])
    sys.exit(0)


def _deadly(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> None:
        function(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return call
