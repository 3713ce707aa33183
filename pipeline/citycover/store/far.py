"""Blocks of a run in an object store: what `.work` is on a disk, for machines that share no folder.

    <prefix>/<name of the product>-<digest of its place>/
        lock             written anew every few seconds by the run that holds it: see `files/lease.py`
        ledger-<name>/   of the store that lies there; the rest as in `.work`

Each store that begins there has a ledger of its own. A run that was taken for dead, was taken over, and lives
on may still write a shard, which the seals give away, and an entry, which nobody reads.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from types import TracebackType

from citycover.errors import ProductError, StoppedError
from citycover.files.lease import Lease
from citycover.files.remote import Place, RemotePath
from citycover.files.store import ObjectStore
from citycover.store.names import ATTEMPTS, LEASE, LEDGER, LOCK, SIGN, ZARR


class FarWork:
    """Where one run keeps its blocks; a context manager that holds it.

    Leaving before the first block leaves no trace.

    Args:
        place: a prefix of its own.
        stop: is set when another run takes over.
    """

    def __init__(self, place: RemotePath, stop: threading.Event) -> None:
        self.place = place
        self.store = ObjectStore(place)
        self.ledger = f"{LEDGER}-{uuid.uuid4().hex[:8]}"
        """Of a store that this run begins."""
        self._lease = Lease(place / LOCK, stop, str(place))

    def __enter__(self) -> FarWork:
        self._check()
        self._lease.acquire("leave")
        try:
            self.store.delete(LEASE)  # workers of an earlier run end
        except BaseException:
            self._lease.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.release(self._leave_no_trace)
        if isinstance(value, StoppedError) and self._lease.lost:
            raise self._lease.refused() from None

    def _leave_no_trace(self) -> None:
        """Remove what lies there where nothing could be gone on with."""
        if not self._lease.lost and not self.begun():
            self.drop()

    def begun(self) -> bool:
        """Whether blocks of an unfinished run lie there; one without any has nothing to go on with."""
        return (self.place / SIGN).is_file() and any(name.startswith(LEDGER) for name in self.place.inside())

    def held(self) -> bool:
        """Whether it is this run's, as the store says now."""
        return self._lease.held()

    def drop(self) -> None:
        """Remove what nobody needs any more, unless another run has taken over."""
        if self.held():
            self.clear()

    def clear(self) -> None:
        """Drop all blocks, their sign first: what a kill leaves is rubbish then, not a run to resume."""
        self.store.delete(SIGN)
        self.store.delete(*(key for key in self.store.list("") if key != LOCK))

    def _check(self) -> None:
        """Raise ProductError where other things lie than a run keeps."""
        parts = {name.rstrip("/") for name in self.place.inside()}
        ours = {LOCK, SIGN, LEASE, ATTEMPTS, ZARR}
        if others := sorted(n for n in parts - ours if not n.startswith((f"{LEDGER}-", "."))):
            raise ProductError(
                f"{self.place} holds what no run writes: {', '.join(others[:5])}; a run empties it in the "
                "end; move that away, or choose another --work"
            )


def far_place(prefix: RemotePath, out: Place) -> RemotePath:
    """Where below a prefix blocks of the product at `out` lie: the same from every machine."""
    at = str(out if isinstance(out, RemotePath) else out.absolute())
    return prefix / f"{out.name or 'product'}-{hashlib.sha256(at.encode()).hexdigest()[:16]}"
