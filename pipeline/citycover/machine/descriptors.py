"""File descriptors: a machine that lends too few of them fails reads in ways that look like damaged files."""

from __future__ import annotations

import os

from citycover.errors import MachineError


def need_descriptors(count: int) -> None:
    """Make sure that `count` more files can be opened, up to the limit that the machine allows.

    Raises:
        MachineError: they cannot.
    """
    if _spare(count) < count:
        _raise_soft_limit()
    spare = _spare(count)
    if spare < count:
        raise MachineError(
            f"too many files are open: {spare} more can be opened, {count} are needed to read the scene; "
            f"raise the limit with `ulimit -n {_limit() + count + 64}` and run the same command again"
        )


def _spare(count: int) -> int:
    """How many of `count` files can be opened now."""
    held: list[int] = []
    try:
        while len(held) < count:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    finally:
        for descriptor in held:
            os.close(descriptor)
    return len(held)


def _limit() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 0
    return int(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _raise_soft_limit() -> None:
    """What a user may have without asking is taken without asking."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS: "unlimited" may not be asked for
        return
