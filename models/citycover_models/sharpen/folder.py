"""The folder of a sharpening: a product folder, with the training and the report beside the product.

out/.sharpen/begun.json   what the folder is for: the first thing to be written
training/             as `citycover train` leaves it, model.pt among it
landcover.tif ...     as `citycover map` leaves it
sharpen.png
sharpen.json          the report: the last thing to be written
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from citycover.errors import ProductError
from citycover.files.atomic import make_folder, passing_names, sync_folder, write_atomic
from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock
from citycover.files.plain import parse_json
from citycover.product.folder import check_folder
from citycover.product.names import SHARPENING
from citycover_models.training.folder import CHECKPOINT, RESULT

TRAINING, REPORT, PICTURE = "training", "sharpen.json", "sharpen.png"


@contextmanager
def claim_sharpening(
    out: Path, identity: Mapping[str, str], *, overwrite: bool, restart: bool
) -> Iterator[bool]:
    """Hold the folder by a lock; yields whether this very sharpening was finished there before.

    An unfinished one of the same identity is gone on with, unless `restart`. With `overwrite`, a finished one
    is begun anew, and one of another identity is replaced; its product stays until the new one is published.

    Raises:
        ProductError: the folder holds something else.
        HeldError: another sharpening is going on there.
        MachineError: it cannot be written.
    """
    if _begun(out) is None:
        check_folder(out, overwrite=overwrite)
    begun = out / SHARPENING
    with machine_errors(out):
        make_folder(begun.parent)
        with RunLock(begun.with_name("lock")) as lock:
            for path in _passing(out):
                path.unlink()
            before = _begun(out)
            finished = before == identity and (out / REPORT).is_file()
            if before is not None and before != identity and not overwrite:
                raise ProductError(_different(out, before, identity))
            if before != identity or (overwrite if finished else restart):
                _begin(out, identity)
                finished = False
            try:
                yield finished
            finally:
                lock.path.unlink(missing_ok=True)


def _begin(out: Path, identity: Mapping[str, str]) -> None:
    """What says that something is finished goes first, and for good: old is never taken for new."""
    for folder, signs in ((out, (REPORT, PICTURE)), (out / TRAINING, (RESULT, CHECKPOINT))):
        for sign in signs:
            (folder / sign).unlink(missing_ok=True)
        if folder.is_dir():
            sync_folder(folder)
    write_atomic(out / SHARPENING, json.dumps(dict(identity), indent=1))


def reopen_sharpening(out: Path, unless: Path) -> None:
    """Make an unfinished one again of a finished one, so that its end is gone through once more.

    Args:
        out: its folder.
        unless: made of it last; where that is there and no older than the report, all is well.

    Raises:
        MachineError: it cannot be written.
    """
    report = out / REPORT
    with machine_errors(out):
        if _begun(out) is None or not report.is_file():
            return
        if not unless.is_file() or unless.stat().st_mtime_ns < report.stat().st_mtime_ns:
            report.unlink()


def _passing(out: Path) -> tuple[Path, ...]:
    """What a kill left of files that were being written."""
    ours = (out / SHARPENING, out / REPORT, out / PICTURE)
    return tuple(path for file in ours for path in file.parent.glob(passing_names(file.name)))


def _begun(out: Path) -> dict[str, str] | None:
    """The identity of what was begun there; None: nothing of ours."""
    try:
        found = parse_json((out / SHARPENING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _different(out: Path, before: Mapping[str, str], identity: Mapping[str, str]) -> str:
    names = [name for name, value in identity.items() if before.get(name) != value]
    return (
        f"{out} holds a sharpening that differs from this one in: {', '.join(names)}; give --overwrite to "
        "replace it, or choose another --out"
    )
