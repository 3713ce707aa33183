"""A part of a region held, and no other part that has scenes of it: parts of other counts do, too."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Literal

from citycover.errors import HeldError
from citycover.region.bucket import AnyRegion
from citycover.region.scenes import Shard


@contextlib.contextmanager
def hold_shard(
    folder: AnyRegion, shard: Shard, policy: Literal["leave", "wait", "take"], stop: threading.Event
) -> Iterator[None]:
    """Hold a part as long as the context.

    Who holds one looks for others that meet it only then, so of two that begin at once one sees the other.

    Args:
        folder: of the region.
        shard: the part.
        policy: where another run holds it, or one that meets it: leave it alone, wait for its end, or end it
            and go on.
        stop: set it to end the waiting.

    Raises:
        HeldError: another run is under way, and is left alone, or does not end.
        StoppedError: `stop` was set meanwhile.
    """
    while True:
        with folder.hold(str(shard), policy, stop):
            other = _in_the_way(folder, shard, stop)
            if other is None:
                yield
                return
        if policy == "leave":
            raise HeldError(
                f"another run works on part {other.index}/{other.count} of the region, which may have scenes "
                f"of part {shard.index}/{shard.count}; wait for it, and say the same number of parts always"
            )
        with folder.hold(str(other), policy, stop):
            pass


def _in_the_way(folder: AnyRegion, shard: Shard, stop: threading.Event) -> Shard | None:
    """A part of another count that has scenes of a part, and is held."""
    for name in folder.locks():
        other = Shard.named(name)
        if other is None or other == shard or not other.meets(shard) or not folder.held(name):
            continue
        try:
            with folder.hold(name, "leave", stop):  # of the dead; or a file system that has no locks
                pass
        except HeldError:
            return other
    return None
