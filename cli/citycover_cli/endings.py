"""How a command ends: an error as words, as JSON, as a line of the log, and as an exit code.

| exit code | meaning |
|---|---|
| 0 | done |
| 2 | input or options |
| 3 | done, with holes |
| 4 | the machine: no space, memory, device or permission; stdout is full |
| 5 | finished before, and identical |
| 6 | another run holds the folder |
| 128 + n | stopped by signal n: 130 SIGINT, 143 SIGTERM, 141 nobody reads stdout any more |

With --json, stdout holds one document whatever happens: the result, or
`{"error": {"kind": ..., "message": ..., "exit_code": ...}}`. The same message stands on stderr.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from dataclasses import asdict, dataclass

import typer

from citycover.errors import OUT_OF_MEMORY, CitycoverError, is_out_of_memory
from citycover_cli.logs import log_only
from citycover_cli.output import StdoutError, is_first, note, print_json
from citycover_cli.signals import Stopped

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE}
"""What a write to stdout may fail with; files of a product have words of their own for it."""

UsageProblem = typer.BadParameter.__mro__[2]
"""What typer raises of wrong words on the command line; its name differs between versions."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command did not end with 0."""

    kind: str
    """The name of the error's class."""
    message: str
    exit_code: int

    def report(self, as_json: bool) -> None:
        """Say it wherever somebody may look; of those of torchrun one says that it was stopped."""
        if self.kind == "Stopped" and not is_first():
            return
        what = "" if self.kind == "Stopped" else "error: "
        note(f"citycover: {what}{self.message}", "error")
        log_only(logging.ERROR, self.message)
        if as_json:
            with contextlib.suppress(StdoutError):
                print_json({"error": asdict(self)})


def failure_of(error: BaseException) -> Failure | None:
    """An error in words; None: a bug, whose traceback is wanted."""
    kind = type(error).__name__
    if isinstance(error, (CitycoverError, Stopped)):
        return Failure(kind, str(error), error.exit_code)
    if isinstance(error, UsageProblem):
        return Failure("UsageError", _usage(error), 2)
    if isinstance(error, StdoutError):
        return _unprinted(error.__cause__)
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return _unprinted(error.__context__)  # typer heard of it first, in --help
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return Failure("ConfigError", f"{str(error.filename)[:80]}...: no file has so long a name", 2)
    if isinstance(error, OSError) and error.errno in _FULL:
        return _unprinted(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Failure("Stopped", "stopped by SIGINT", 130)
    if isinstance(error, (MemoryError, RuntimeError)) and is_out_of_memory(error):
        return Failure("MachineError", OUT_OF_MEMORY, 4)
    return None


def exit_code_of(error: BaseException) -> int:
    """What the command line leaves with where an error, or an early end, comes out of a verb; 1: a bug."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    failure = failure_of(error)
    return 1 if failure is None else failure.exit_code


def _unprinted(cause: BaseException | None) -> Failure:
    if isinstance(cause, BrokenPipeError):
        return Failure("BrokenPipe", "nobody reads stdout any more", 141)
    why = cause.strerror if isinstance(cause, OSError) else "it is closed"
    return Failure("MachineError", f"stdout cannot be written: {why}; files that were made are whole", 4)


def _usage(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    where = f"; see `{context.command_path} --help`" if context else ""
    text: str = error.format_message()  # type: ignore[attr-defined]
    return " ".join(text.split()).rstrip(".") + where
