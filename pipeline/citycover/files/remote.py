"""Names in an object store, `s3://bucket/prefix/name`, as far as products and Zarr scenes need them.

obstore talks to the store, and tries again where the store is busy. Credentials and endpoint come from where
every program takes them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, or the role of the machine. Nothing of them is kept or
printed. Products lie at s3:// alone. Plain servers (`https://`) are told none, and list nothing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import mimetypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from citycover.errors import ConfigError, MachineError
from citycover.files.refusals import ENDPOINTS, STATUS, in_words, lacking

if TYPE_CHECKING:
    from obstore.store import GCSStore, HTTPStore, RetryConfig, S3Store

_NETWORK = re.compile(
    r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs|stdin)|[a-z][a-z0-9+.-]*://", re.IGNORECASE
)

_ADDRESS = re.compile(r"(s3|gs|https?)://([^/?#]+)/([^?#]*[^/?#])/*")

_STORE = re.compile(r"\.zarr/")

_MEDIA = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".qml": "application/xml",
    ".xml": "application/xml",
}
"""What a browser is told that a file is, where Python does not know it."""

_BEYOND = re.compile(rf"{STATUS}416\b|<Code>InvalidRange</Code>")
"""What a store says of a part that begins where the object ends."""

_WHOLE = "non-partial response"
"""What obstore says where all of an object was sent, as by servers of a part that is longer than all."""

RETRIES: RetryConfig = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
"""How often, and for how long, a store that is busy is asked again; each time after a longer while."""

_REMOVED = 1000
"""Objects that one request may remove."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it."""

    size: int
    e_tag: str | None
    """Another one: other content."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A name in a bucket: of an object, or what the names of several begin with."""

    bucket: str
    """Or a server and its port."""
    key: str
    """Parts with `/` between them."""
    scheme: str = field(default="s3", repr=False)
    """s3, gs, https or http."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> RemotePath:
        return replace(self, key=f"{self.key}/{name}")

    @property
    def listed(self) -> bool:
        """Whether it can be asked what lies below; a plain server cannot."""
        return self.scheme in {"s3", "gs"}

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Ending of the last part, as `.tif`."""
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """What it lies in."""
        return replace(self, key=self.key.rpartition("/")[0])

    def with_name(self, name: str) -> RemotePath:
        """Another one beside it."""
        return self.parent / name

    def store(self) -> _Store:
        """What is below the name, for libraries that read from stores.

        Raises:
            ConfigError: the extra is not installed.
        """
        try:
            return _store(self, self.key)
        except ImportError:
            raise lacking(self) from None

    @property
    def address(self) -> str:
        """The name as `opener` takes it."""
        return f"{self.bucket}/{self.key}"

    def opener(self) -> Any:
        """What lets rasterio open an address, with the credentials of everything else here."""
        from obstore.fsspec import FsspecStore

        FsspecStore.clear_instance_cache()  # one that is kept would ask the server of then
        return FsspecStore("s3")

    def read_bytes(self, start: int = 0, length: int | None = None) -> bytes:
        """The object, or a part of it: fewer bytes, or none, where it ends before.

        Args:
            start: of the first byte; negative: counted from the end.
            length: how many, more than none; None: all that follow.

        Raises:
            FileNotFoundError: there is none.
            CitycoverError: the store does not give it.
        """
        with in_words(self):
            if start or length:
                return _part_of(self, start, length)
            return bytes(_store(self).get(self.key).bytes())

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object, as `read_bytes`."""
        return self.read_bytes().decode(encoding)

    def is_file(self) -> bool:
        """Whether there is such an object."""
        try:
            self.look()
        except FileNotFoundError:
            return False
        return True

    def gives_parts(self) -> bool:
        """Whether parts of the object can be read; a plain server may know whole files alone."""
        from obstore.exceptions import NotSupportedError

        try:
            with in_words(self, NotSupportedError):
                return len(_store(self).get_range(self.key, start=0, length=1)) == 1
        except NotSupportedError:
            return False

    def is_dir(self) -> bool:
        """Whether objects lie below."""
        with in_words(self):
            return any(_store(self).list(f"{self.key}/", chunk_size=1))

    def look(self) -> Stored:
        """Size and tag of the object.

        Raises:
            FileNotFoundError: there is none.
        """
        with in_words(self):
            found = _store(self).head(self.key)
        return Stored(found["size"], found["e_tag"])

    def exists(self) -> bool:
        """Whether it is an object, or objects lie below."""
        return self.is_file() or self.is_dir()

    def below(self) -> dict[str, Stored]:
        """All objects below, by what follows this name."""
        with in_words(self):
            found = [entry for page in _store(self).list(f"{self.key}/") for entry in page]
        return {
            entry["path"].removeprefix(f"{self.key}/"): Stored(entry["size"], entry["e_tag"])
            for entry in found
        }

    def folders(self) -> list[str]:
        """What follows this name up to the next `/`, of all objects below that have one there; in order."""
        return sorted(name[:-1] for name in self.inside() if name.endswith("/"))

    def inside(self) -> list[str]:
        """What lies in it and not deeper: names of objects, and with a `/` of what holds some."""
        with in_words(self):
            found = _store(self).list_with_delimiter(f"{self.key}/")
        names = [entry["path"] for entry in found["objects"]]
        names += [f"{prefix.rstrip('/')}/" for prefix in found["common_prefixes"]]
        return [name.removeprefix(f"{self.key}/") for name in names]

    def write(self, content: bytes | BinaryIO | Path) -> str | None:
        """Put an object there, wholly or not at all; a large file in parts. Returns its e_tag."""
        kind = _MEDIA.get(Path(self.name).suffix) or mimetypes.guess_type(self.name)[0]
        attributes = {"Content-Type": kind or "application/octet-stream"}
        with in_words(self):
            return _store(self).put(self.key, content, attributes=attributes)["e_tag"]

    def swap(self, content: bytes, tag: str | None) -> str | None:
        """Put an object there only where nobody else has put another one meanwhile.

        Args:
            content: of the object; no two writers may ever write the same.
            tag: of the one that it replaces; None: there is to be none.

        Returns:
            The tag of the new one; None: there is another one than was thought, and it stays.
        """
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        mode: Any = "create" if tag is None else {"e_tag": tag}
        refused = (AlreadyExistsError, PreconditionError, NotFoundError)
        try:
            with in_words(self, *refused):
                return _store(self).put(self.key, content, mode=mode)["e_tag"]
        except (*refused, MachineError) as error:
            tag = _tag_if(self, content)
            if tag is None and isinstance(error, MachineError):
                raise
            return tag

    def copy_to(self, other: RemotePath) -> None:
        """Copy the object to another name of the bucket, without reading it."""
        with in_words(self):
            _store(self).copy(self.key, other.key)

    def remove(self) -> None:
        """Remove the object, if there is one."""
        with in_words(self), contextlib.suppress(FileNotFoundError):
            _store(self).delete(self.key)


def remove_all(place: RemotePath, names: Sequence[str]) -> None:
    """Remove objects below a name, those of them that are there."""
    with in_words(place):
        for first in range(0, len(names), _REMOVED):
            _store(place).delete([f"{place.key}/{name}" for name in names[first : first + _REMOVED]])


def _tag_if(place: RemotePath, content: bytes) -> str | None:
    """Tag of what is there, if it is this: who asks again after a lost answer finds what it has put."""
    with contextlib.suppress(FileNotFoundError):
        tag = place.look().e_tag  # asked first: where another one comes between, the content is another
        return tag if place.read_bytes() == content else None
    return None


def _part_of(place: RemotePath, start: int, length: int | None) -> bytes:
    """As `read_bytes`."""
    part: Any = {"offset": start} if length is None else (start, start + length)
    options: Any = {"range": {"suffix": -start} if start < 0 else part}
    try:
        return bytes(_store(place).get(place.key, options=options).bytes())[:length]
    except Exception as error:
        if _BEYOND.search(str(error)):
            return b""
        if _WHOLE not in str(error):
            raise
    return place.read_bytes()[start:][:length]


_Store: TypeAlias = "S3Store | GCSStore | HTTPStore"

Place: TypeAlias = Path | RemotePath
"""Where something lies, on this machine or in an object store."""


def is_remote(path: str) -> bool:
    """Whether reading it goes over the network (or to a stream)."""
    return bool(_NETWORK.search(path))


def address_of(text: str) -> RemotePath | None:
    """A name at an object store or a plain server; None: it is none, or means more than a name.

    >>> str(address_of("gs://scenes/2024/a.zarr/")), address_of("https://example.org/a.zarr?key=1")
    ('gs://scenes/2024/a.zarr', None)
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or {"", ".", ".."} & set(found[3].split("/")):
        return None
    return RemotePath(found[2], found[3], found[1])


