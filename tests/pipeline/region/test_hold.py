"""One run of a region at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from citycover.errors import HeldError, StoppedError
from citycover.files.lock import RunLock
from citycover.region import hold as module
from citycover.region.hold import hold

HOLDER = """
import signal, sys, time
from pathlib import Path
from citycover.files.lock import RunLock
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A lock that another process holds."""
    monkeypatch.setattr(module, "_PAUSE", 0.05)
    path = tmp_path / "locks" / "1-of-1"
    path.parent.mkdir()
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_it_is_left_alone(held) -> None:
    with pytest.raises(HeldError, match="another run"), hold(held[0], "leave", threading.Event()):
        pass
    assert held[1].poll() is None


def test_it_is_waited_for(held) -> None:
    path, process = held
    threading.Timer(0.3, process.terminate).start()
    with hold(path, "wait", threading.Event()):
        assert process.wait() == 143


def test_waiting_can_be_stopped(held) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError), hold(held[0], "wait", stop):
        pass


def test_it_is_ended_and_taken_over(held) -> None:
    path, process = held
    with hold(path, "take", threading.Event()):
        assert process.wait(10) == 143


@pytest.mark.parametrize("written", ["process 1 on elsewhere", "process 1 on {host}", "", "rubbish"])
def test_what_is_no_run_of_ours_is_never_ended(held, written: str) -> None:
    import socket

    path, process = held
    path.write_text(written.format(host=socket.gethostname()))
    with pytest.raises(HeldError, match="cannot be ended from here"), hold(path, "take", threading.Event()):
        pass
    assert process.poll() is None


def test_who_holds_it_is_written_down(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "lock")
    assert lock.holder is None
    with lock:
        assert lock.holder is not None and lock.holder[0] > 1
