"""Where the command `citycover` begins: imports nothing before it can answer a signal."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; a signal that comes while it is imported ends it with one line."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, _end)
    from citycover_cli.app import main as run

    run()


def _end(number: int, _frame: object) -> None:
    os.write(2, f"citycover: stopped by {signal.Signals(number).name} before it began\n".encode())
    os._exit(128 + number)