def place_of(place: str | Place) -> Place:
    """A folder or file on this machine or in an object store.

    Raises:
        ConfigError: it is neither.

    >>> place_of("s3://maps/2024/berlin/")
    RemotePath(bucket='maps', key='2024/berlin')
    >>> place_of(Path("product")).name
    'product'
    """
    if isinstance(place, RemotePath):
        return place
    text = str(place)
    known = re.match(r"(\w+):/{1,2}(?=[^/])(.+)", text)  # Path makes one slash of two
    if known is None and "://" not in text:
        return Path(place)
    bucket, _, key = (known[2] if known else "").strip("/").partition("/")
    if known is None or known[1] != "s3" or not key or {"", ".", ".."} & set(key.split("/")):
        raise ConfigError(
            f"{text} is no place for a product; give a folder, or s3://BUCKET/PREFIX with a prefix of its own"
        )
    return RemotePath(bucket, key)


def tag_of(address: str) -> str:
    """What an object store calls the content of an object now; empty: there is none, or it lies elsewhere.

    Of a Zarr store it is a digest of all that lies in it.
    """
    place = address_of(address)
    if place is None or not place.listed:
        return ""
    if place.scheme == "s3":
        with contextlib.suppress(FileNotFoundError):
            return place.look().e_tag or ""
    return _tag_of_all(place) if ".zarr" in place.key else ""


