"""The folder of a training: what may stand in it, and who may write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from citycover.errors import ConfigError, ProductError
from citycover.io.folder import machine_errors
from citycover.io.lock import RunLock

CHECKPOINT = "checkpoint.pt"
"""There while a training is unfinished."""
RESULT = "result.json"
"""There once it is finished."""
_LOCK = ".lock"
_OURS = (
    "metrics.jsonl", "curves.png", "predictions-*.png", "events/events.*", "best.safetensors",
    "broken-batch.safetensors", "weights.safetensors", "model.pt", CHECKPOINT, RESULT, "plan.json",
)  # fmt: skip
"""Every name that a training writes; plan.json goes last, so that a broken clearing can be gone on with."""


@contextmanager
def training_folder(out: Path, *, resume: bool, overwrite: bool, rank: int = 0) -> Iterator[None]:
    """Hold the folder of a training by a lock.

    Args:
        out: made if it is missing.
        resume: keep what an unfinished training left.
        overwrite: remove what an earlier training left.
        rank: of this process; only the first looks and locks.

    Raises:
        ProductError: it holds something else, another training, or a run that is still going.
        MachineError: it cannot be written.
    """
    if rank:
        yield
        return
    with machine_errors(out):
        _look_at(out, resume=resume, overwrite=overwrite)
        out.mkdir(parents=True, exist_ok=True)
        with RunLock(out / _LOCK):
            if not resume:
                _clear(out)
            yield
        (out / _LOCK).unlink(missing_ok=True)


def _look_at(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds anything but a training that may be gone on with or replaced."""
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise ProductError(f"{path} is a file; a training needs a folder; choose another --out")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if there - {_LOCK} and not _is_training(out):
        raise ProductError(f"{out} holds other content: {', '.join(sorted(there)[:4])}; choose another --out")
    if RESULT in there and not overwrite:
        raise ProductError(f"{out} holds a finished training; give --overwrite, or choose another --out")
    if resume and overwrite:
        raise ConfigError("give --resume or --overwrite, not both")
    if CHECKPOINT in there and not (resume or overwrite):
        raise ProductError(
            f"{out} holds an unfinished training; give --resume to go on, or --overwrite to start again"
        )


def _is_training(out: Path) -> bool:
    """Whether a plan of ours lies there: the first thing that a training writes."""
    try:
        plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(plan, dict) and {"citycover", "recipe", "samples"} <= plan.keys()


def _clear(out: Path) -> None:
    """Remove what an earlier training left, by its names: other files stay."""
    for pattern in _OURS:
        for path in out.glob(pattern):
            path.unlink()
