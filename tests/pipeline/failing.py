"""A server between readers and an object store, which fails, hangs, or loses a part; and counts.

It runs in a process of its own: readers hold on to Python's lock while they wait for it.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlsplit

_OWN = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})


@dataclass
class Between:
    """What it does, and what it has done."""

    store: str
    """Address of the store."""
    failing: float = 0.0
    """Share of requests for content that are answered with 503 at once, drawn with a seed."""
    hanging: float = 0.0
    """Share that are answered by nothing at all."""
    lost: tuple[int, int] | None = None
    """First and last byte that no request gets: it is answered with 500."""
    asked: int = 0
    sent: int = 0
    """Bytes of content."""
    spoilt: int = 0
    """Requests that failed or hung."""
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    lock: Lock = field(default_factory=Lock)

    def spoil(self, asked: str | None) -> str | None:
        """What happens to a request for a range: `fails`, `hangs`, `lost`; None: it is served."""
        with self.lock:
            self.asked += 1
            if asked is None:
                return None
            first, last = map(int, re.findall(r"\d+", asked)[:2])
            if self.lost and first <= self.lost[1] and last >= self.lost[0]:
                return "lost"
            drawn = self.chance.random()
            if drawn >= self.failing + self.hanging:
                return None
            self.spoilt += 1
            return "fails" if drawn < self.failing else "hangs"


def _handler(between: Between) -> type[BaseHTTPRequestHandler]:
    where = urlsplit(between.store).netloc

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match between.spoil(self.headers.get("Range") if self.command == "GET" else None):
                case "hangs":
                    time.sleep(30)  # who waits has given up by then
                case "fails" | "lost" as why:
                    self.send_response(503 if why == "fails" else 500)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                case _:
                    self._forward()

        do_HEAD = do_PUT = do_GET  # noqa: N815

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = HTTPConnection(where, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OWN:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            if self.command == "GET":
                with between.lock:
                    between.sent += len(content)
            connection.close()

        def log_message(self, *_: object) -> None:
            """Silent."""

    return Handler


@dataclass(frozen=True)
class Told:
    asked: int
    sent: int
    spoilt: int


@contextmanager
def between_apart(store: str, **how: Any) -> Iterator[tuple[str, Callable[[], Told]]]:
    """Such a server in a process of its own.

    Yields:
        Its address, and what tells what it has done.
    """
    words = [sys.executable, __file__, store, json.dumps(how)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def told() -> Told:
            print(file=server.stdin, flush=True)
            return Told(*json.loads(server.stdout.readline()))

        try:
            yield server.stdout.readline().strip(), told
        finally:
            server.kill()


if __name__ == "__main__":
    here = Between(sys.argv[1], **json.loads(sys.argv[2]))
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _handler(here))
    Thread(target=listening.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{listening.server_port}", flush=True)
    for _ in sys.stdin:
        print(json.dumps((here.asked, here.sent, here.spoilt)), flush=True)