def _tag_of_all(place: RemotePath) -> str:
    found = sorted(place.below().items())
    text = "\n".join(f"{name} {there.size} {there.e_tag}" for name, there in found)
    return hashlib.sha256(text.encode()).hexdigest() if found else ""


def matching(pattern: str) -> list[str]:
    """Addresses of all objects that a pattern of `s3://bucket/folder/*.tif` means, in order.

    `*` stands for anything but a `/`, `**` between two for any number of folders. What is called `.zarr` is
    one thing, whatever lies in it.

    Raises:
        ConfigError: the pattern begins with the first part of the key.
    """
    folder, star, rest = pattern.partition("*")
    folder, _, begin = folder.rpartition("/")
    if folder.count("/") < 3:
        raise ConfigError(
            f"{pattern}: a pattern needs a folder of the bucket to look in; put scenes into one"
        )
    place = place_of(folder)
    assert isinstance(place, RemotePath), "it is asked for with an address"
    parts = re.split(r"(\*\*/|\*)", begin + star + rest)
    meant = {"**/": "(?:[^/]+/)*", "*": "[^/]*"}
    fits = re.compile("".join(meant.get(part) or re.escape(part) for part in parts))
    found = place.below() if "/" in begin + star + rest else place.inside()
    names = {name[: end.end() - 1] if (end := _STORE.search(name)) else name for name in found}
    return [str(place / name) for name in sorted(names) if fits.fullmatch(name)]


def size_of(place: Place) -> int:
    """Bytes of a file or object.

    Raises:
        FileNotFoundError: there is none.
    """
    return place.look().size if isinstance(place, RemotePath) else place.stat().st_size


def _store(place: RemotePath, prefix: str | None = None) -> _Store:
    if place.listed:
        _check_endpoint(ENDPOINTS[place.scheme])
        known = (name for name in os.environ if name.startswith(("AWS_", "GOOGLE_")))
        said = tuple((name, os.environ[name]) for name in sorted(known))
        return _client(place.scheme, place.bucket, prefix, said, tuple(RETRIES.items()))
    from obstore.store import HTTPStore

    address = f"{place.scheme}://{place.bucket}/{prefix or ''}"
    return HTTPStore.from_url(address, client_options={"allow_http": True}, retry_config=RETRIES)


def _check_endpoint(name: str) -> None:
    """Raise ConfigError where a variable holds no address; obstore would panic."""
    if (said := os.environ.get(name)) and not re.match(r"https?://[^/\s]", said):
        raise ConfigError(f"{name} is {said!r}, which is no address; give https://HOST or https://HOST:PORT")


@functools.lru_cache(16)
def _client(
    scheme: str,
    bucket: str,
    prefix: str | None,
    said: tuple[tuple[str, str], ...],  # noqa: ARG001  # who has other credentials is another one
    retries: tuple[tuple[str, Any], ...],
) -> S3Store | GCSStore:
    """Keeps its connections, so that not every request makes one."""
    from obstore.store import GCSStore, S3Store

    kind: Any = S3Store if scheme == "s3" else GCSStore
    store: S3Store | GCSStore = kind(bucket, prefix=prefix, retry_config=dict(retries))
    return store
