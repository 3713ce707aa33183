"""`citycover view`: it answers until a signal ends it, and says why where it cannot."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from mapped import patchy, write_product

from citycover.view.server import address_of, listen

Run = Callable[..., Result]


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return write_product(tmp_path / "product", patchy((60, 80)))


def start(*arguments: object) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    words = [sys.executable, "-m", "citycover_cli", "view", *map(str, arguments), "--no-open", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr and process.stderr.read()
    return process, json.loads("".join(lines))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_answers_until_a_signal_ends_it(product: Path, number: signal.Signals, code: int) -> None:
    process, said = start(product)
    try:
        with urllib.request.urlopen(f"{said['address']}view.json", timeout=60) as answer:
            assert json.load(answer)["maps"][0]["name"] == "product" == said["maps"][0]
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code and out == err == ""
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(said["address"].rsplit(":", 1)[1].strip("/"))))


def test_a_port_that_is_taken_is_no_obstacle_unless_it_was_asked_for(citycover: Run, product: Path) -> None:
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert address_of(first) != address_of(second)
        port = second.getsockname()[1]
        result = citycover("view", product, "--no-open", "--port", port)
    assert result.code == 4 and f"port {port}: Address already in use; leave --port out" in result.err


def test_it_listens_at_loopback_alone() -> None:
    with listen("127.0.0.1", None) as held:
        assert held.getsockname()[0] == "127.0.0.1"
    with listen("::1", None) as held:
        assert address_of(held).startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "does not exist"),
        (["."], "holds no product, and neither does a folder in it"),
        (["product", "--host", "no such host"], "is no address of this machine"),
        (["product", "--image", "nothing.tif"], "nothing.tif"),
    ],
)
def test_what_cannot_be_shown_is_said(
    citycover: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "product":
        write_product(tmp_path / "product", patchy((60, 80)))
    result = citycover("view", *arguments, "--no-open")
    assert result.code == 2 and said in result.err and result.out == ""


def test_without_its_extra_it_says_what_to_install(
    citycover: Run, product: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    result = citycover("view", product, "--no-open")
    assert result.code == 2 and "pip install 'citycover[view]'" in result.err and "uvicorn" in result.err


def test_the_browser_is_opened_at_its_address(product: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from citycover_cli.verbs import view

    opened: list[str] = []

    def look(address: str) -> None:
        with urllib.request.urlopen(address, timeout=60) as page:
            opened.append(page.read(100).decode())
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(view.webbrowser, "open", look)
    from citycover_cli.app import main

    with pytest.raises(SystemExit, match="130"):
        main(["view", str(product), "-q"])
    assert opened[0].startswith("<!DOCTYPE html>")
