"""How GDAL is told to read, and its errors in few words."""

from __future__ import annotations

from typing import Any

READ_OPTIONS: dict[str, Any] = {
    # Side-cars (.msk, .aux.xml, .ovr) are looked for by name: EMPTY_DIR would hide them, and listing a
    # folder or a bucket of 100,000 scenes costs more than reading one.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # Threads that read several sources of a VRT at once (GDAL 3.10) lose their errors: a read with a missing
    # source then "succeeds" and leaves zeros. Each source is still decoded in several threads.
    "VRT_NUM_THREADS": "1",
}
"""GDAL settings under which every scene is described and read."""

REMOTE_OPTIONS: dict[str, Any] = {
    **READ_OPTIONS,
    # Nothing is looked for beside a file at an address: every name would be a request.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",  # seconds, twice as long each time
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",  # seconds at less than 1 byte/s, after which a server counts as gone
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
}
"""GDAL settings under which files of known products are read at their addresses."""


def brief_reason(error: BaseException) -> str:
    """What an exception says, on one line."""
    return " ".join(str(error).split())[:200].rstrip(".")
