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
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from citycover.errors import CitycoverError, MachineError, ProductError
from citycover.io.lock import RunLock

PRODUCT_FILES = frozenset(
    {
        "landcover.tif",
        "landcover.tif.aux.xml",
        "landcover.zarr",
        "confidence.tif",
        "confidence.tif.aux.xml",
        "entropy.tif",
        "entropy.tif.aux.xml",
        "labels.tif",
        "labels.tif.aux.xml",
        "run.json",
        "preview.png",
        "report.html",
        "item.json",
    }
)
"""Every name that a product may hold; nothing else in a folder is ever touched."""

_SIGN = "item.json"
_WORK = ".work"
_LOCK = "lock"
_REASONS = {
    errno.ENOSPC: ("there is no space left", "free some, or choose another --out"),
    errno.EDQUOT: ("the disk quota is used up", "free some, or choose another --out"),
    errno.EACCES: ("permission is denied", "change the permissions, or choose another --out"),
    errno.EPERM: ("the operation is not permitted", "change the permissions, or choose another --out"),
    errno.EROFS: ("the file system is read-only", "choose another --out"),
    errno.EIO: ("the device reports an error", "check the disk, or choose another --out"),
    errno.EMFILE: ("too many files are open", "raise `ulimit -n`"),
    errno.ENFILE: ("too many files are open", "close other programs"),
    errno.EISDIR: ("it is a folder", "choose another name"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another name"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("its links lead in a circle", "choose another name"),
    errno.ENOMEM: ("memory is used up", "give less work to this machine at once"),
}


@contextlib.contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into a MachineError (exit code 4).

    Other errors pass as they are: they are bugs, or messages to the user already.
    """
    try:
        yield
    except CitycoverError:
        raise
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        what, remedy = _REASONS[error.errno]
        where = error.filename if isinstance(error.filename, str) else path
        raise MachineError(f"{where} cannot be written: {what}; {remedy}") from error


class ProductFolder:
    """A folder that one run may write into; a context manager that holds the lock.

    Entering looks at what is there:

    | the folder | then |
    |---|---|
    | does not exist, or is empty | it is made |
    | holds an unfinished run | `resumable` is True, unless `restart` |
    | holds a finished product | ProductError, unless `overwrite`; the old one stays until `publish` |
    | holds anything else | ProductError, always: nothing of the user's is ever removed |
    """

    def __init__(self, out: Path, *, overwrite: bool = False, restart: bool = False):
        self.out = out
        self.work = out / _WORK
        """For the store, the ledger and the files to be published."""
        self.resumable = False
        """An unfinished run lies in `work`; `WorkingStore.resume` says whether it is this one."""
        self._overwrite = overwrite
        self._restart = restart
        self._lock = RunLock(self.work / _LOCK)
        self._made = False
        """The folder was not there before."""

    def __enter__(self) -> ProductFolder:
        check_folder(self.out, overwrite=self._overwrite)
        with machine_errors(self.out):
            self._made = not self.out.exists()
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            try:
                self.resumable = _is_store(self.work) and not self._restart
                if not self.resumable:
                    self.clear()
                shutil.rmtree(self.staging, ignore_errors=True)
                self.staging.mkdir()
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that ended before its first block leaves no trace: nothing could be resumed.
        if self.work.is_dir() and not _is_store(self.work):
            with contextlib.suppress(OSError):
                self._remove_work()
            if self._made:
                with contextlib.suppress(OSError):  # it has content
                    self.out.rmdir()
        self._lock.release()

    @property
    def staging(self) -> Path:
        """Where the files of the product are written before `publish`."""
        return self.work / "publish"

    def clear(self) -> None:
        """Drop whatever an earlier run left in `work`."""
        for path in self.work.iterdir():
            if path.name != _LOCK:
                _remove(path)

    def publish(self) -> tuple[Path, ...]:
        """Move everything from `staging` into the folder and remove `work`.

        Returns:
            The files of the product, `item.json` last.
        """
        with machine_errors(self.out):
            new = sorted(
                (path.name for path in self.staging.iterdir()), key=lambda name: (name == _SIGN, name)
            )
            strange = sorted(set(new) - PRODUCT_FILES)
            if strange or _SIGN not in new:
                raise ValueError(f"a product has an item.json and only known files, got {new}")
            _remove(self.out / _SIGN)
            for name in PRODUCT_FILES - set(new):
                _remove(self.out / name)
            for name in new:
                if (self.out / name).is_dir():  # a folder cannot be replaced by a rename
                    _remove(self.out / name)
                (self.staging / name).rename(self.out / name)
            self._remove_work()
        return tuple(self.out / name for name in new)

    def _remove_work(self) -> None:
        # The store's sign goes first: what is left after a kill here is rubbish, not a run to resume.
        _remove(self.work / "identity.json")
        self.clear()
        _remove(self.work)


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
    names.discard(_WORK)
    if _is_product(out):
        if not overwrite:
            raise ProductError(
                f"{out} holds a finished product; give --overwrite to replace it, or choose another --out"
            )
        return
    # Names of ours count as ours only beside a run that was about to publish them.
    others = sorted(names - (PRODUCT_FILES if _is_store(out / _WORK) else frozenset()))
    if others:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise ProductError(
            f"{out} holds other content: {shown}; a product needs a folder of its own, "
            "empty or not existing yet; choose another --out"
        )


def _check_parent(out: Path) -> None:
    parent = next(p for p in out.absolute().parents if p.exists())
    if not parent.is_dir():
        raise ProductError(f"{parent} is a file, so {out} cannot be made; choose another --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(parent))


def _is_store(work: Path) -> bool:
    return (work / "identity.json").is_file()


def _is_product(out: Path) -> bool:
    """Whether `item.json` says that citycover made what is there."""
    try:
        item = json.loads((out / _SIGN).read_text(encoding="utf-8"))
        return "citycover" in item["properties"]["processing:software"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
