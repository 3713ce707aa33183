"""Serving the page until it is stopped."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from citycover.errors import ConfigError, MachineError
from citycover.files.remote import Place
from citycover.scene.trust import Trust
from citycover.view.maps import ShownMap, find_maps

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from citycover.view.image import SceneImage

PORT = 8800
"""Tried first where none is asked for."""

_NEEDED = ("rio_tiler", "starlette", "uvicorn", "maplibre")

_FAREWELL = 2
"""Seconds that answers under way have, once it is stopped."""


def check_extra() -> None:
    """Raise ConfigError unless what the page needs is installed."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"a page needs {', '.join(missing)}, of the view extra: pip install 'citycover[view]'; or look "
            "at the product's report.html, which needs nothing"
        )


def open_app(
    paths: Sequence[str | Place],
    host: str,
    *,
    image: Sequence[str] = (),
    map_legend: str | None = None,
    trust: Trust = Trust(),  # noqa: B008 - a value
) -> tuple[ASGIApp, tuple[ShownMap, ...]]:
    """The application that shows maps, and what it shows. Headers are read, no pixels.

    Args:
        paths: product folders, folders that hold some, or class rasters.
        host: address that it will listen at.
        image: files of the scene to lay under all maps; empty: of each map, the one that it was made of.
        map_legend: of class rasters.
        trust: which files those of maps and image may name in turn.

    Raises:
        ConfigError: no map can be shown, or the extra is not installed.
        SceneError: the image cannot be used.
    """
    check_extra()
    from citycover.view.app import Exhibition, make_app
    from citycover.view.image import image_of_files, image_of_run

    maps = find_maps(paths, map_legend, trust)
    middles = [(shown.bounds[1] + shown.bounds[3]) / 2 for shown in maps]
    images: list[SceneImage | None]
    if image:
        images = [image_of_files(image, middles[0], trust)] * len(maps)
    else:
        records = [shown.source.record for shown in maps]
        images = [image_of_run(r, lat, trust) if r else None for r, lat in zip(records, middles, strict=True)]
    return make_app(Exhibition(maps, tuple(images)), host), maps


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: address of this machine, or a name of it.
        port: None: 8800, or any free one where that is taken.

    Raises:
        MachineError: the port is taken, or not allowed.
        ConfigError: the host is none of this machine.
    """
    try:
        family, _, _, _, _ = socket.getaddrinfo(host, port or PORT, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise ConfigError(f"--host {host} is no address of this machine; leave it out, or give one") from None
    for candidate in (PORT, 0) if port is None else (port,):
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, candidate))
            held.listen(128)
        except OSError as error:
            held.close()
            problem = error
            continue
        return held
    raise MachineError(
        f"nothing can listen at {host}, port {port or PORT}: {problem.strerror}; leave --port out to "
        "take a free one, and give --host an address of this machine"
    )


def address_of(held: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = held.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (the page's address)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(app: ASGIApp, held: socket.socket, stop: threading.Event, ready: Callable[[], object]) -> None:
    """Answer until `stop` is set; `ready` is called once it answers.

    The server runs beside the main thread: signals stay with whoever sets `stop`.
    """
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=_FAREWELL)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [held]}, name="view", daemon=True)
    thread.start()
    ready()
    importlib.import_module("rio_tiler.reader")  # seconds, meanwhile: the browser has the page to draw first
    while thread.is_alive() and not stop.wait(0.5):
        pass
    server.should_exit = True
    thread.join(_FAREWELL + 3)
