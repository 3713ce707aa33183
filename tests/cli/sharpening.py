"""A sharpening or a demo in a process of its own that is killed at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from citycover.product import folder as product_folder
from citycover.synth import write
from citycover_cli import follow
from citycover_cli.app import main
from citycover_cli.verbs import demo
from citycover_models.sharpen import sharpen as sharpening
from citycover_models.training import loop, start

MOMENTS: dict[str, tuple[Any, str]] = {
    "before the first step": (start, "write_plan"),
    "training": (loop, "write_checkpoint"),
    "mapping": (follow._Follower, "advanced"),
    "publishing": (product_folder, "sync_folder"),
    "judging": (sharpening, "judge"),
}
"""What is the last thing that a sharpening does, by name."""

OF_DEMO: dict[str, tuple[Any, str]] = {
    "drawing": (write, "_put"),
    "putting the first file in its place": (write, "put_in_place"),
    "training": MOMENTS["training"],
    "comparing": (demo, "sharpen_with_progress"),
}
"""What is the last thing that a demo does; between training and comparing it is a sharpening."""


def killed(moment: str, arguments: Sequence[str]) -> int:
    """Exit code of a run in a process of its own that ends at a moment."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["citycover_models.sharpen.sharpen"])
    process = processes.Process(target=run_until, args=(moment, arguments))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run_until(moment: str, arguments: Sequence[str]) -> None:
    owner, name = {**MOMENTS, **OF_DEMO}[moment]
    setattr(owner, name, _deadly(getattr(owner, name)))
    main([*arguments, "--quiet"])
    sys.exit(0)


def _deadly(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> None:
        function(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return call
