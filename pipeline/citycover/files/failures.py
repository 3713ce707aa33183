"""What the operating system refuses, in words."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from citycover.errors import CitycoverError, MachineError

_REASONS = {
    errno.ENOSPC: ("there is no space left", "free some, or choose another --out"),
    errno.EDQUOT: ("the disk quota is used up", "free some, or choose another --out"),
    errno.EFBIG: ("the file would be larger than is allowed", "raise `ulimit -f`, or choose another --out"),
    errno.EACCES: ("permission is denied", "change the permissions, or choose another --out"),
    errno.EPERM: ("the operation is not permitted", "change the permissions, or choose another --out"),
    errno.EROFS: ("the file system is read-only", "choose another --out"),
    errno.EIO: ("the device reports an error", "check the disk, or choose another --out"),
    errno.ESTALE: ("the network drive was lost", "mount it again and run the same command"),
    errno.EMFILE: ("too many files are open", "raise `ulimit -n`"),
    errno.ENFILE: ("too many files are open", "close other programs"),
    errno.ENOENT: (
        "it or its folder is not there (any more)",
        "let nothing be removed meanwhile; run it again",
    ),
    errno.EEXIST: ("something of this name is there", "move it away, or choose another --out"),
    errno.ENOTEMPTY: ("the folder is not empty", "let nothing else write there; run it again"),
    errno.EXDEV: ("a part of the folder is another file system", "let --out be a plain folder of one disk"),
    errno.EISDIR: ("it is a folder", "choose another name"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another name"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EILSEQ: ("the file system does not take such a name", "choose a plainer one"),
    errno.ELOOP: ("its links lead in a circle", "choose another name"),
    errno.EMLINK: ("the folder has too many entries", "choose another --out"),
    errno.ETXTBSY: ("a program that runs is being written over", "end it, or choose another --out"),
    errno.EBUSY: ("another program uses it", "end that one, or choose another --out"),
    errno.ENOLCK: ("the system has no locks left", "close other programs, or choose another --out"),
    errno.ENOMEM: ("memory is used up", "give less work to this machine at once"),
    errno.ETIMEDOUT: ("the drive did not answer in time", "look at the connection and run it again"),
}

_PASSING = {errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.EAGAIN}


@contextlib.contextmanager
def machine_errors(path: object) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into a MachineError (exit code 4).

    Errors without a number of the system, and a reader of our output that went away, pass as they are: they
    are bugs, or messages to the user already, or no matter of files.

    Args:
        path: what messages name where the system names nothing, as text.
    """
    try:
        yield
    except (CitycoverError, BrokenPipeError):
        raise
    except OSError as error:
        if error.errno is None or error.errno not in errno.errorcode:
            raise
        where = error.filename if isinstance(error.filename, str) else path
        raise MachineError(f"{where}: {_reason(error.errno)}") from error


def is_passing(error: MachineError) -> bool:
    """Whether another try, on another machine at best, may well succeed: a drive that was lost or slow."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING


def _reason(number: int) -> str:
    """What was refused, and what to do."""
    said = (f"the system says: {os.strerror(number)}", "look at the disk, or choose another --out")
    return "; ".join(_REASONS.get(number, said))
