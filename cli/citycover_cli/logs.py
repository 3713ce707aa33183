"""What the log says, and where."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger("citycover")


def set_up_logging(verbose: int, quiet: bool, log_file: Path | None) -> None:
    """Send the library's events to stderr, and all of them to a file if one is named."""
    level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setLevel(level)
    handlers[0].setFormatter(logging.Formatter("citycover: %(levelname)s: %(message)s"))
    if log_file is not None:
        from citycover.files.failures import machine_errors

        with machine_errors(log_file):
            log_file.parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        handlers[1].setLevel(logging.DEBUG)
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("citycover", "citycover_models"):
        parent = logging.getLogger(name)
        for old in parent.handlers[:]:
            parent.removeHandler(old)
            old.close()
        parent.setLevel(logging.DEBUG)
        parent.propagate = False
        for handler in handlers:
            parent.addHandler(handler)
