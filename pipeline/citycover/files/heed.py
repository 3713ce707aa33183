"""What GDAL says while it reads: a read that returns without an error may still have failed.

Decoders warn and deliver what they have: libjpeg of a file that ends too early, PackBits of a run that is
too long. rasterio logs such messages and returns. A filter on its logger keeps them for the thread that
reads, which costs nothing where nothing is said.
"""

from __future__ import annotations

import logging
import re
import threading

from rasterio.errors import RasterioError

_LOGGER = logging.getLogger("rasterio._err")

_DAMAGE = re.compile(
    r"decod|jpeglib|corrupt|premature|truncat|discarding|not enough data|short read|unexpected end"
    r"|end of file|past the end|beyond the end",
    re.IGNORECASE,
)
"""Warnings of damaged pixels; others (unknown tags, odd metadata) say nothing about them."""

_HARMLESS = re.compile(r"\bPROJ\b|proj\.db|proj_", re.IGNORECASE)
"""Errors about coordinate systems, of sources that a VRT opens while it reads: pixels are not touched."""


class DamageError(RasterioError):  # type: ignore[misc]  # rasterio ships no types
    """GDAL said that pixels are damaged, although it delivered some."""


class _Heard(threading.local):
    def __init__(self) -> None:
        self.said: list[str] = []


_HEARD = _Heard()


class _Ear(logging.Filter):
    """Keeps what is said; passes on what would have been shown without it."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        failed = record.levelno == logging.INFO or record.levelno >= logging.ERROR  # INFO: a CE_Failure
        if (failed and not _HARMLESS.search(said)) or _DAMAGE.search(said):
            _HEARD.said.append(said)
        above = _LOGGER.parent
        return above is None or record.levelno >= above.getEffectiveLevel()


_LOGGER.addFilter(_Ear())
_LOGGER.setLevel(logging.INFO)


def listen() -> None:
    """Forget what was said in this thread so far."""
    _HEARD.said.clear()


def heed() -> None:
    """Look back to the last `listen`.

    Raises:
        DamageError: something was said that means damaged pixels.
    """
    if _HEARD.said:
        said = _HEARD.said[0]
        quoted = re.search(r"msg=(['\"])(.*)\1", said) or re.search(r"^CPLE_\w+( in )?:?(.*)", said)
        raise DamageError(quoted[2] if quoted else said)
