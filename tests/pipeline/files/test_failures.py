"""Whatever the system refuses ends in a message that says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from citycover.errors import ConfigError, DeviceError, MachineError, device_errors, memory_errors
from citycover.files.failures import is_passing, machine_errors


@pytest.mark.parametrize("number", sorted(set(errno.errorcode) - {errno.EPIPE, errno.ESHUTDOWN}))
def test_every_refusal_of_the_system_becomes_a_message_with_a_remedy(number: int) -> None:
    with pytest.raises(MachineError) as caught, machine_errors(Path("out/product")):
        raise OSError(number, os.strerror(number))
    where, _, rest = str(caught.value).partition(": ")
    what, _, remedy = rest.rpartition("; ")
    assert where == "out/product" and what and remedy
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space left; free some"),
        (errno.EROFS, "read-only"),
        (errno.EXDEV, "another file system"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_the_usual_ones_are_said_plainly(number: int, said: str) -> None:
    with pytest.raises(MachineError, match=said), machine_errors(Path("out")):
        raise OSError(number, os.strerror(number))


def test_the_file_is_named_where_the_system_names_it() -> None:
    with pytest.raises(MachineError, match=r"^gone/file: .* not there"), machine_errors(Path("out")):
        Path("gone/file").write_text("x")


@pytest.mark.parametrize(
    "error", [ConfigError("said already"), BrokenPipeError(errno.EPIPE, "reader"), OSError("bug")]
)
def test_what_is_no_refusal_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, machine_errors(Path("out")):
        raise error
    assert caught.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(MachineError, match="no space left"), machine_errors(Path("/dev/full")):
        Path("/dev/full").write_text("x")


@pytest.mark.parametrize(
    ("number", "passes"), [(errno.ESTALE, True), (errno.EIO, True), (errno.ENOSPC, False)]
)
def test_what_may_pass_is_told_from_what_does_not(number: int, passes: bool) -> None:
    with pytest.raises(MachineError) as caught, machine_errors(Path("there")):
        raise OSError(number, "said by the system")
    assert is_passing(caught.value) == passes


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("... CUDA out of memory. Tried ...")])
def test_memory_that_is_used_up_is_told_with_what_takes_it(error: Exception) -> None:
    with pytest.raises(MachineError, match="smaller --batch or --window"), memory_errors():
        raise error
    with pytest.raises(RuntimeError, match="a bug"), memory_errors():
        raise RuntimeError("a bug")


def test_a_broken_device_is_known_by_what_torch_says() -> None:
    said = (
        "The following operation failed in the TorchScript interpreter.\nRuntimeError: CUDA error: Xid\nmore"
    )
    with (
        pytest.raises(DeviceError, match=r"failed \(RuntimeError: CUDA error: Xid\); .* are kept"),
        device_errors(),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="a bug"), device_errors():
        raise RuntimeError("a bug")
    assert DeviceError.exit_code == 4
