"""The server of the page, as an ASGI application: what is asked for in an address, into what is answered.

Nothing is written, nothing is fetched from elsewhere, and only names that mean this machine are answered:
a page of somewhere else whose name was bent to this address (DNS rebinding) gets nothing.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from citycover.errors import CitycoverError, ConfigError
from citycover.files.gdal import brief_reason
from citycover.plan.layers import Layer
from citycover.view.describe import describe
from citycover.view.image import SceneImage
from citycover.view.look import areas_in, changes_in, draw_change, draw_layer, look_at
from citycover.view.maps import ShownMap
from citycover.view.mercator import Tile, window_grid

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_KEPT = {"Cache-Control": "private, max-age=86400"}
"""Of tiles, whose addresses name the edition of their map."""

_LONGEST = 2048
"""Bytes of an address: 255 classes that are off take half of it."""

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@dataclass(frozen=True)
class Exhibition:
    """All that the page shows."""

    maps: tuple[ShownMap, ...]
    images: tuple[SceneImage | None, ...]
    """One for each map."""


def make_app(shown: Exhibition, host: str) -> Starlette:
    """The application.

    Args:
        shown: what there is to see.
        host: name or address that it listens at.
    """
    tiles = _Tiles(shown)
    routes = [
        Route("/", _page("index.html")),
        *(Route(f"/{name}", _page(name)) for name in ("view.css", "view.js")),
        *(Route(f"/{name}", _shipped(name)) for name in ("maplibre-gl.js", "maplibre-gl.css")),
        Route("/view.json", lambda _: JSONResponse(describe(shown.maps, shown.images))),
        Route("/map/{map:int}/{layer}/{band:int}/{level:int}/{col:int}/{row:int}.png", tiles.layer),
        Route("/image/{map:int}/{level:int}/{col:int}/{row:int}.png", tiles.image),
        Route("/change/{map:int}/{other:int}/{level:int}/{col:int}/{row:int}.png", tiles.change),
        Route("/point", tiles.point),
        Route("/areas/{map:int}", tiles.areas),
        Route("/changes/{map:int}/{other:int}", tiles.changes),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, host=host)],
        exception_handlers={CitycoverError: _refused, RasterioError: _unreadable},
    )


def is_this_machine(header: str, host: str) -> bool:
    """Whether a Host header names what the server listens at.

    A numeric address cannot be bent by DNS, so any will do where the server listens beyond loopback.

    >>> is_this_machine("localhost:8800", "127.0.0.1"), is_this_machine("evil.example:8800", "127.0.0.1")
    (True, False)
    """
    name = header.rsplit(":", 1)[0] if not header.endswith("]") else header
    name = name.strip("[]").rstrip(".").lower()
    if name in {"localhost", host.lower()}:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _Guard:
    """Refuses what is asked under another name, and adds headers to what is answered."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (refusal := self._refused(scope)) is not None:
            await refusal(scope, receive, send)
            return

        async def answered(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
            await send(message)

        await self._app(scope, receive, answered)

    def _refused(self, scope: Scope) -> PlainTextResponse | None:
        named = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"host"), "")
        if not is_this_machine(named, self._host):
            return PlainTextResponse(f"{named!r} is not a name of this server; ask it by its address", 421)
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST:
            return PlainTextResponse("the address is longer than any that the page asks; reload it", 414)
        return None


class _Tiles:
    """What is answered about maps. Starlette runs these on threads."""

    def __init__(self, shown: Exhibition) -> None:
        self._shown = shown

    def layer(self, request: Request) -> Response:
        shown = self._map(request, "map")
        layer = self._layer(shown, request.path_params["layer"])
        band = request.path_params["band"]
        if not 1 <= band <= max(1, layer.bands(len(shown.channels))):
            raise ConfigError(f"layer {layer.name} has no band {band}; reload the page")
        return _png(draw_layer(shown, layer, band, _tile(request).grid, _off(request)))

    def image(self, request: Request) -> Response:
        self._map(request, "map")
        image = self._shown.images[request.path_params["map"]]
        if image is None:
            raise ConfigError("this map has no image; give it with --image")
        return _png(image.tile(_tile(request).grid))

    def change(self, request: Request) -> Response:
        before, after = self._map(request, "map"), self._map(request, "other")
        return _png(draw_change(before, after, _tile(request).grid, _off(request)))

    def point(self, request: Request) -> Response:
        longitude, latitude = _numbers(request, "at", 2)
        return JSONResponse([look_at(shown, longitude, latitude) for shown in self._shown.maps])

    def areas(self, request: Request) -> Response:
        west, south, east, north = _numbers(request, "in", 4)
        return JSONResponse(areas_in(self._map(request, "map"), window_grid((west, south, east, north))))

    def changes(self, request: Request) -> Response:
        west, south, east, north = _numbers(request, "in", 4)
        before, after = self._map(request, "map"), self._map(request, "other")
        return JSONResponse(changes_in(before, after, window_grid((west, south, east, north))))

    def _map(self, request: Request, key: str) -> ShownMap:
        number, maps = int(request.path_params[key]), self._shown.maps
        if number >= len(maps):
            raise ConfigError(f"there is no map {number}; reload the page")
        return maps[number]

    @staticmethod
    def _layer(shown: ShownMap, name: str) -> Layer:
        for layer in shown.layers:
            if layer.name == name:
                return layer
        raise ConfigError(f"{shown.name} has no layer {name}; reload the page")


def _tile(request: Request) -> Tile:
    return Tile(*(request.path_params[name] for name in ("level", "row", "col")))


def _off(request: Request) -> frozenset[int]:
    """Ids of classes that are not shown."""
    text = request.query_params.get("off", "")
    return frozenset(int(word) for word in text.split(",") if word.isdecimal())


def _numbers(request: Request, name: str, count: int) -> tuple[float, ...]:
    words = request.query_params.get(name, "").split(",")
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"{name}={','.join(words)[:100]} holds no {count} numbers; reload the page")
    return numbers


def _png(picture: bytes) -> Response:
    return Response(picture, media_type="image/png", headers=_KEPT)


def _page(name: str) -> Callable[[Request], Response]:
    path = Path(str(files("citycover.view").joinpath("page", name)))
    return lambda _: FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})


def _shipped(name: str) -> Callable[[Request], Response]:
    """A file of the map library, out of the package that ships it."""
    spec = importlib.util.find_spec("maplibre")
    assert spec is not None, "the extra was looked for"
    assert spec.origin is not None, "it is a package with code"
    path = Path(spec.origin).parent / "srcjs" / name
    return lambda _: FileResponse(path, media_type=_TYPES[path.suffix], headers=_KEPT)


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _unreadable(_: Request, error: Exception) -> Response:
    said = f"a file of the map cannot be read any more: {brief_reason(error)}"
    return JSONResponse({"error": said}, 410)
