"""The folder of a training: what may stand in it, and who may write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from citycover.errors import ConfigError, ProductError
from citycover.io.lock import RunLock

CHECKPOINT = "checkpoint.pt"
"""There while a training is unfinished."""
RESULT = "result.json"
"""There once it is finished."""


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
    """
    if rank:
        yield
        return
    if out.is_file():
        raise ProductError(f"{out} is a file; a training needs a folder; choose another --out")
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    ours = {"plan.json", "metrics.jsonl"} & there
    if there and not ours:
        raise ProductError(f"{out} holds other content: {', '.join(sorted(there)[:4])}; choose another --out")
    if RESULT in there and not overwrite:
        raise ProductError(f"{out} holds a finished training; give --overwrite, or choose another --out")
    if resume and overwrite:
        raise ConfigError("give --resume or --overwrite, not both")
    if CHECKPOINT in there and not (resume or overwrite):
        raise ProductError(
            f"{out} holds an unfinished training; give --resume to go on, or --overwrite to start again"
        )
    out.mkdir(parents=True, exist_ok=True)
    with RunLock(out / ".lock"):
        if not resume:
            _clear(out)
        yield
    (out / ".lock").unlink(missing_ok=True)


_OURS = ("*.jsonl", "*.json", "*.png", "*.safetensors", "*.pt", "events/*")


def _clear(out: Path) -> None:
    """Remove what an earlier training left."""
    for pattern in _OURS:
        for path in out.glob(pattern):
            path.unlink()
