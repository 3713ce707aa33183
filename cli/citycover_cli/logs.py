"""What the log says, and where: stderr for people, and all of it in a file if one is named."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from citycover_cli.output import json_line, note, note_as_json, printable

logger = logging.getLogger("citycover")

_FILE_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_NAMES = ("citycover", "citycover_models", "py.warnings")


def set_up_logging(
    verbose: int, quiet: bool, log_file: Path | None, out: str | Path | None = None, *, as_json: bool = False
) -> None:
    """Send the events of the library to stderr, and all of them to a file.

    Args:
        verbose: 0: warnings; 1: events; 2: everything.
        quiet: errors alone; the file gets everything all the same.
        log_file: where to, None: nowhere.
        out: what the verb writes; a log inside of it would be taken for a part of it.
        as_json: one JSON object a line, there and there.

    Raises:
        ConfigError: the log lies in `out`.
        MachineError: the file cannot be opened.
    """
    close_logging()
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    stderr = logging.StreamHandler()
    stderr.setLevel(level)
    note_as_json(as_json)
    stderr.setFormatter(_JsonLine() if as_json else _Line("citycover: %(levelname)s: %(message)s"))
    stderr.addFilter(lambda record: not hasattr(record, "printed"))
    handlers: list[logging.Handler] = [stderr]
    if log_file is not None:
        handlers.append(_open(log_file, out, _JsonLine() if as_json else _Line(_FILE_LINE)))
    for name in _NAMES:
        parent = logging.getLogger(name)
        parent.setLevel(logging.DEBUG)
        parent.propagate = False
        for handler in handlers:
            parent.addHandler(handler)
    logging.captureWarnings(True)


def close_logging() -> None:
    """Close what `set_up_logging` opened."""
    logging.captureWarnings(False)
    for name in _NAMES:
        parent = logging.getLogger(name)
        for old in parent.handlers[:]:
            parent.removeHandler(old)
            old.close()


def log_only(level: int, text: str) -> None:
    """Into the log file alone: stderr or stdout has said it."""
    if logger.handlers:
        logger.log(level, "%s", text, extra={"printed": True})


def _open(log_file: Path, out: str | Path | None, line: logging.Formatter) -> logging.Handler:
    from citycover.errors import ConfigError, MachineError
    from citycover.product.folder import check_output

    if out is not None and Path(out).absolute() in log_file.absolute().parents:
        raise ConfigError(f"--log-file {log_file} lies in --out, which is for the result; put it beside")
    check_output(log_file)
    if log_file.is_file() and _is_binary(log_file):
        raise ConfigError(f"--log-file {log_file} exists and is no text; name another file")
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(log_file, encoding="utf-8")
    except OSError as error:
        raise MachineError(
            f"--log-file {log_file} cannot be opened: {error.strerror}; name a file that can be written"
        ) from None
    handler.setLevel(logging.DEBUG)
    handler.setFormatter(line)
    return handler


def _is_binary(path: Path) -> bool:
    """Whether a file that can be read holds what no log holds."""
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(4096)
    except OSError:
        return False


class _Line(logging.Formatter):
    """Lines that no control character of a file's name can change."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _JsonLine(logging.Formatter):
    """One JSON object: time, level, event, and the `facts` that an event was logged with."""

    def format(self, record: logging.LogRecord) -> str:
        facts = dict(getattr(record, "facts", {}))
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return json_line(record.getMessage(), record.levelname.lower(), logger=record.name, **facts)


class _LogFile(logging.FileHandler):
    """A file that is given up when it cannot be written: a log is not worth a run."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        self.failed = True
        note(f"citycover: WARNING: {self.baseFilename} cannot be written; going on without a log file")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()
