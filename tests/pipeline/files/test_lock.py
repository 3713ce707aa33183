"""A lock excludes the living and forgets the dead."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from citycover.files.lock import RunLock


def test_a_dead_process_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "out" / ".work" / "lock"
    path.parent.mkdir(parents=True)
    script = (
        "import os, signal, sys; from pathlib import Path; from citycover.files.lock import RunLock;"
        "RunLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    with RunLock(path):
        assert f"process {os.getpid()}" in path.read_text()


def test_a_run_goes_on_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunLock(tmp_path / "lock"):
        assert "no lock" in caplog.text
