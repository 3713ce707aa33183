"""What an object store or a server refuses, in words that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from typing import Protocol

from citycover.errors import CitycoverError, ConfigError, MachineError


class Asked(Protocol):
    """What was asked for; as text, its address."""

    @property
    def bucket(self) -> str:
        """Or a server and its port."""
        ...

    @property
    def scheme(self) -> str:
        """s3, gs, https or http."""
        ...

    @property
    def listed(self) -> bool:
        """Whether it is in an object store, which can be asked what lies below; else at a plain server."""
        ...


STATUS = r"\bstatus(?: code)?:? "
"""Before the number of an answer: keys, ports and seconds are told beside it, and may be such numbers."""

_DENIED = re.compile(
    rf"{STATUS}(401|403)\b|AccessDenied|credential|(Expired|Invalid)Token|AuthorizationHeaderMalformed"
    r"|incorrectly configured region|Missing (Secret)?AccessKey",
    re.IGNORECASE,
)
"""What a store says to whom it does not let in, or to who asks in the wrong region."""

_SEARCHED = re.compile(r"169\.254\.169\.254|/latest/(api|meta-data)")
"""Where credentials are looked for that were not given."""

_LINK = re.compile(r"https?://\S+")
"""Within what a store says: a name there may be any word."""

_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (or GOOGLE_SKIP_SIGNATURE=true where everybody may read)",
}
"""Variables that say who asks, by scheme."""

ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL"}
"""Variables that say where a store is, by scheme."""


@contextlib.contextmanager
def in_words(place: Asked, *passing: type[Exception]) -> Iterator[None]:
    """What a store refuses, as a message; that an object is not there stays FileNotFoundError.

    Args:
        place: what is asked for.
        passing: errors that are answers, and stay what they are.
    """
    try:
        from obstore.exceptions import BaseError, PermissionDeniedError
    except ImportError:
        raise lacking(place) from None
    # Many servers tell nobody what is not there.
    absent = (FileNotFoundError,) if place.listed else (FileNotFoundError, PermissionDeniedError)
    try:
        yield
    except passing:
        raise
    except (BaseError, OSError) as error:
        text = str(error)
        if isinstance(error, absent) and "NoSuchBucket" not in text:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(place)) from None
        said = _words(place, text)
        may_pass = place.listed and isinstance(said, MachineError) and not _is_denied(text)
        raise said from (ConnectionAbortedError(errno.ECONNABORTED, text) if may_pass else None)


def _words(place: Asked, text: str) -> CitycoverError:
    reason = " ".join(_told(text).split())[:300]
    if not place.listed:
        return MachineError(
            f"{place}: the server does not give it ({reason}); look at the connection, or fetch it first: "
            "servers are asked without credentials"
        )
    if "NoSuchBucket" in text:
        return ConfigError(f"{place}: there is no bucket {place.bucket!r}; make it, or correct the name")
    endpoint = ENDPOINTS[place.scheme]
    if "builder error" in text and os.environ.get(endpoint, "").startswith("http:"):
        return ConfigError(
            f"{place}: {endpoint} is at http://, which is not asked unless that is allowed; give one at "
            f"https://, or set {endpoint.partition('_')[0]}_ALLOW_HTTP=true"
        )
    if _is_denied(text):
        return MachineError(
            f"{place}: access is denied ({reason}); set {_KEYS[place.scheme]} "
            "of somebody who may list, read, write and delete there, and run it again"
        )
    return MachineError(
        f"{place}: the object store does not do it ({reason}); look at {endpoint} and the "
        "connection, and run the same command again: it goes on where it stopped"
    )


def _is_denied(text: str) -> bool:
    said = _told(text)
    return bool(_SEARCHED.search(said) or _DENIED.search(_LINK.sub("", said)))


def _told(text: str) -> str:
    """What an error says, without what is for those who debug obstore."""
    return text.partition("\n\nDebug source")[0]


def lacking(place: Asked) -> ConfigError:
    """That nothing is installed which talks to such a store."""
    return ConfigError(f"{place.scheme}:// needs obstore; install it with pip install 'citycover[s3]'")
