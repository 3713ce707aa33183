"""A server on this machine that hands out files in ranges, counts what it gave, and may refuse at first."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


def free_port() -> int:
    """A port on loopback that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """What a server has done so far."""

    files: dict[str, Path]
    """By their path at the server."""
    failing: int = 0
    """Requests that are answered with 503 before the first is served."""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    """Bytes of content."""
    flaky: float = 0.0
    """Share of the requests for content that are answered with 503, drawn with a seed."""
    lost: tuple[int, int] | None = None
    """Bytes that no request gets: it is answered with 500."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))


@contextmanager
def serving(files: dict[str, Path], failing: int = 0, **more: Any) -> Iterator[Served]:
    served = Served(files, failing, **more)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            if served.failing > 0:
                served.failing -= 1
                self._answer(503, b"")
                return
            path = served.files.get(self.path.lstrip("/"))
            if path is None:
                self._answer(404, b"")
                return
            self._part(path)

        do_HEAD = do_GET  # noqa: N815

        def _part(self, path: Path) -> None:
            size = path.stat().st_size
            if self.command == "HEAD":
                self._answer(200, b"", length=size)
                return
            first, last = map(int, re.findall(r"\d+", self.headers["Range"])[:2])
            last = min(last, size - 1)
            if served.chance.random() < served.flaky:
                self._answer(503, b"")
                return
            if served.lost and first < served.lost[1] and last >= served.lost[0]:
                self._answer(500, b"")
                return
            with path.open("rb") as file:
                file.seek(first)
                content = file.read(last + 1 - first)
            served.sent += len(content)
            self._answer(206, content, f"bytes {first}-{last}/{size}")

        def _answer(
            self, code: int, content: bytes, part: str | None = None, length: int | None = None
        ) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.send_header("Accept-Ranges", "bytes")
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_product(path: Path, address: str, **changes: str) -> Path:
    """The file of a product in tiles of a degree, with the numbers of WorldCover."""
    fields = {"title": "Tiles", "legend": "worldcover", "licence": "CC0-1.0", "page": "https://example.org",
              "attribution": "© Tiles {year}"} | changes  # fmt: skip
    lines = [f'{name} = "{value}"' for name, value in fields.items()]
    lines += ["nodata = [0, 250]", "coverage = [-180.0, -60.0, 180.0, 84.0]", "[tiling]", 'kind = "degrees"',
              "side = 1", 'corner = "south-west"', 'name = "{ns}{lat:02d}{ew}{lon:03d}"', "[years.2020]",
              f'file = "{address}/{{tile}}.tif"']  # fmt: skip
    path.write_text("\n".join(lines))
    return path


@contextmanager
def serving_apart(path: Path, **more: Any) -> Iterator[tuple[str, Callable[[], tuple[int, int]]]]:
    """A server of one file in a process of its own, for readers that hold on to Python's lock.

    Yields:
        Its address, and what tells how many requests it had and how many bytes it gave.
    """
    words = [sys.executable, __file__, str(path), json.dumps(more)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def told() -> tuple[int, int]:
            print(file=server.stdin, flush=True)
            asked, sent = json.loads(server.stdout.readline())
            return asked, sent

        try:
            yield server.stdout.readline().strip(), told
        finally:
            server.kill()


if __name__ == "__main__":
    file = Path(sys.argv[1])
    names = {file.name: file, f"scenes/{file.name}": file}  # as an object store that is called `scenes`, too
    with serving(names, **json.loads(sys.argv[2])) as here:
        print(f"{here.url}/{file.name}", flush=True)
        for _ in sys.stdin:
            print(json.dumps((len(here.asked), here.sent)), flush=True)
