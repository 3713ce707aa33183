"""The working folder of a run: who holds it, whether it can go on, how it goes."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType

from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock

WORK = ".work"

_LOCK = "lock"


class WorkFolder:
    """The working folder `<out>/.work` of one run; a context manager that holds its lock.

    Entering makes it; an unfinished run that lies there makes it `resumable`, unless `restart`, and anything
    else there is rubbish of an earlier run and goes. Leaving before the first block leaves no trace.
    """

    def __init__(self, out: Path, *, restart: bool = False):
        self.out = out
        self.work = out / WORK
        """For the store, the ledger and the files to be published."""
        self.resumable = False
        """An unfinished run lies in `work`; `WorkingStore.resume` says whether it is this one."""
        self._restart = restart
        self._lock = RunLock(self.work / _LOCK)
        self._made = False
        """The folder was not there before."""

    def __enter__(self) -> WorkFolder:
        with machine_errors(self.out):
            self._made = not self.out.exists()
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            try:
                self.resumable = is_store(self.work) and not self._restart
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
        if self.work.is_dir() and not is_store(self.work):
            with contextlib.suppress(OSError):
                self.remove()
            if self._made:
                with contextlib.suppress(OSError):  # it has content
                    self.out.rmdir()
        self._lock.release()

    @property
    def staging(self) -> Path:
        """Where the files of the product are written before they are published."""
        return self.work / "publish"

    def clear(self) -> None:
        """Drop whatever an earlier run left in `work`."""
        for path in self.work.iterdir():
            if path.name != _LOCK:
                remove(path)

    def remove(self) -> None:
        """Remove `work`, once what it was for stands in `out`."""
        # The store's sign goes first: what is left after a kill here is rubbish, not a run to resume.
        remove(self.work / "identity.json")
        self.clear()
        remove(self.work)


def is_store(work: Path) -> bool:
    """True where a folder holds an unfinished run."""
    return (work / "identity.json").is_file()


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
