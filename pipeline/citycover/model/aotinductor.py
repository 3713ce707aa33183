"""A network compiled by torch itself, ahead of time: AOTInductor, on processors and CUDA devices.

Compiling takes seconds to minutes, starts compilers, and fills folders; so a process of its own does it,
which writes into the folder that is kept or thrown away, and ends with this one at the latest.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from citycover.errors import StoppedError
from citycover.machine.device import device_facts
from citycover.machine.stop import HEARD
from citycover.model.autocast import autocast
from citycover.model.compiled import private_folder
from citycover.model.compiling import NETWORK, PROGRAM
from citycover.model.converted import Infer, Runtime, Source, Stop
from citycover.model.form import Form
from citycover.model.graph import straight_program
from citycover.model.network import last_line
from citycover.model.precision import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AotInductor:
    """Compiles for one device and one precision; the number of threads is decided when it runs."""

    name: str = "AOTInductor"
    form: Form = "aotinductor"

    def facts(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        """The device, of a processor its flags, and the precision."""
        return {"device": device_facts(device), "precision": precision}

    def making(self, network: Callable[..., Tensor]) -> float:  # noqa: ARG002 - the protocol's
        """C++ is compiled."""
        return 15.0

    def make(
        self, source: Source, windows: Sequence[Tensor], precision: Precision, folder: Path, stop: Stop
    ) -> None:
        """Compile the network in a process of its own.

        Raises:
            RuntimeError: it cannot be compiled.
            StoppedError: it was stopped meanwhile.
        """
        program = straight_program(source.network, [_laid_out(window) for window in windows], precision)
        work = folder / "work"
        work.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about weights in channels_last
            torch.export.save(program, work / PROGRAM)
        del program
        _compile(work, precision, stop)
        (work / NETWORK).rename(folder / NETWORK)
        shutil.rmtree(work)

    def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:
        """Load it, and run it once: on CUDA devices kernels are loaded when they are first needed."""
        index = windows[0].device.index if windows[0].device.type == "cuda" else None
        loader = torch._C._aoti.AOTIModelPackageLoader(  # noqa: SLF001 - the public way unpacks into /tmp
            str(folder / NETWORK), "model", False, 1, -1 if index is None else index
        )

        def infer(given: Sequence[Tensor]) -> Tensor:
            with autocast(given[0].device, "tf32" if precision == "tf32" else "fp32"):
                (scores,) = loader.run([_laid_out(window) for window in given])
            return scores

        infer(windows)
        return infer


_: type[Runtime] = AotInductor


def _laid_out(window: Tensor) -> Tensor:
    """As the network is compiled for, which does not ask: channels_last, a copy only if it is not."""
    return window.contiguous(memory_format=torch.channels_last)


def _compile(work: Path, precision: Precision, stop: Stop) -> None:
    """Compile the program in a folder, and wait for it."""
    told = work / "told.txt"
    with told.open("w") as said, _child(_command(work, precision), _environment(work), said) as child:
        while child.poll() is None:
            if stop is not None and stop.is_set():
                raise StoppedError
            with suppress(subprocess.TimeoutExpired):
                child.wait(HEARD)
    if child.returncode:
        whole = told.read_text(errors="replace")
        logger.info("compiling failed: %s", whole)
        raise RuntimeError(last_line(RuntimeError(whole)))


def _command(work: Path, precision: Precision) -> list[str]:
    known = private_folder("inductor")
    return [sys.executable, "-m", "citycover.model.compiling", str(work), precision, str(known or work)]


def _environment(work: Path) -> dict[str, str]:
    """What is written goes into the folder, and as many processes compile as this one has threads."""
    threads = str(torch.get_num_threads())
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TMPDIR": str(work),
        "TORCHINDUCTOR_CACHE_DIR": str(work / "cache"),
        "TRITON_CACHE_DIR": str(work / "triton"),
        "TORCHINDUCTOR_COMPILE_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }


@contextmanager
def _child(
    command: list[str], environment: dict[str, str], said: IO[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with this block, or with this process, and takes what it started with it."""
    child = subprocess.Popen(  # noqa: S603 - this very Python
        command, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
