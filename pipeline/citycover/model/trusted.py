"""Which model files are run: the one that was asked for, and those that the machine's owner has listed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from citycover.errors import ModelError

TRUSTED = "CITYCOVER_TRUSTED_MODELS"
"""Environment variable that names a list of trusted model files: one sha256 at the beginning of each line."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_trusted(path: Path, sha256: str, required: str | None) -> None:
    """Raise unless a model file is the one that was asked for, and on the list of trusted ones, if any.

    Args:
        path: for the message.
        sha256: of the file, hexadecimal.
        required: the sha256 that the user gave, or the beginning of one (8 digits or more); None: any.

    Raises:
        ModelError: it is another file, or not on the list, or the list cannot be read.
    """
    if required is not None:
        wanted = required.strip().lower().removeprefix("sha256:")
        if len(wanted) < 8 or not re.fullmatch(r"[0-9a-f]{8,64}", wanted):
            raise ModelError(f"--require-hash takes 8 to 64 hexadecimal digits of a sha256, got {required!r}")
        if not sha256.startswith(wanted):
            raise ModelError(
                f"model {path} has sha256 {sha256}, and {wanted} is required; it was changed, or is another"
            )
    listed = os.environ.get(TRUSTED)
    if listed and sha256 not in _read_list(Path(listed)):
        raise ModelError(
            f"model {path} is not trusted: its sha256 {sha256} is not in {listed} ({TRUSTED}); add a line "
            "with it if you know where the file comes from"
        )


def _read_list(path: Path) -> frozenset[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ModelError(f"the list of trusted models {path} ({TRUSTED}) cannot be read: {reason}") from None
    words = (line.split() for line in lines)
    return frozenset(w[0].lower() for w in words if w and _SHA256.fullmatch(w[0].lower()))
