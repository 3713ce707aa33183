"""The address of a tile that its product names by a STAC item: one of the assets of the item is the file."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin

from citycover.errors import MachineError

_LONGEST = 1 << 20
"""Bytes of an item that are read."""

_PATIENCE = 30.0
"""Seconds that an answer may take."""

_TRIES = 6
_BUSY = (429, 500, 502, 503, 504)


def asset_address(item: str, asset: str, *, pause: float = 1.0) -> str | None:
    """Where an asset of a STAC item lies; None where there is no such item.

    Args:
        item: address of the item.
        asset: name of the asset.
        pause: seconds before a busy server is asked again.

    Raises:
        MachineError: the item cannot be read, or has no such asset on the web.
    """
    text = _read(item, pause)
    if text is None:
        return None
    try:
        address: str = urljoin(item, json.loads(text)["assets"][asset]["href"])
    except (ValueError, KeyError, TypeError):
        raise MachineError(f"{item} is no STAC item with an asset {asset!r}; mend asset or item") from None
    if not address.startswith(("http://", "https://")):  # what an address answers must not name files here
        raise MachineError(f"asset {asset!r} of {item} lies at {address}; needed is an address on the web")
    return address


def _read(address: str, pause: float) -> bytes | None:
    """What an address answers; None: there is nothing."""
    asked = urllib.request.Request(address, headers={"Range": f"bytes=0-{_LONGEST - 1}"})  # noqa: S310
    for left in range(_TRIES, 0, -1):
        try:
            with urllib.request.urlopen(asked, timeout=_PATIENCE) as answer:  # noqa: S310 - of a product's file
                content: bytes = answer.read(_LONGEST)
                return content
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            if error.code not in _BUSY or left == 1:
                raise MachineError(f"{address} cannot be read (HTTP {error.code})") from None
            time.sleep(pause)
        except (OSError, ValueError) as error:
            raise MachineError(f"{address} cannot be read ({error})") from None
    raise AssertionError("the last try returns or raises")
