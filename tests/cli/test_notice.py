"""Word of the end: it comes however a command ends, and never changes how it ends."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import typer

from citycover.errors import ConfigError, SceneError
from citycover_cli import notice
from citycover_cli.notice import noticing

NOTE = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CITYCOVER_EXIT_CODE'] + sys.stdin.read())"


def command(path: Path) -> str:
    return f'{sys.executable} -c "{NOTE}" {path}'


def told(path: Path) -> tuple[str, dict[str, object]]:
    text = path.read_text()
    start = text.index("{")
    return text[:start], json.loads(text[start:])


def test_a_command_hears_of_a_good_end(tmp_path: Path) -> None:
    with noticing(command(tmp_path / "note"), "map") as facts:
        facts["product"] = "out"
    assert told(tmp_path / "note") == ("0", {"verb": "map", "exit_code": 0, "product": "out"})


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (SceneError("no image"), 2, "SceneError"),
        (typer.Exit(3), 3, None),
        (ZeroDivisionError("bug"), 1, "ZeroDivisionError"),
        (KeyboardInterrupt(), 130, "Stopped"),
    ],
)
def test_a_command_hears_of_a_bad_one(
    tmp_path: Path, error: BaseException, code: int, kind: str | None
) -> None:
    with pytest.raises(type(error)), noticing(command(tmp_path / "note"), "map"):
        raise error
    exit_code, facts = told(tmp_path / "note")
    assert exit_code == str(code) and facts["exit_code"] == code
    assert (facts.get("error") or {}).get("kind") == kind  # type: ignore[attr-defined]


@pytest.fixture
def hook() -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback, and what is posted to it."""
    posted: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(500 if self.path == "/bad" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_hears_of_it(hook: tuple[str, list[bytes]]) -> None:
    address, posted = hook
    with noticing(address, "run") as facts:
        facts["counts"] = {"mapped": 2}
    assert json.loads(posted[0]) == {"verb": "run", "exit_code": 0, "counts": {"mapped": 2}}


@pytest.mark.parametrize(
    "target",
    ["/nowhere/at/all", "false", "http://127.0.0.1:9/", "http://", "http://localhost/a b", "{hook}/bad"],
)
def test_who_does_not_hear_changes_nothing(
    hook: tuple[str, list[bytes]], target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with noticing(target.format(hook=hook[0]), "run"):
        pass
    assert "--on-end could not be told" in caplog.text
    assert caplog.records[-1].levelname == "ERROR"  # a warning is nothing to those who asked for quiet


def test_who_writes_a_line_of_a_shell_is_told_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with noticing("cat > /dev/null", "run"):
        pass
    assert "cat > /dev/null ended with 1; where it has pipes, > or $, give sh -c" in caplog.text
    monkeypatch.setattr(notice, "_PATIENCE", 0.1)
    with noticing("sleep 60", "run"):
        pass
    assert "sleep 60 took more than 0.1 s, and was ended" in caplog.text


@pytest.mark.parametrize("target", ["", "  ", "say 'it"])
def test_what_can_hear_nothing_is_refused_before_the_run(target: str) -> None:
    with pytest.raises(ConfigError, match="--on-end takes a command or an address"), noticing(target, "run"):
        raise AssertionError


def test_the_verbs_have_it(citycover, scene: Path, tmp_path: Path) -> None:
    words = ("map", scene, "-o", tmp_path / "out", "-q", "--on-end", command(tmp_path / "note"))
    assert citycover(*words).code == 0
    assert told(tmp_path / "note")[1]["model"]
    assert citycover("run", tmp_path / "none.toml", "--on-end", command(tmp_path / "note")).code == 2
    assert told(tmp_path / "note")[1]["error"]
