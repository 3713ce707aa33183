"""How commands end: with a code and a message for people, programs and the log; never with a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
import rasterio
from conftest import write_scene
from hypothesis import example, given
from hypothesis import strategies as st

from citycover.errors import MachineError, SceneError, StoppedError
from citycover.geometry.window import Window
from citycover.job.request import MapRequest
from citycover.job.watch import Watch
from citycover.plan.plan import Block
from citycover.product.product import Product
from citycover_cli.endings import failure_of
from citycover_cli.output import printable

HANG = """
import hashlib, sys, threading
def say(begun):
    begun.wait()
    print("hangs", file=sys.stderr, flush=True)
def hang(*_):
    begun = threading.Event()
    threading.Thread(target=say, args=(begun,), daemon=True).start()
    sys.setswitchinterval(1000)  # the other thread has its turn when C lets it, and not before
    begun.set()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # C that lets other threads run and hears no signal
from citycover.model import archive
from citycover.run import map as map_
archive.read_model_file = map_.map_scene = hang
from citycover_cli.app import main
main(sys.argv[1:])
"""

WHILE_IMPORTED = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(getattr(signal, sys.argv[1]))
sys.meta_path.insert(0, Finder())
from citycover_cli.start import main
main()
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "citycover_cli", *map(str, words)]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (SceneError("x"), "SceneError", 2),
        (MachineError("x"), "MachineError", 4),
        (MemoryError(), "MachineError", 4),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "MachineError", 4),
        (RuntimeError("could not create a primitive"), "MachineError", 4),
        (KeyboardInterrupt(), "Stopped", 130),
    ],
)
def test_errors_have_a_kind_and_a_code(error: BaseException, kind: str, code: int) -> None:
    failure = failure_of(error)
    assert failure is not None and (failure.kind, failure.exit_code) == (kind, code)


@pytest.mark.parametrize("each", [(), ("--each",)], ids=["map", "region"])
@pytest.mark.parametrize(("blocks", "said"), [(0, "this run had finished no block"), (1, "blocks are kept")])
def test_a_map_that_is_stopped_says_what_is_kept_of_it(
    citycover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: tuple[str, ...], blocks: int, said: str
) -> None:
    def stopped(_request: MapRequest, watch: Watch) -> Product:
        for _ in range(blocks):
            watch.advanced(Block((0, 0), Window(0, 0, 1, 1), (0, 1), (0, 1)))
        raise StoppedError

    for module in ("citycover.run.map", "citycover.region.run"):
        monkeypatch.setattr(f"{module}.map_scene", stopped)
    done = citycover("map", write_scene(tmp_path / "a.tif"), *each, "-o", tmp_path / "out")
    assert said in done.err and ("are kept" in done.err) == bool(blocks), done.err


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), OSError(2, "x")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    assert failure_of(error) is None


@given(st.text(st.characters()))
@example("\u2028\u2029")  # too few of all characters for chance to find them
def test_what_is_printed_is_printable_and_json_stays_json(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown if c != "\n")
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


def test_an_error_is_json_too(citycover, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    result = citycover("map", tmp_path / "no.tif", "-o", tmp_path / "x", "--json", "--log-file", log)
    error = json.loads(result.out)["error"]
    assert (result.code, error["kind"], error["exit_code"]) == (2, "SceneError", 2)
    assert error["message"] in result.err and error["message"] in log.read_text()
    usage = citycover("map", "--json")
    assert json.loads(usage.out)["error"]["kind"] == "UsageError" and usage.code == 2


def test_the_log_file_has_warnings_and_the_end_even_when_quiet(
    citycover, scene: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    result = citycover("inspect", scene, "-q", "--log-file", log)
    assert result.code == 0 and result.err == ""
    assert "ended with exit code 0" in log.read_text()


def test_a_log_file_that_cannot_be_opened_or_written(citycover, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = citycover("inspect", scene, "--log-file", tmp_path / "file" / "log.txt")
    assert result.code == 4 and "--log-file" in result.err
    full = citycover("inspect", scene, "--log-file", "/dev/full", "-v")
    assert full.code == 0 and full.err.count("going on without") == 1


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""As most have it: what is printed goes out late."""


