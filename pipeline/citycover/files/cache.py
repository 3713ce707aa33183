"""Where things are kept between runs that may be made again."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "CITYCOVER_CACHE"
"""Environment variable: folder of what is kept."""


def cache_folder() -> Path:
    """`$CITYCOVER_CACHE`, else `citycover` in the user's folder of caches."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "citycover"
