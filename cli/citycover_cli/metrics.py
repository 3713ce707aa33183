"""What a command does, as metrics for Prometheus: in a file for the node exporter, or at an address."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citycover.errors import ConfigError, MachineError
from citycover.version import __version__
from citycover_cli.endings import exit_code_of
from citycover_cli.logs import logger
from citycover_cli.spans import Spans

if TYPE_CHECKING:
    from citycover.job.watch import Watch
    from citycover.machine.stages import Stages
    from citycover.plan.plan import Block

_EVERY = 15.0
"""Seconds between two files."""


class Meter:
    """Counts what a command does. Threads may ask while others count: each number is one word of memory."""

    def __init__(self, verb: str, name: str) -> None:
        self.verb, self.name, self.begin = verb, name, time.monotonic()
        self.pixels = self.windows = self.blocks = self.holes = self.failures = self.retries = 0
        self.scenes: Counter[str] = Counter()
        """By what became of them."""
        self.share = 0.0
        """Of the work of this command that is done."""
        self.ended: tuple[float, int] | None = None
        """When, in seconds since 1970, and with which exit code."""
        self.spans = Spans()
        """Of the same command."""
        self._stages: list[Stages] = []
        self._part, self._parts = 0, 1

    def work(self, scenes: int) -> None:
        """So many scenes will be worked on."""
        self._parts = max(1, scenes)

    def scene_ended(self, what: str, holes: int = 0, *, failed: bool = False) -> None:
        """A scene is through."""
        self.scenes[what] += 1
        self.holes += holes
        self.failures += failed
        self._part += 1
        self.share = min(1.0, self._part / self._parts)

    def retried(self, _scene: str) -> None:
        """A scene that the machine failed is tried again."""
        self.retries += 1

    def beside(self, watch: Watch) -> Watch:
        """A watch of one map that also counts."""
        from citycover.job.watch import with_share

        def share(of_this: float) -> None:
            self.share = min(1.0, (self._part + of_this) / self._parts)

        def predicted(windows: int) -> None:
            self.windows += windows
            watch.predicted(windows)

        def advanced(block: Block) -> None:
            self.blocks += 1
            self.pixels += block.window.height * block.window.width
            watch.advanced(block)

        def timing(stages: Stages) -> None:
            self._stages.append(stages)
            watch.timing(stages)

        counting = replace(watch, predicted=predicted, advanced=advanced, timing=timing)
        return with_share(counting, share)

    def stage_seconds(self) -> Counter[str]:
        """Seconds by stage, of all maps."""
        total: Counter[str] = Counter()
        for stages in self._stages:
            total.update(stages.seconds())
        return total

    def waiting(self) -> dict[str, int]:
        """How many things wait for each stage of the map in hand."""
        return self._stages[-1].waiting() if self._stages else {}

    @property
    def left_s(self) -> float | None:
        """Seconds until the end, if it goes on like this; None: not known yet."""
        if self.share <= 0.01:
            return None
        return (time.monotonic() - self.begin) * (1 - self.share) / self.share


@contextmanager
def metering(target: str | None, verb: str, name: str) -> Iterator[Meter]:
    """Publish what a command does until the body ends, and how it ended.

    Args:
        target: a file, written now and then, and at the end; or `[HOST]:PORT`, where a server answers as long
            as the body runs; None: nowhere.
        verb: of the command line.
        name: of what is made: a label of every number, so that those of several commands on one host can be
            collected together.

    Raises:
        ConfigError: the extra is not installed, or the target is neither.
        MachineError: nothing can be served there, or the file cannot be written.
    """
    meter = Meter(verb, name)
    if target is None:
        yield meter
        return
    with _published(target, meter):
        code = 0
        try:
            yield meter
        except BaseException as error:
            code = exit_code_of(error)
            raise
        finally:
            meter.ended = (time.time(), code)


@contextmanager
def _published(target: str, meter: Meter) -> Iterator[None]:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise ConfigError("--metrics needs the extra: pip install 'citycover[metrics]'") from None
    registry = CollectorRegistry()
    registry.register(_Collector(meter))
    host, colon, port = target.rpartition(":")
    if colon and port.isdecimal():
        yield from _served(host or "127.0.0.1", int(port), registry)
    elif target.endswith(".prom"):
        yield from _written(Path(target), registry)
    else:
        raise ConfigError(f"--metrics takes a file that ends in .prom, or [HOST]:PORT; got {target!r}")


def _served(host: str, port: int, registry: Any) -> Iterator[None]:
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise MachineError(
            f"--metrics cannot be served at {host}:{port}: {error}; choose another port"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _written(path: Path, registry: Any) -> Iterator[None]:
    """Write at once, so that a path that cannot be is known before the work, now and then, and at the end."""
    from prometheus_client import generate_latest

    from citycover.files.output import write_output

    def write() -> None:
        write_output(path, generate_latest(registry).decode())

    def keep_writing() -> None:
        while not ended.wait(_EVERY):
            _quietly(write)

    write()
    ended = threading.Event()
    thread = threading.Thread(target=keep_writing, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _quietly(write)


def _quietly(write: Any) -> None:
    """Metrics are not worth a run."""
    try:
        write()
    except MachineError as error:
        logger.warning("--metrics: %s", error)


class _Collector:
    """Numbers of a meter as Prometheus takes them."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def collect(self) -> Iterator[Any]:
        """All of them, as they are now."""
        from prometheus_client.core import InfoMetricFamily

        from citycover.machine.memory import process_memory

        meter = self.meter
        about = {"verb": meter.verb, "version": __version__, "name": meter.name}
        yield InfoMetricFamily("citycover_run", "This command.", about)
        yield self._total("pixels", "Pixels of output in finished blocks.", {"": meter.pixels})
        yield self._total("windows", "Windows that went by, run or skipped.", {"": meter.windows})
        yield self._total("blocks", "Blocks that are safe.", {"": meter.blocks})
        yield self._total("holes", "Parts of images that could not be read.", {"": meter.holes})
        yield self._total("scene_failures", "Scenes that failed.", {"": meter.failures})
        yield self._total("retries", "Scenes that were tried again.", {"": meter.retries})
        yield self._total("stage_seconds", "Time by stage.", meter.stage_seconds(), "stage")
        yield self._now("scenes", "Scenes by what became of them.", dict(meter.scenes), "state")
        yield self._now("queue_depth", "What waits for a stage.", meter.waiting(), "stage")
        yield self._now("progress_ratio", "Share of the work that is done.", {"": meter.share})
        if meter.left_s is not None:
            yield self._now("eta_seconds", "Seconds until the end.", {"": meter.left_s})
        yield self._now("memory_bytes", "Memory of this process.", {"": process_memory("VmRSS")})
        yield self._now("gpu_memory_bytes", "Memory of a device.", _device_memory(), "device")
        yield self._now("gpu_use_ratio", "Share of the time that a device works.", _device_use(), "device")
        if meter.ended is not None:
            at, code = meter.ended
            yield self._now("last_run_timestamp_seconds", "When it ended.", {"": at})
            yield self._now("last_run_exit_code", "With which exit code.", {"": code})

    def _total(self, name: str, what: str, values: Mapping[str, float], label: str = "") -> Any:
        from prometheus_client.core import CounterMetricFamily

        return self._filled(CounterMetricFamily, name, what, values, label)

    def _now(self, name: str, what: str, values: Mapping[str, float], label: str = "") -> Any:
        from prometheus_client.core import GaugeMetricFamily

        return self._filled(GaugeMetricFamily, name, what, values, label)

    def _filled(self, kind: Any, name: str, what: str, values: Mapping[str, float], label: str) -> Any:
        family = kind(f"citycover_{name}", what, labels=["name", *([label] if label else [])])
        for key, value in values.items():
            family.add_metric([self.meter.name, *([key] if label else [])], value)
        return family


def _device_memory() -> dict[str, float]:
    """Bytes in use, by device."""
    memory = {device: torch.cuda.mem_get_info(number) for number, device, torch in _devices()}
    return {device: float(total - free) for device, (free, total) in memory.items()}


def _device_use() -> dict[str, float]:
    """Share of the last moment in which a device worked, 0..1, by device; none where NVML does not tell."""
    try:
        return {device: torch.cuda.utilization(number) / 100 for number, device, torch in _devices()}
    except (ImportError, RuntimeError) as error:
        logger.debug("the use of the GPU is not known: %s", error)
        return {}


def _devices() -> Iterator[tuple[int, str, Any]]:
    """Number and name of each device, and torch; none before the command itself has needed them."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        yield from ((number, f"cuda:{number}", torch) for number in range(torch.cuda.device_count()))