@pytest.mark.parametrize("words", [("models", "list"), ("models", "list", "--json"), ("--help",)])
def test_a_stdout_that_takes_nothing(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED
        )
    assert result.returncode == 4 and "stdout cannot be written: No space left" in result.stderr
    out, into = os.pipe()
    os.close(out)
    result = subprocess.run(command(*words), stdout=into, stderr=subprocess.PIPE, text=True, check=False)
    os.close(into)
    assert result.returncode == 141 and result.stderr == "citycover: error: nobody reads stdout any more\n"


HALF_PRINTED = """
import sys
from citycover_cli import app

def half(words):
    sys.stdout.write("what is buffered")
    raise {error}

app._run = half
app.main(["inspect"])
"""


@pytest.mark.parametrize(
    ("error", "code"), [("OSError(28, 'No space left on device')", 4), ("app.ConfigError('got; needed')", 2)]
)
def test_what_is_buffered_as_a_command_fails_does_not_fail_once_more(error: str, code: int) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", HALF_PRINTED.format(error=error)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED,
        )  # fmt: skip
    assert result.returncode == code and len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_the_command_line_is_imported(name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WHILE_IMPORTED, name], capture_output=True, text=True, check=False
    )
    assert result.returncode == 128 + getattr(signal, name)
    assert result.stderr == f"citycover: stopped by {name} before it began\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("verb", ["map", "inspect"])
