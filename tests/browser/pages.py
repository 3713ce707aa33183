"""Pages in a real browser: what they fetch, what they complain of, whether everybody can use them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from citycover.view.server import address_of, listen, open_app, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
"""WebGL without a graphics card; no sandbox, which root in a container cannot have."""

Keep = Callable[..., None]
"""Keeps a picture of a page under a name."""

SIZES = {"desk": (1280, 800), "phone": (390, 844)}

SCHEMES = ("light", "dark")


@dataclass
class Heard:
    """What a page did beside what it shows."""

    complaints: list[str] = field(default_factory=list)
    """Errors and warnings on its console."""
    outside: list[str] = field(default_factory=list)
    """What it asked of anybody but its own server."""


@contextmanager
def opened(
    browser: Browser, address: str, size: str = "desk", scheme: str = "light"
) -> Iterator[tuple[Page, Heard]]:
    """A page, and what is heard of it."""
    width, height = SIZES[size]
    touch = size == "phone"
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        has_touch=touch,
        is_mobile=touch,  # type: ignore[arg-type]
    )
    page, heard = context.new_page(), Heard()
    page.on(
        "console",
        lambda said: heard.complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: heard.complaints.append(str(error)))
    page.on(
        "request",
        lambda ask: (
            heard.outside.append(ask.url) if not ask.url.startswith((address, "data:", "blob:")) else None
        ),
    )
    try:
        page.goto(address)
        yield page, heard
    finally:
        context.close()


@contextmanager
def shown(*paths: Path) -> Iterator[str]:
    """The address of a server that shows maps."""
    app, _ = open_app(paths, "127.0.0.1")
    held, stop, up = listen("127.0.0.1", None), threading.Event(), threading.Event()
    thread = threading.Thread(target=serve, args=(app, held, stop, up.set))
    thread.start()
    up.wait()
    try:
        yield address_of(held)
    finally:
        stop.set()
        thread.join()


def ready(page: Page) -> None:
    """Wait until a page of maps has drawn and counted."""
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    page.wait_for_selector("#areas tbody tr", timeout=120_000)
    settled(page)


def settled(page: Page) -> None:
    """Wait until both maps are drawn; tiles are asked for in the next frame, so it is asked again."""
    for _ in range(2):
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        until(page, "panes.every((pane) => pane.loaded() && !pane.isMoving())")


def until(page: Page, expression: str) -> None:
    """Wait until something is so; asked from here, since the page allows no code from a string."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"in vain: {expression}")


def problems(page: Page) -> list[str]:
    """What axe finds: contrast, labels, roles, landmarks, ..."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]
