"""The process that compiles a network: `python -m citycover.model.compiling FOLDER PRECISION KNOWN`.

Its standard input is held open by who started it; when that one ends, however it does, this one ends, too,
with the compilers that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
import zipfile
from pathlib import Path

PROGRAM = "program.pt2"
"""What is compiled."""

NETWORK = "network"
"""The folder that is made: torch's package, unpacked, so that it is loaded from where it is kept."""

_THREADS = 32
"""Threads for which loops are split, whatever number runs them: so another number computes the same."""

_SOURCES = {".cpp", ".h"}


def main() -> None:
    """Compile the program in a folder, as its arguments say."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder, precision, known = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    compile_program(folder, tf32=precision == "tf32", known=Path(known))


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever sent
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def compile_program(folder: Path, *, tf32: bool, known: Path) -> None:
    """Compile the program of a folder into its network.

    Args:
        folder: of the program.
        tf32: what CUDA devices multiply in.
        known: a folder in which stays what compilers and processor were found to be capable of.
    """
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    warnings.simplefilter("ignore")  # of torch, about torch
    from torch._inductor import aoti_compile_and_package

    _ask_compiler(known)
    package = folder / f"{NETWORK}.pt2"
    program = torch.export.load(folder / PROGRAM)
    with torch.no_grad():
        aoti_compile_and_package(program, package_path=str(package), inductor_configs=_options())
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder, [n for n in archive.namelist() if Path(n).suffix not in _SOURCES])


def _options() -> dict[str, object]:
    return {
        "cpp.threads": _THREADS,
        "cpp.dynamic_threads": True,
        "cpp_cache_precompile_headers": False,  # they are large, and pay where many networks are compiled
        "aot_inductor.precompile_headers": False,
    }


def _ask_compiler(known: Path) -> None:
    """Have torch find out what compiler and processor understand: it takes seconds, so the answer is kept."""
    here = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(known)
    with contextlib.suppress(ImportError, AttributeError):  # no public word; torch asks again
        from torch._inductor.cpu_vec_isa import pick_vec_isa

        pick_vec_isa()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = here


if __name__ == "__main__":
    main()
