"""The working folder of a run: who holds it, whether it can go on, how it goes."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from citycover.errors import MachineError, ProductError
from citycover.files.atomic import make_folder, sync_folder
from citycover.files.failures import machine_errors
from citycover.files.lock import RunLock
from citycover.files.plain import parse_json
from citycover.files.store import PosixStore, Store, put_text
from citycover.store.far import FarWork
from citycover.store.names import ATTEMPTS, LEASE, LEDGER, LOCK, SIGN, ZARR

WORK = ".work"

_REPLACED = "replaced.json"

_OURS = frozenset({LOCK, SIGN, _REPLACED, ATTEMPTS, LEASE, LEDGER, ZARR, "publish"})

_PASSING = re.compile(r"\..*(\.tmp(\.\w+)?|\.probe)|\.nfs[0-9a-f]+")
"""Files of a moment, which a kill may leave: of an atomic write, of a worker's test, of NFS."""


class WorkFolder:
    """The working folder `<out>/.work` of one run; a context manager that holds its lock.

    Entering makes it; an unfinished run that lies there makes it `resumable`, unless `restart`, and what else
    an earlier run left there goes. Leaving before the first block leaves no trace.
    """

    def __init__(self, out: Path, *, restart: bool = False, far: FarWork | None = None):
        self.out = out
        self.work = out / WORK
        """For the store, the ledger and the files to be published."""
        self.far = far
        """Held: where blocks are kept instead of in `work`. It stays when `work` goes."""
        self.store: Store = PosixStore(self.work) if far is None else far.store
        """Where blocks are kept."""
        self.resumable = False
        """An unfinished run lies in `work`; `WorkingStore.resume` says whether it is this one."""
        self._restart = restart
        self._lock = RunLock(self.work / LOCK)
        self._made = False
        """The folder was not there before."""

    def __enter__(self) -> WorkFolder:
        with machine_errors(self.out):
            check_work(self.out)
            self._made = not self.out.exists()
            make_folder(self.work)
            self._lock.acquire()
            try:
                self.resumable = self._begun() and not self._restart
                if not self.resumable or self.far is not None:
                    self.clear()
                if not self.resumable and self.far is not None:
                    self.far.clear()
                remove(self.staging)
                self.staging.mkdir()
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A run that ended before its first block leaves no trace: nothing could be resumed.
        if self._lock.held() and not is_store(self.work) and not self.replaced.exists():
            with contextlib.suppress(OSError):
                self.remove()
            if self._made:
                with contextlib.suppress(OSError):  # it has content
                    self.out.rmdir()
        self._lock.release()

    def _begun(self) -> bool:
        """Whether an unfinished run lies where blocks are kept."""
        if self.far is None:
            return is_store(self.work)
        if is_store(self.work) and not self._restart:
            raise ProductError(
                f"{self.work} holds an unfinished run that keeps its blocks there; leave --work away to go "
                "on with it, or give --restart to drop it"
            )
        return self.far.begun()

    @property
    def seen_from_afar(self) -> Store:
        """Where blocks are kept, as a process with another working directory sees it."""
        return PosixStore(self.work.absolute()) if self.far is None else self.store

    @property
    def ledger(self) -> str:
        """Name of the ledger of a store that begins now."""
        return LEDGER if self.far is None else self.far.ledger

    @property
    def staging(self) -> Path:
        """Where the files of the product are written before they are published."""
        return self.work / "publish"

    @property
    def replaced(self) -> Path:
        """`item.json` of the product that this run is about to replace, once it has begun to."""
        return self.work / _REPLACED

    def held(self) -> bool:
        """Whether the folder is still there and this run's: somebody may remove it, and begin another run."""
        return self._lock.held() and (self.far is None or self.far.held())

    def check_held(self) -> None:
        """Raise unless the folder is still this run's.

        Raises:
            MachineError: it is gone, or another run has it.
        """
        if not self.held():
            raise taken_over(self.store)

    @property
    def attempts(self) -> tuple[datetime, ...]:
        """When the run was begun and gone on with, UTC, as far as `note_attempt` was told."""
        try:
            times = parse_json(self.store.get(ATTEMPTS))
            return tuple(datetime.fromisoformat(time) for time in times)
        except (OSError, ValueError, TypeError):  # a kill may come before the first; nothing depends on it
            return ()

    def note_attempt(self) -> None:
        """Note that the run begins, or goes on, now; once it is sure that it can."""
        now = datetime.now(UTC).replace(microsecond=0)
        times = [time.isoformat() for time in (*self.attempts, now)]
        put_text(self.store, ATTEMPTS, json.dumps(times))

    def clear(self) -> None:
        """Drop what an earlier run left in `work`, but the sign of a product that it had begun to replace."""
        # The sign goes first: what a kill leaves here is rubbish then, not a run to resume.
        remove(self.work / SIGN)
        sync_folder(self.work)
        for path in self.work.iterdir():
            if path.name not in {LOCK, _REPLACED}:
                remove(path)

    def remove(self) -> None:
        """Remove `work`, once what it was for stands in `out`."""
        self.clear()
        remove(self.work)


def taken_over(work: Store) -> MachineError:
    """What a run says that finds its working folder no longer its own."""
    return MachineError(
        f"{work} was removed or taken over by another run meanwhile; nothing was published; leave the folder "
        "alone and run the same command again, or choose another --out"
    )


def check_work(out: Path) -> None:
    """Raise if what lies in the place of the working folder is not citycover's; changes nothing.

    Raises:
        ProductError: it is a link, or holds what no run writes.
    """
    work = out / WORK
    if work.is_symlink():
        raise ProductError(
            f"{work} is a link; a run empties its working folder, so it must be a folder of its own; remove "
            "the link, or choose another --out"
        )
    if not work.is_dir():
        return
    names = sorted(p.name for p in work.iterdir())
    if others := [name for name in names if name not in _OURS and not _PASSING.fullmatch(name)]:
        shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        raise ProductError(
            f"{work} holds what no run writes: {shown}; a run empties its working folder; move that away, or "
            "choose another --out"
        )


def is_store(work: Path) -> bool:
    """Whether a folder holds an unfinished run; one without a block has nothing to go on with."""
    return (work / SIGN).is_file() and any((work / LEDGER).glob("*.json"))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
