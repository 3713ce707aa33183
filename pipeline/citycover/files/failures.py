"""What the operating system refuses, in words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from citycover.errors import CitycoverError, MachineError

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
