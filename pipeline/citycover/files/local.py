"""Names of this machine and of others: `file://` means a path, and another address is none."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from citycover.errors import ConfigError

_HERE = re.compile(r"file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)
"""Before the path: `file://` as it is written, `file:/` as a path writes it."""

_FAR = re.compile(r"[a-z][a-z0-9+.-]+:/|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)[/_?]", re.IGNORECASE)
"""Also as a path writes it, which takes `//` for `/`."""


def local_name(text: str) -> str:
    """The path that an address of this machine means; any other name as it is.

    >>> local_name("file:///data/a%20b.tif"), local_name("https://example.org/a.tif")
    ('/data/a b.tif', 'https://example.org/a.tif')
    """
    here = _HERE.match(text)
    return unquote(text[here.end() :]) if here else text


def is_path(name: str) -> bool:
    """Whether a name is one of the file system: no address, and none that GDAL alone knows.

    >>> [is_path(name) for name in ("a.tif", "s3://bucket/a.tif", "/vsizip/a.zip/a.tif")]
    [True, False, False]
    """
    return "://" not in name and not name.startswith("/vsi")


def refuse_far(name: Path | str, what: str) -> None:
    """Refuse an address where only files of this machine will do.

    Args:
        name: as the user wrote it; a path that was an address has lost one `/`.
        what: asks for it, for messages: `--aoi`.

    Raises:
        ConfigError: it is one.
    """
    text = str(name)
    if _FAR.match(text):
        whole = re.sub(r"(^|/)([\w+.-]+:)/(?!/)", r"\1\2//", text, count=1)
        raise ConfigError(
            f"{what} {whole} is an address; needed is a file or folder of this machine; fetch "
            f"first what is to be read, and send what was written afterwards (curl, aws s3 cp)"
        )
