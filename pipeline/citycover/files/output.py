"""Files whose names the user gives: their folders are made, and what the system refuses is a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from citycover.files.atomic import write_atomic
from citycover.files.failures import machine_errors


def write_output(path: Path, content: str | Callable[[BinaryIO], object]) -> None:
    """Write a file wholly or not at all, in a folder that is made if it is missing.

    Raises:
        MachineError: it cannot be written.
    """
    with machine_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
