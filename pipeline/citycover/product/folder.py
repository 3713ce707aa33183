"""The product folder: what may lie in it before a run, and how a product appears in it.

Everything a run makes is written below `<out>/.work`: the store, the ledger, and the finished files in
`.work/publish`. Publishing renames those into `<out>` one by one, `item.json` last; an old `item.json` is
removed first. A rename is atomic, so a reader sees each file either old or new and never in part, and a
folder with an `item.json` holds a product that is whole: that file is the sign to wait for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

from citycover.errors import ProductError
from citycover.files.failures import machine_errors
from citycover.product.names import PRODUCT_FILES, SIGN
from citycover.store.work import WORK, WorkFolder, is_store, remove


@contextlib.contextmanager
def claim_folder(out: Path, *, overwrite: bool = False, restart: bool = False) -> Iterator[WorkFolder]:
    """The working folder of a run that will publish into `out`, held as long as the context.

    | the folder | then |
    |---|---|
    | does not exist, or is empty | it is made |
    | holds an unfinished run | it is `resumable`, unless `restart` |
    | holds a finished product | ProductError, unless `overwrite`; the old one stays until `publish_files` |
    | holds anything else | ProductError, always: nothing of the user's is ever removed |
    """
    check_folder(out, overwrite=overwrite)
    with WorkFolder(out, restart=restart) as work:
        check_folder(out, overwrite=overwrite)  # a run that held the folder until now may have finished it
        yield work


def check_folder(out: Path, *, overwrite: bool = False) -> None:
    """Raise unless a run may write into `out`; changes nothing.

    Raises:
        ProductError: it is a file, holds other content, or a finished product without `overwrite`.
        MachineError: it cannot be read or written.
    """
    with machine_errors(out):
        if not out.exists():
            _check_parent(out)
            return
        if not out.is_dir():
            raise ProductError(f"{out} is a file; a product is a folder; choose another --out")
        names = {path.name for path in out.iterdir()}
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", str(out))
    names.discard(WORK)
    if _is_product(out):
        if not overwrite:
            raise ProductError(
                f"{out} holds a finished product; give --overwrite to replace it, or choose another --out"
            )
        return
    # Names of ours count as ours only beside a run that was about to publish them.
    others = sorted(names - (PRODUCT_FILES if is_store(out / WORK) else frozenset()))
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise ProductError(
            f"{out} holds other content: {shown}; a product needs a folder of its own, "
            "empty or not existing yet; choose another --out"
        )


def publish_files(work: WorkFolder) -> tuple[Path, ...]:
    """Move everything from `work.staging` into the product folder and remove the working folder.

    Returns:
        The files of the product, `item.json` last.
    """
    out = work.out
    with machine_errors(out):
        new = sorted((path.name for path in work.staging.iterdir()), key=lambda name: (name == SIGN, name))
        strange = sorted(set(new) - PRODUCT_FILES)
        if strange or SIGN not in new:
            raise ValueError(f"a product has an item.json and only known files, got {new}")
        remove(out / SIGN)
        for name in PRODUCT_FILES - set(new):
            remove(out / name)
        for name in new:
            if (out / name).is_dir():  # a folder cannot be replaced by a rename
                remove(out / name)
            (work.staging / name).rename(out / name)
        work.remove()
    return tuple(out / name for name in new)


def _check_parent(out: Path) -> None:
    parent = next(p for p in out.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ProductError(f"{parent} is a file, so {out} cannot be made; choose another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(parent))


def _is_product(out: Path) -> bool:
    """Whether `item.json` says that citycover made what is there."""
    try:
        item = json.loads((out / SIGN).read_text(encoding="utf-8"))
        return "citycover" in item["properties"]["processing:software"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
