"""A network compiled ahead of time: once, in a process of its own, for what torch would say."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from citycover.errors import MachineError, ModelError, StoppedError
from citycover.model import aotinductor
from citycover.model.aotinductor import AotInductor
from citycover.model.autocast import autocast
from citycover.model.builtin import read_builtins
from citycover.model.checks import run_network
from citycover.model.converted import ConvertedNetwork, Source
from citycover.model.form import check_form, forms_here

compiler = pytest.mark.skipif("aotinductor" not in forms_here(), reason="no compiler")


class Two(nn.Module):
    """Of two band groups, one of them coarse; it asks for shapes, as networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse, self.head = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(2, 8, 1),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        y = self.fine(image.float() / 255)
        if image.shape[2] != other.shape[2]:
            y = y + nn.functional.interpolate(self.coarse(other), scale_factor=2.0, mode="bilinear")
        return self.head(y.relu() + nn.functional.max_pool2d(y, 3, 1, 1))


def two() -> Callable[..., Tensor]:
    torch.manual_seed(0)
    return torch.jit.freeze(torch.jit.script(Two().eval()))


def windows(count: int = 2) -> tuple[Tensor, Tensor]:
    fine = torch.randint(0, 255, (count, 3, 38, 20), dtype=torch.uint8)
    return fine, torch.rand(count, 2, 19, 10)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CITYCOVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "1")  # the compiler is not asked for what it understands
    monkeypatch.setenv("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
    return tmp_path / "cache"


@compiler
def test_it_is_compiled_once_and_says_what_torch_says(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing = tmp_path / "passing"
    passing.mkdir()
    monkeypatch.setenv("TMPDIR", str(passing))
    network, given = two(), windows()
    compiled = ConvertedNetwork(Source("two", "0" * 64, network), AotInductor(), "bf16")
    with torch.inference_mode(), autocast(torch.device("cpu"), "bf16"):
        torchs = network(*given).float()
    scores = compiled(*given)
    assert scores.dtype == torch.float32 and scores.shape == (2, 4, 38, 20)
    assert scores.allclose(torchs, atol=0.02) and not scores.equal(torchs + 1)
    laid_out = [window.contiguous(memory_format=torch.channels_last) for window in given]
    assert compiled(*laid_out).equal(scores)
    assert not any(passing.iterdir()), "nothing is left where others can write"
    (kept,) = (cache / "forms").iterdir()
    assert {path.name for path in kept.iterdir()} == {"network", "record.json"}
    assert not [path for path in kept.rglob("*") if path.suffix == ".cpp"]

    monkeypatch.setattr(aotinductor, "_compile", lambda *_: pytest.fail("it is there"))
    again = ConvertedNetwork(Source("two", "0" * 64, network), AotInductor(), "bf16")
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert again(*given).equal(scores)
    finally:
        torch.set_num_threads(before)


@compiler
def test_what_it_cannot_compile_is_named() -> None:
    class Doubting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return -image if bool(image.mean() > 0.5) else image

    doubting = torch.jit.freeze(torch.jit.script(Doubting().eval()))
    other = ConvertedNetwork(Source("doubting", "1" * 64, doubting), AotInductor())
    with pytest.raises(ModelError, match=r"AOTInductor cannot run the network of 'doubting': .*torchscript"):
        other(torch.rand(1, 3, 8, 8))


def sleeping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str = "") -> Path:
    """In place of the process that compiles: one with a child, which writes their numbers, and sleeps."""
    said = tmp_path / "numbers"
    code = (
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(tmp_path / 'part')!r}, {str(said)!r})\n{then or 'time.sleep(600)'}"
    )
    monkeypatch.setattr(aotinductor, "_command", lambda *_: [sys.executable, "-c", code])
    return said


def gone(numbers: Path) -> bool:
    def there(number: str) -> bool:
        try:
            return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    until = time.monotonic() + 60
    while any(map(there, numbers.read_text().split())) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(there, numbers.read_text().split()))


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc")
def test_a_stop_ends_the_compilers_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, stop = sleeping(monkeypatch, tmp_path), threading.Event()

    def stop_it() -> None:
        while not numbers.exists():
            time.sleep(0.02)
        stop.set()

    thread = threading.Thread(target=stop_it)
    thread.start()
    compiled = ConvertedNetwork(Source("two", "0" * 64, two()), AotInductor())
    with pytest.raises(StoppedError):  # whoever asks
        run_network(partial(compiled, stop=stop), windows(), read_builtins()[0].card)
    thread.join()
    assert gone(numbers) and not any((cache / "forms").iterdir())


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc")
def test_an_exception_of_a_signal_ends_the_compilers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = sleeping(monkeypatch, tmp_path)

    class Interrupting(threading.Event):
        def is_set(self) -> bool:
            if numbers.exists():
                raise KeyboardInterrupt
            return False

    with pytest.raises(KeyboardInterrupt):
        ConvertedNetwork(Source("two", "0" * 64, two()), AotInductor())(*windows(), stop=Interrupting())
    assert gone(numbers)


def test_what_compilers_say_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="citycover")
    sleeping(monkeypatch, tmp_path, "child.kill(); raise RuntimeError('no room for what is made. More')")
    with pytest.raises(ModelError, match="RuntimeError: no room for what is made; give --form torchscript"):
        ConvertedNetwork(Source("two", "0" * 64, two()), AotInductor())(*windows())
    assert "ready for windows of (2, 3, 38, 20), (2, 2, 19, 10)" in caplog.text
    assert "Traceback" in caplog.text, "in full for those who look"


def test_who_compiles_ends_with_who_asked(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "citycover.model.compiling", str(tmp_path), "fp32", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == -9


def test_where_it_cannot_compile_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.13.0+cpu", "openvino": "1"}
    monkeypatch.setattr("citycover.model.form._version", versions.get)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert "aotinductor" in forms_here() and "aotinductor" not in forms_here("cuda")
    with pytest.raises(MachineError, match="needs triton on CUDA devices"):
        check_form("aotinductor", "cuda")
    with pytest.raises(MachineError, match="the device is mps; give --device cpu"):
        check_form("aotinductor", "mps")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert "aotinductor" not in forms_here()
    with pytest.raises(MachineError, match=r"apt install g\+\+\), or give --form torchscript"):
        check_form("aotinductor", "cpu")
