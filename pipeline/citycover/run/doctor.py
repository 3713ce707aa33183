"""Whether this machine can map, and what would be slow on it: `citycover doctor`."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from citycover.errors import CitycoverError
from citycover.machine.cores import usable_cores
from citycover.machine.memory import free_memory, memory_limit
from citycover.model.form import Form, runtime_of
from citycover.version import __version__

Verdict = Literal["good", "slow", "bad"]

_DRIVERS = ("GTiff", "COG", "VRT", "JP2OpenJPEG", "PNG", "netCDF", "GPKG", "Zarr")

_NEEDED = {"GTiff", "VRT", "PNG"}
"""Formats without which nothing can be mapped."""

_EXTRAS = {
    "vector": "pyogrio", "plots": "matplotlib", "view": "rio_tiler", "metrics": "prometheus_client",
    "train": "tensorboard", "gpu": "dask_cuda",
}  # fmt: skip

_RUNTIMES: tuple[Form, ...] = ("openvino", "tensorrt")
"""Extras that are there where all that the form needs is: a module may be of another package."""

_TRIAL = 64 << 20
"""Bytes that are written to see how fast the disk is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    verdict: Verdict = "good"
    advice: str = ""
    """What to do about it; empty where it is good."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found."""

    findings: tuple[Finding, ...]

    @property
    def fit(self) -> bool:
        """Whether maps can be made."""
        return all(finding.verdict != "bad" for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {"fit": self.fit, "findings": [asdict(finding) for finding in self.findings]}


def examine(folder: Path, *, trials: bool = True) -> Examination:
    """Look at the machine; what cannot be looked at is a finding too.

    Args:
        folder: where products would be written.
        trials: also write to it, and run a network; seconds rather than tenths.
    """
    looks: list[Callable[[], Iterator[Finding]]] = [_software, _processor, _memory, _files, _torch, _gdal]
    looks += [lambda: _disk(folder, trials), _extras]
    if trials:
        looks.append(_network)
    return Examination(tuple(finding for look in looks for finding in _tried(look)))


def _tried(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    name = getattr(look, "__name__", "disk").strip("_").replace("<lambda>", "disk")
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - whatever is broken is what was asked for
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Finding(name, said, "bad", "install citycover anew, with its constraints.txt")


def _software() -> Iterator[Finding]:
    yield Finding("citycover", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")


def _processor() -> Iterator[Finding]:
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    said = f"{cores:g} of {all_cores} cores"
    if cores < 2:
        yield Finding("processor", said, "slow", "reading, computing and writing share one core; give it two")
    else:
        yield Finding("processor", said)


def _memory() -> Iterator[Finding]:
    free, limit = free_memory(), memory_limit()
    said = f"{free / 2**30:.1f} GiB free" + ("" if limit is None else f", limit {limit / 2**30:.1f} GiB")
    least = free if limit is None else min(free, limit)
    if least < 1 << 30:
        yield Finding("memory", said, "slow", "give --memory, so that windows and blocks stay small")
    else:
        yield Finding("memory", said)


def _files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 1024:
        yield Finding(
            "open files", f"at most {hard}", "slow", "raise it: ulimit -n 4096; mosaics need one a tile"
        )
    else:
        yield Finding("open files", f"{soft}, up to {hard}")


def _torch() -> Iterator[Finding]:
    import torch

    threads = torch.get_num_threads()
    built = torch.version.cuda
    yield Finding("torch", f"{torch.__version__}, CUDA {built or 'not built in'}, {threads} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(number)
            yield Finding(f"cuda:{number}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    elif built:
        yield Finding(
            "cuda", "no device", "slow", "torch has CUDA but sees no GPU: check the driver, --gpus all"
        )
    else:
        yield Finding("cuda", "none: networks run on the processor")


def _gdal() -> Iterator[Finding]:
    import pyproj
    import rasterio
    from rasterio.drivers import raster_driver_extensions  # noqa: F401 - that it can be imported
    from rasterio.env import Env

    with Env() as env:
        known = set(env.drivers())
    missing = [name for name in _DRIVERS if name not in known]
    said = f"GDAL {rasterio.__gdal_version__}, PROJ {pyproj.proj_version_str}"
    if broken := _NEEDED & set(missing):
        yield Finding("gdal", said, "bad", f"it lacks {', '.join(sorted(broken))}: install rasterio's wheel")
    elif missing:
        yield Finding(
            "gdal", f"{said}; without {', '.join(missing)}", "slow", "files of that kind cannot be read"
        )
    else:
        yield Finding("gdal", said)
    move = pyproj.Transformer.from_crs(4326, 32633, always_xy=True)
    east, north = move.transform(15.0, 52.0)
    if abs(east - 500_000) > 1 or abs(north - 5_761_038) > 1:
        yield Finding("proj", f"15 E 52 N lies at {east}, {north}", "bad", "unset PROJ_LIB and PROJ_DATA")


def _disk(folder: Path, trials: bool) -> Iterator[Finding]:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    verdict: Verdict = "slow" if free < 5 << 30 else "good"
    yield Finding(
        "disk",
        f"{free / 2**30:.1f} GiB free in {place}",
        verdict,
        "" if verdict == "good" else "a map needs about 4 bytes a pixel while it is made; see citycover plan",
    )
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "disk", f"{place} cannot be written", "bad", "mount it for writing, or choose another --out"
        )
    elif trials:
        yield from _written(place)


def _written(place: Path) -> Iterator[Finding]:
    piece = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=place, prefix=".citycover-doctor") as file:
        begin = time.perf_counter()
        for _ in range(_TRIAL >> 20):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        seconds = time.perf_counter() - begin
    speed = _TRIAL / seconds / 2**20
    if speed < 50:
        yield Finding(
            "disk speed",
            f"{speed:.0f} MiB/s",
            "slow",
            "maps are written at 10 to 200 MiB/s; use a faster disk",
        )
    else:
        yield Finding("disk speed", f"{speed:.0f} MiB/s")


def _extras() -> Iterator[Finding]:
    there = [extra for extra, module in _EXTRAS.items() if find_spec(module) is not None]
    there += [form for form in _RUNTIMES if runtime_of(form)]
    yield Finding("extras", ", ".join(there) or "none")


def _network() -> Iterator[Finding]:
    from citycover.machine.device import choose_device
    from citycover.model.bench import bench_model, lanes_possible
    from citycover.model.builtin import builtin_path
    from citycover.model.form import forms_here

    device = choose_device("auto")
    yield Finding("forms", ", ".join(forms_here(device.type)))
    quick = {"torchscript", "openvino"}  # others are compiled for many seconds
    lanes = [lane for lane in lanes_possible(device) if lane.form in quick]
    try:
        rows = bench_model(builtin_path("spectral-rgbn"), device, lanes, repeats=1)
    except CitycoverError as error:
        yield Finding("network", str(error), "bad", "reinstall citycover: its own model does not run")
        return
    best = max(rows, key=lambda row: row.mpx_per_s)
    yield Finding(
        "network", f"spectral-rgbn runs: {best.mpx_per_s:.0f} Mpx/s by {best.form} in {best.precision}"
    )
