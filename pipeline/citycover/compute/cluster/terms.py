"""What crosses between client and workers: small, picklable values."""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from citycover.files.store import Store
from citycover.model.joint import MapModel
from citycover.store.names import LEASE
from citycover.version import __version__

if TYPE_CHECKING:
    import torch

    from citycover.evidence.labels import LabelEvidence
    from citycover.model.predictor import Predictor
    from citycover.plan.plan import Block, Plan
    from citycover.read.reader import Reader
    from citycover.scene.area import AreaMask


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker must see, and as what, to take part in a run."""

    run: str
    """Name of the run; topic of its events."""
    store: Store | None = None
    """Where blocks go, and an object that holds the name of the run; None: a run that writes nothing."""
    files: tuple[tuple[str, int], ...] = ()
    """Path and size of every input file."""
    models: tuple[tuple[str, str], ...] = ()
    """Path and sha256 of every model file."""
    versions: tuple[tuple[str, str], ...] = ()
    """What must be equal, by name: see `local_versions`."""
    runtime: str = ""
    """What must run the network, with its version, where it is not torch: see `runtime_of`."""
    device: tuple[str, str] | None = None
    """What is asked for as a device, and the kind that it must be; None: it is not known yet."""

    def held(self) -> bool:
        """True while the store is this run's."""
        if self.store is None:
            return True
        with contextlib.suppress(OSError):
            return self.store.get(LEASE) == self.run.encode()
        return False


@dataclass(frozen=True, slots=True)
class ModelFactory:
    """What maps, on a device: the usual predictor of a run, which the process keeps."""

    model: MapModel

    def __call__(self, device: torch.device, stop: threading.Event | None = None) -> Predictor:
        """Load it, unless it is there; the plan says in which form and precision it computes."""
        from citycover.model.loading import load_predictor

        return load_predictor(self.model, device, stop)


@dataclass(frozen=True, slots=True)
class Work:
    """What all blocks of a run have in common: small, and picklable."""

    terms: Terms
    plan: Plan
    make_predictor: Callable[[torch.device, threading.Event], Predictor]
    """Picklable; called for each piece with what ends it, and keeps what it loads."""
    open_readers: Callable[[], Sequence[Reader]]
    store: Store
    """Of the blocks."""
    area: AreaMask | None = None
    evidence: LabelEvidence | None = None
    device: str = "auto"
    threads: int | None = None
    """Threads to compute with; None: as many as the worker was given."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a worker tells while it computes a piece."""

    piece: str
    """Its name."""
    worker: str
    """Address."""
    windows: int = 0
    """Those that went by since the sign before."""
    block: tuple[int, int] | None = None
    """(row, column) of one that is safe."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker did of the blocks that it was handed."""

    worker: str
    """Address."""
    windows: dict[str, int] = field(default_factory=dict)
    """By the names of `WINDOWS`."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by stage."""
    peak_rss: int = 0
    """Bytes of memory that the worker held at most so far."""
    rest: tuple[Block, ...] = ()
    """What it handed back; all others are in the ledger."""
    trouble: str = ""
    """What kept it from the rest, and may not keep another try."""
    unfit: str = ""
    """Why it cannot take part at all."""


def local_versions() -> tuple[tuple[str, str], ...]:
    """Versions that must be the same everywhere, so that every worker computes the same pixels."""
    python = ".".join(platform.python_version_tuple()[:2])
    return (("python", python), ("torch", version("torch")), ("citycover", __version__))