def test_a_second_signal_ends_what_hangs(scene: Path, tmp_path: Path, verb: str, name: str) -> None:
    words = ["map", str(scene), "-o", str(tmp_path / "out")] if verb == "map" else ["inspect", "spectral-rgb"]
    number = signal.Signals[name]
    with subprocess.Popen([sys.executable, "-c", HANG, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stderr.readline() == "hangs\n"
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        while process.poll() is None:  # two that come at once may be one
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
        assert process.returncode == 128 + number
        assert f"a second signal, {name}" in process.stderr.read()


def test_two_signals_at_once_are_one_as_timeout_sends_them(scene: Path, tmp_path: Path) -> None:
    words = ["map", str(scene), "-o", str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, "-c", HANG, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stderr.readline() == "hangs\n"
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)  # two that come in the same moment are one for the kernel
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()


def test_names_that_a_terminal_would_obey(citycover, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    result = citycover("inspect", tmp_path / "a\x1b[2J\u202e.tif", "--log-file", log)
    assert result.code == 2
    for said in (result.err, log.read_text()):
        assert "\x1b" not in said and "\\u001b[2J\\u202e" in said


def test_names_that_are_not_utf8(citycover, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.tif")
    for words in (("inspect", name), ("map", "x.tif", "-o", name)):
        result = citycover(*words, "--json")
        assert result.code == 2 and "UTF-8" in json.loads(result.out)["error"]["message"]


LONG = "9" * 5000


@pytest.mark.parametrize(
    "words",
    [
        ("map", LONG, "-o", "x"),
        ("map", "SCENE", "-o", "x", "--model", LONG),
        ("plan", "SCENE", "--aoi", LONG, "--no-probe"),
        ("inspect", LONG),
        ("models", "show", LONG),
        ("evaluate", LONG, "--truth", LONG),
        ("sample", LONG, "-o", "x.csv"),
        ("train", "-o", "x", "--recipe", LONG, "--image", "a", "--labels", "b"),
        ("train", "-o", "x", "--recipe", f"{LONG}.toml", "--image", "a", "--labels", "b"),
        ("train", "-o", "x", "--recipe", "vcnet", "--image", LONG, "--labels", "b", "--legend", "base4"),
        ("train", "-o", "x", "--recipe", "vcnet", "--image", "SCENE", "--labels", "SCENE", "--legend", LONG),
        ("train", "-o", "x", "--recipe", "vcnet", "--folder", LONG),
    ],
    ids=lambda words: "-".join(word[:9] for word in words),
)
def test_a_name_that_no_file_can_have(
    citycover, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = citycover(*(scene if word == "SCENE" else word for word in words))
    assert result.code == 2 and "999" in result.err and len(result.err) < 1500


def test_a_product_that_is_finished_and_identical(citycover, scene: Path, tmp_path: Path) -> None:
    words = ("map", scene, "-o", tmp_path / "out")
    assert citycover(*words).code == 0
    before = (tmp_path / "out" / "run.json").read_bytes()
    again = citycover(*words)
    assert again.code == 5 and "finished and identical" in again.err
    skipped = citycover(*words, "--skip-finished", "--json")
    assert skipped.code == 0 and json.loads(skipped.out)["skipped"]
    assert citycover(*words, "--threads", 1, "--device", "cpu", "--precision", "fp32").code == 5
    assert (tmp_path / "out" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--window", "32"), "plan"),
        (("--window", "48", "--batch", "3"), "plan"),
        (("--trim", "6"), "plan"),
        (("--compress", "deflate"), "compress"),
        (("--verify-seams",), "verify_seams"),
        (("--model", "spectral-rgb"), "model"),
        (("--nodata", "7"), "scene"),
        (("--bbox", "500010,5799950,500050,5799990"), "area"),
    ],
)
def test_a_finished_product_that_differs(
    citycover, scene: Path, tmp_path: Path, flags: tuple[str, ...], part: str
) -> None:
    words = ("map", scene, "-o", tmp_path / "out")
    assert citycover(*words).code == 0
    other = citycover(*words, *flags, "--skip-finished")
    assert other.code == 2 and "differs" in other.err and part in other.err and "--overwrite" in other.err
    assert citycover(*words, *flags, "--overwrite").code == 0
    assert citycover(*words, *flags).code == 5
    assert citycover(*words).code == (5 if flags[0] in {"--window", "--verify-seams"} else 2)


@pytest.mark.parametrize("dated", [False, True], ids=["its own date", "the date of the other"])
def test_another_image_under_the_same_name_and_as_large_is_another_product(
    citycover, scene: Path, tmp_path: Path, dated: bool
) -> None:
    words = ("map", scene, "-o", tmp_path / "out", "--skip-finished")
    assert citycover(*words).code == 0
    before = scene.stat()
    scene.touch()
    assert json.loads(citycover(*words, "--json").out)["skipped"]  # the same image at another date
    with rasterio.open(scene, "r+") as image:
        image.write(image.read(1)[::-1].copy(), 1)
    if dated:
        os.utime(scene, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scene.stat().st_size == before.st_size
    other = citycover(*words)
    assert other.code == 2 and "content of" in other.err and str(scene) in other.err


def test_a_working_folder_that_was_removed(
    citycover, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (("map", "a.tif", "-o", "out"), ("models", "list"), ("synth", "city")):
        result = citycover(*words)
        assert result.code == 4 and "change into another one" in result.err
    monkeypatch.chdir(tmp_path)


def test_the_log_file_holds_what_a_command_failed_of(citycover, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert citycover("map", "nothing.tif", "-o", tmp_path / "out", "--log-file", log).code == 2
    assert "there is no such file" in log.read_text()


def test_events_as_json_one_a_line(citycover, scene: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    done = citycover("map", scene, "-o", tmp_path / "out", "--log-json", "--log-file", log)
    events = [json.loads(line) for line in done.err.splitlines()]
    assert done.code == 0 and all({"time", "level", "event"} <= set(event) for event in events)
    assert any(event.get("block") == [0, 0] for event in events)
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "ended with exit code 0"
    failed = citycover("map", "nothing\n.tif", "-o", tmp_path / "other", "--log-json")
    (event,) = (json.loads(line) for line in failed.err.splitlines())
    assert failed.code == 2 and event["level"] == "error" and "cannot be printed" in event["event"]
    assert not citycover("map", scene, "-o", tmp_path / "again", "-q").err  # plain again, and quiet


def test_a_folder_that_another_run_holds(citycover, scene: Path, tmp_path: Path) -> None:
    from citycover.store.work import WorkFolder

    with WorkFolder(tmp_path / "out"):
        result = citycover("map", scene, "-o", tmp_path / "out", "--json")
    assert result.code == 6 and json.loads(result.out)["error"]["kind"] == "HeldError"
