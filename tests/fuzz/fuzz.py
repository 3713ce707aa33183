"""Fuzz the readers of files: make fuzz.

    make fuzz                                      every target, 60 s each
    python tests/fuzz/fuzz.py --inputs 10000       until so many inputs each
    python tests/fuzz/fuzz.py --targets card aoi --seconds 600

Each target runs in a process of its own. What a user may never meet is a finding: an exception that is none
of citycover's, an exit code that is not listed, a process that dies, an input that takes over 10 s or 2 GiB.
A finding is kept below tests/fuzz/corpus/TARGET/, where a test of the suite runs it for ever.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "pipeline")]

CORPUS = Path(__file__).parent / "corpus"
SECONDS, MEMORY = 10.0, 2 << 30


def fuzz(
    name: str, folder: Path, inputs: int, end: float, count: Synchronized[int], since: Synchronized[float]
) -> None:
    """Run one target until a number of inputs, a time, or a finding; end the process: 0, or 1 if found."""
    from hypothesis import HealthCheck, Phase, given, settings
    from targets import targets

    target = targets(folder / "seeds")[name]
    path = folder / f"input{target.ending}"
    warm(target.run, path)
    limit = memory_now() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    @settings(
        max_examples=500, deadline=None, database=None, print_blob=False, derandomize=False,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    @given(target.inputs)
    def once(content: bytes) -> None:
        if count.value >= inputs or time.time() > end:
            return
        path.write_bytes(content)
        since.value = time.time()
        target.run(path)
        since.value = 0.0
        count.value += 1

    while count.value < inputs and time.time() < end:
        try:
            once()
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is a finding)
            traceback.print_exception(error)
            os._exit(1)
    os._exit(0)


def warm(run: object, path: Path) -> None:
    """Import everything that a run needs, before memory is bounded."""
    path.write_bytes(b"no such file")
    with contextlib.suppress(Exception):
        run(path)  # type: ignore[operator]


def memory_now() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def watch(name: str, inputs: int, seconds: float) -> tuple[int, list[str]]:
    """Run a target in processes that may die; how many inputs it took, and what was found."""
    context = multiprocessing.get_context("spawn")
    count, since = context.Value("q", 0), context.Value("d", 0.0)
    end, findings = time.time() + seconds, []
    with tempfile.TemporaryDirectory() as work:
        while count.value < inputs and time.time() < end and len(findings) < 10:
            folder = Path(work) / str(len(findings))
            folder.mkdir()
            since.value = 0.0
            process = context.Process(target=fuzz, args=(name, folder, inputs, end, count, since))
            process.start()
            while process.is_alive():
                process.join(0.2)
                began = since.value
                if began and time.time() - began > SECONDS:
                    process.kill()
                    process.join()
            if process.exitcode:
                spent = f" after {time.time() - since.value:.1f} s of one input" if since.value else ""
                findings.append(f"{keep(name, folder)}: exit code {process.exitcode}{spent}")
    return count.value, findings


def keep(name: str, folder: Path) -> str:
    """Put the input that broke a target into the corpus."""
    source = next(folder.glob("input.*"))
    content = source.read_bytes()
    place = CORPUS / name / f"{hashlib.sha256(content).hexdigest()[:12]}{source.suffix}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return str(place)


def main() -> None:
    """Fuzz what is asked for; exit 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--targets", nargs="*")
    parser.add_argument("--inputs", type=int, default=sys.maxsize)
    parser.add_argument("--seconds", type=float)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        from targets import targets

        names = given.targets or list(targets(Path(folder)))
    seconds = given.seconds or (60.0 if given.inputs == sys.maxsize else 86_400.0)
    found = 0
    for name in names:
        begin = time.time()
        inputs, findings = watch(name, given.inputs, seconds)
        found += len(findings)
        print(f"{name}: {inputs} inputs in {time.time() - begin:.0f} s, {len(findings)} findings", flush=True)
        for finding in findings:
            print(f"  {finding}", flush=True)
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
