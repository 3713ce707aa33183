"""A network in another form than torch's: made once for each shape of windows, and kept for other runs."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from citycover.errors import CitycoverError, ModelError, StoppedError, is_out_of_memory
from citycover.machine.stop import HEARD
from citycover.model.compiled import Artefact, is_kept, kept
from citycover.model.form import Form, runtime_of
from citycover.model.network import last_line
from citycover.model.precision import Precision
from citycover.version import __version__

logger = logging.getLogger(__name__)

_SHAPES = 2
"""Shapes that are ready at a time: a run has one, and its transpose where windows are turned."""

Shapes = tuple[tuple[tuple[int, ...], str], ...]
"""Shape and type of each band group's windows."""

Stop = threading.Event | None
"""Ends what takes long: of the run that waits for it, for a network outlives runs."""

Infer = Callable[[Sequence[Tensor]], Tensor]
"""One (n, band, y, x) tensor a band group in, (n, c, y, x) float32 scores out, which are the caller's own."""


def shapes_of(windows: Sequence[Tensor]) -> Shapes:
    """Those of windows."""
    return tuple((tuple(w.shape), str(w.dtype).removeprefix("torch.")) for w in windows)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What is made into another form."""

    name: str
    """Of the model, for people."""
    sha256: str
    """Of the model file."""
    network: Callable[..., Tensor] = field(repr=False)
    """As torch runs it, on the device; asked for its operators once."""


class Runtime(Protocol):
    """What runs networks in a form."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def form(self) -> Form:
        """Which."""
        ...

    def facts(self, device: torch.device, precision: Precision) -> dict[str, Any]:
        """What decides that which is kept of a network, beside the network, its windows and versions."""
        ...

    def making(self, network: Callable[..., Tensor]) -> float:
        """Seconds that making takes at least, in a process that has made nothing so far."""
        ...

    def make(
        self, source: Source, windows: Sequence[Tensor], precision: Precision, folder: Path, stop: Stop
    ) -> None:
        """Write the network for windows of these shapes, as the runtime has it, into a folder.

        What takes long ends with StoppedError where `stop` is set.
        """
        ...

    def load(self, folder: Path, windows: Sequence[Tensor], precision: Precision) -> Infer:
        """What runs it on windows of these shapes; it needs the folder no more."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ConvertedNetwork:
    """A network in a form and a precision: windows in, scores out. It is made at its first call."""

    source: Source
    runtime: Runtime
    precision: Precision = "fp32"
    ready: dict[tuple[Shapes, int], Infer] = field(default_factory=dict, repr=False)
    """What runs windows of a shape with a number of threads."""
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Maps in several threads share the network, and most runtimes serve one at a time."""

    def __call__(self, *windows: Tensor, stop: Stop = None) -> Tensor:
        """(n, c, y, x) float32 scores, the caller's own.

        Args:
            windows: one (n, band, y, x) tensor a band group.
            stop: ends the making, and the waiting for another thread, if it is set.

        Raises:
            ModelError: the runtime does not take the network.
            StoppedError: it was stopped while it was made.
        """
        shapes = shapes_of(windows)
        key = shapes, torch.get_num_threads()
        with self._alone(stop):
            if key not in self.ready:
                if len(self.ready) == _SHAPES:
                    del self.ready[next(iter(self.ready))]  # of those that were tried before the run
                self.ready[key] = self._made(windows, shapes, stop)
            return self.ready[key](windows)

    def setting_up(self, shapes: Shapes, device: torch.device) -> float:
        """Seconds that making what runs such windows takes at least; 0: it is kept, and loaded."""
        return 0.0 if is_kept(self._artefact(shapes, device)) else self.runtime.making(self.source.network)

    def forget(self) -> None:
        """Load what is kept anew at the next call."""
        with self._alone(None):
            self.ready.clear()

    @contextlib.contextmanager
    def _alone(self, stop: Stop) -> Iterator[None]:
        while not self.turn.acquire(timeout=HEARD):
            if stop is not None and stop.is_set():
                raise StoppedError
        try:
            yield
        finally:
            self.turn.release()

    def _artefact(self, shapes: Shapes, device: torch.device) -> Artefact:
        source, runtime = self.source, self.runtime
        return Artefact.of(
            model=source.sha256, shapes=shapes, runtime=runtime_of(runtime.form), torch=torch.__version__,
            citycover=__version__, **runtime.facts(device, self.precision),
        )  # fmt: skip

    def _made(self, windows: Sequence[Tensor], shapes: Shapes, stop: Stop) -> Infer:
        source, runtime = self.source, self.runtime
        artefact = self._artefact(shapes, windows[0].device)
        try:
            with kept(artefact, lambda into: self._make(windows, into, stop)) as folder:
                return runtime.load(folder, windows, self.precision)
        except (CitycoverError, StoppedError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"{runtime.name} cannot run the network of {source.name!r}: {last_line(error)}; "
                "give --form torchscript"
            ) from error

    def _make(self, windows: Sequence[Tensor], folder: Path, stop: Stop) -> None:
        begin = time.perf_counter()
        sizes = ", ".join(str(tuple(window.shape)) for window in windows)
        name = self.source.name
        logger.info(
            "%s makes the network of %r ready for windows of %s, once", self.runtime.name, name, sizes
        )
        self.runtime.make(self.source, windows, self.precision, folder, stop)
        logger.info("%s took %.1f s", self.runtime.name, time.perf_counter() - begin)
