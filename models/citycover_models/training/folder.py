"""The folder of a training: what may stand in it, and who may write."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from citycover.errors import ConfigError, ProductError
from citycover.files.atomic import make_folder, passing_names, sync_folder
from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock
from citycover.files.plain import parse_json

CHECKPOINT = "checkpoint.pt"
"""There while a training is unfinished."""

RESULT = "result.json"
"""There once it is finished."""

BEST = "best.safetensors"
"""The weights to keep, of a training that may end early."""

TARGET_LABELS = "target-labels"
"""Folder of what the network itself said of the target, of the last round."""

_LOCK = ".lock"

_PLAN = "plan.json"
"""There as soon as anything is: by it the folder is known as that of a training."""

_OURS = (
    "metrics.jsonl", "curves.png", "predictions-*.png", "events/events.*", BEST,
    "broken-batch.safetensors", "weights.safetensors", "model.pt", "model.pt2", CHECKPOINT, RESULT, _PLAN,
)  # fmt: skip
"""Every name that a training writes."""


@contextmanager
def training_folder(
    out: Path, *, resume: bool, overwrite: bool, rank: int = 0
) -> Iterator[Callable[[], None]]:
    """Hold the folder of a training by a lock.

    Yields what removes an earlier training: to be called once the new one is known to be possible.

    Args:
        out: made if it is missing.
        resume: what an unfinished training left is gone on with; a finished one is left as it is.
        overwrite: what an earlier training left may be removed.
        rank: of this process; only the first looks and locks.

    Raises:
        ProductError: it holds something else, another training, or a run that is still going.
        MachineError: it cannot be written.
    """
    if rank:
        yield lambda: None
        return
    with machine_errors(out):
        _look_at(out, resume=resume, overwrite=overwrite)
        made = not out.exists()
        make_folder(out)
        try:
            with RunLock(out / _LOCK):
                for path in _passing(out):
                    path.unlink()
                try:
                    yield partial(_clear, out)
                finally:
                    (out / _LOCK).unlink(missing_ok=True)
        finally:
            if made:
                with suppress(OSError):  # it has content
                    out.rmdir()


def _look_at(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds anything but a training that may be gone on with or replaced."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise ProductError(f"{path} is a file; a training needs a folder; choose another --out")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    there -= {_LOCK, *(path.name for path in _passing(out))}
    if there and not _is_training(out):
        raise ProductError(f"{out} holds other content: {', '.join(sorted(there)[:4])}; choose another --out")
    if resume and overwrite:
        raise ConfigError("give --resume or --overwrite, not both")
    if RESULT in there and not (resume or overwrite):
        raise ProductError(f"{out} holds a finished training; give --overwrite, or choose another --out")
    if CHECKPOINT in there and not (resume or overwrite):
        raise ProductError(
            f"{out} holds an unfinished training; give --resume to go on, or --overwrite to start again"
        )


def _is_training(out: Path) -> bool:
    """Whether a plan of ours lies there."""
    try:
        plan = parse_json((out / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(plan, dict) and {"citycover", "recipe", "samples"} <= plan.keys()


def _passing(out: Path) -> tuple[Path, ...]:
    """What a kill left of files that were being written."""
    return tuple(path for name in _OURS for path in out.glob(passing_names(name)))


def _clear(out: Path) -> None:
    """Remove what an earlier training left, by its names: other files stay.

    What says that it is finished goes first; the plan stays until that of the new one replaces it, so that a
    broken clearing can be gone on with.
    """
    (out / RESULT).unlink(missing_ok=True)
    if out.is_dir():
        sync_folder(out)
    for pattern in set(_OURS) - {_PLAN}:
        for path in out.glob(pattern):
            path.unlink()
    shutil.rmtree(out / TARGET_LABELS, ignore_errors=True)
    with suppress(OSError):  # is missing, or holds what is not ours
        (out / "events").rmdir()
