"""An object store on this machine: one bucket, as much of S3 as products need, and what goes wrong."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4
from xml.sax.saxutils import escape, unescape

import pytest

BUCKET = "maps"


@dataclass
class Bucket:
    """What the store holds, and what it was asked."""

    objects: dict[str, bytes] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Of objects that are not whole yet, by name of the upload and number."""
    busy: int = 0
    """Requests that are answered with 503 before the next is served."""
    one_in: int = 0
    """Every so many-th request is answered with 503; 0: none."""
    lost_in: int = 0
    """Every so many-th change is made, and its answer lost with the connection; 0: none."""
    asked: int = 0
    denied: bool = False
    refusing: tuple[int, str] | None = None
    """Number and name of what every request is answered with."""
    whole: bool = False
    """No ranges are given, as by `python -m http.server`."""
    changes: list[tuple[str, str]] = field(default_factory=list)
    """Method and key of everything that changed the store, in order."""
    reads: list[str] = field(default_factory=list)
    """Keys of the objects that were asked for, and prefixes that were listed, in order."""
    on_put: Callable[[str], None] = lambda _key: None
    """Called before an object is put."""
    url: str = ""
    lock: Lock = field(default_factory=Lock)


@contextmanager
def serving_bucket() -> Iterator[Bucket]:
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # an answer in two parts would wait for the first to be acknowledged

        def handle(self) -> None:
            with suppress(ConnectionError):  # of clients that were killed
                super().handle()

        def _key(self) -> str | None:
            """None: the request was answered already."""
            length = int(self.headers.get("Content-Length") or 0)
            self.body = self.rfile.read(length)
            name, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
            with bucket.lock:
                busy, bucket.busy = bucket.busy > 0, max(0, bucket.busy - 1)
                bucket.asked += 1
                busy = busy or (bool(bucket.one_in) and bucket.asked % bucket.one_in == 0)
            if busy:
                self._error(503, "SlowDown")
            elif bucket.refusing:
                self._error(*bucket.refusing)
            elif bucket.denied:
                self._error(403, "AccessDenied")
            elif name != BUCKET:
                self._error(404, "NoSuchBucket")
            else:
                return key
            return None

        def do_PUT(self) -> None:
            if (key := self._key()) is None:
                return
            asked = parse_qs(urlsplit(self.path).query)
            if "uploadId" in asked:
                part = asked["uploadId"][0], int(asked["partNumber"][0])
                bucket.parts[part] = self.body
                self._answer(200, b"", ETag=_tag(self.body))
                return
            bucket.on_put(key)
            copied = unquote(self.headers.get("x-amz-copy-source") or "").lstrip("/").partition("/")[2]
            with bucket.lock:
                there = bucket.objects.get(key)
                wanted = self.headers.get("If-Match")
                if (there is not None and self.headers.get("If-None-Match")) or (
                    wanted is not None and (there is None or _tag(there) != wanted)
                ):
                    self._error(412, "PreconditionFailed")
                    return
                if copied:
                    self.body = bucket.objects[copied]
                bucket.objects[key] = self.body
                bucket.changes.append(("PUT", key))
            tag = _tag(self.body)
            told = f"<CopyObjectResult><ETag>{escape(tag)}</ETag></CopyObjectResult>" if copied else ""
            self._answer(200, told.encode(), ETag=tag)

        def do_POST(self) -> None:
            """Begins or ends an object in parts, or removes objects."""
            if (key := self._key()) is None:
                return
            if key:
                self._in_parts(key, parse_qs(urlsplit(self.path).query, keep_blank_values=True))
                return
            keys = [unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", self.body.decode())]
            with bucket.lock:
                for key in keys:
                    if bucket.objects.pop(key, None) is not None:
                        bucket.changes.append(("DELETE", key))
            gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

        def _in_parts(self, key: str, asked: dict[str, list[str]]) -> None:
            if "uploads" in asked:
                name = uuid4().hex
                told = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId>"
                self._answer(200, f"{told}</InitiateMultipartUploadResult>".encode())
                return
            bucket.on_put(key)
            name = asked["uploadId"][0]
            with bucket.lock:
                numbers = sorted(number for upload, number in bucket.parts if upload == name)
                bucket.objects[key] = b"".join(bucket.parts.pop((name, number)) for number in numbers)
                bucket.changes.append(("PUT", key))
            tag = escape(_tag(bucket.objects[key]))
            told = f"<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
            self._answer(200, told.encode())

        def do_GET(self) -> None:
            if (key := self._key()) is None:
                return
            asked_for = parse_qs(urlsplit(self.path).query)
            bucket.reads.append(key or asked_for.get("prefix", [""])[0])
            if not key:
                self._list(asked_for.get("prefix", [""])[0], asked_for.get("delimiter", [""])[0])
                return
            content = bucket.objects.get(key)
            if content is None:
                self._error(404, "NoSuchKey")
                return
            tag, asked = _tag(content), self.headers.get("Range")
            if asked is None or bucket.whole:
                self._answer(200, content, ETag=tag)
                return
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(content) - int(last)
            stop = min(int(last) + 1 if first and last else len(content), len(content))
            start = max(0, start)
            if start >= len(content):
                self._error(416, "InvalidRange")
                return
            part = f"bytes {start}-{stop - 1}/{len(content)}"
            self._answer(206, content[start:stop], ETag=tag, **{"Content-Range": part})

        do_HEAD = do_GET  # noqa: N815

        def _list(self, prefix: str, delimiter: str) -> None:
            rests = {key: key.removeprefix(prefix) for key in bucket.objects if key.startswith(prefix)}
            inner = {rest.partition("/")[0] for rest in rests.values() if delimiter and "/" in rest}
            folders = "".join(
                f"<CommonPrefixes><Prefix>{escape(prefix + name)}/</Prefix></CommonPrefixes>"
                for name in sorted(inner)
            )
            entries = "".join(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{_tag(content)}</ETag><Size>{len(content)}</Size></Contents>"
                for key, content in sorted(bucket.objects.items())
                if key in rests and not (delimiter and "/" in rests[key])
            )
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}{folders}</ListBucketResult>"
            self._answer(200, text.encode())

        def _error(self, status: int, code: str) -> None:
            self._answer(status, f"<Error><Code>{code}</Code></Error>".encode())

        def _answer(self, status: int, content: bytes, **headers: str) -> None:
            changed = status == 200 and self.command in {"PUT", "POST"} and "pload" not in self.path
            if changed and bucket.lost_in and len(bucket.changes) % bucket.lost_in == 0:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as bucket.url:
        yield bucket


@contextmanager
def busy_before(url: str, one_in: int) -> Iterator[str]:
    """A way to another server on which every so many-th request is answered with 503."""
    numbers = count(1)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if next(numbers) % one_in == 0:
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            to = HTTPConnection(urlsplit(url).netloc)
            to.request(self.command, self.path, body, dict(self.headers))
            with to.getresponse() as answer:
                self._answer(answer.status, dict(answer.headers), answer.read())
            to.close()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            own = {"content-length", "connection", "transfer-encoding"}
            for name, value in headers.items():
                if name.lower() not in own:
                    self.send_header(name, value)
            self.send_header("Content-Length", headers.get("Content-Length", str(len(content))))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as there:
        yield there


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that talks to S3 or Google's store talk to this machine."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    said = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ENDPOINT_URL": url}
    for name, value in (said | {"ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name, value in {"BASE_URL": url, "SKIP_SIGNATURE": "true", "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"GOOGLE_{name}", value)


@lru_cache(32)
def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'
