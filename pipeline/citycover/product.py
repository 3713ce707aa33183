"""map_scene: from files to a product folder. The facade for the command line and for Python users.

prepare (describe, choose the model, plan) -> settle (device, precision, batch) -> blocks into the working
store -> publish. Preparing reads no pixel; everything after it is recorded in `run.json`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from citycover.area import Area, area_of_box, read_area
from citycover.builtins import find_model, read_builtins
from citycover.errors import ConfigError, SceneError
from citycover.io.collar import constant_border
from citycover.io.describe import describe_scene, fits
from citycover.io.fileinfo import describe_files
from citycover.io.folder import ProductFolder, check_folder, machine_errors
from citycover.io.reader import Hole
from citycover.modelfile import ModelFile, read_model_file
from citycover.planning import Block, Plan, PlanOptions, PlanTotals, make_plan
from citycover.scene import Scene

logger = logging.getLogger(__name__)

_COLLAR_SHARE = 0.01
"""Share of a scene in one constant touching its border, above which nodata is probably untagged."""


@dataclass(frozen=True, slots=True)
class MapRequest:
    """What the user asked for; None leaves the choice to citycover."""

    scene: tuple[str, ...]
    """Raster files of one place; their bands are chosen by name unless `bands` says otherwise."""
    out: Path
    model: str | None = None
    bands: tuple[str, ...] | None = None
    nodata: float | None = None
    aoi: Path | None = None
    bbox: tuple[float, ...] | None = None
    window: int | None = None
    trim: int | None = None
    feather: int | None = None
    batch: int | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    memory: float | None = None
    """GiB that a process of the run may hold."""
    workers: int | None = None
    """Processes on this machine, one a device; None: this process alone."""
    scheduler: str | None = None
    """Address of a dask.distributed scheduler whose workers see the same files."""
    compress: str = "zstd"
    resample: bool = False
    overwrite: bool = False
    restart: bool = False
    verify_seams: bool = False
    """Map some patches once more on a shifted grid, and say how much differs."""

    def facts(self) -> dict[str, Any]:
        """As plain values, for `run.json`."""
        return {
            k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
            for k, v in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was understood: nothing was read but metadata."""

    request: MapRequest
    model: ModelFile
    scene: Scene
    area: Area | None
    plan: Plan
    """Windows and blocks; batch and precision are settled when the network is loaded."""

    @property
    def totals(self) -> PlanTotals:
        """Bytes to read, to write, to hold."""
        return PlanTotals(self.plan, self.scene, len(self.model.card.channels))

    def identity(self, plan: Plan) -> dict[str, str]:
        """Named parts that decide every pixel of the product."""
        return {"plan": plan.identity, **self.given}

    @property
    def given(self) -> dict[str, str]:
        """The part of the identity that is known before window, batch and precision are settled."""
        from citycover import __version__

        return {
            "model": self.model.sha256,
            "scene": self.scene.identity,
            "area": self.area.identity if self.area else "",
            "citycover": __version__,
        }


@dataclass(frozen=True, slots=True)
class Watch:
    """How a run is followed and stopped from outside."""

    started: Callable[[Plan, int], None] = lambda _plan, _done: None
    """Called once with the settled plan and the number of output pixels that an earlier run finished."""
    predicted: Callable[[int], None] = lambda _windows: None
    """Called with the number of windows that went by, run or skipped, after each row of them."""
    advanced: Callable[[Block], None] = lambda _block: None
    """Called after each finished block, from the writer's thread."""
    publishing: Callable[[], None] = lambda: None
    """Called when all blocks are there."""
    connected: Callable[[str], None] = lambda _line: None
    """Called with a line about the cluster, if there is one: workers, dashboard, logs."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it, and the run ends after the batch in hand with StoppedError."""


@dataclass(frozen=True, slots=True)
class Product:
    """What a run left."""

    folder: Path
    files: tuple[Path, ...]
    holes: tuple[Hole, ...]
    """What could not be read; nodata in the product."""
    shares: dict[str, float]
    """Share of each class in the valid pixels, by name."""
    run: dict[str, Any]
    """Content of run.json."""


def prepare(request: MapRequest) -> Job:
    """Understand a request: model, scene, area, windows. Reads metadata only.

    Raises:
        CitycoverError: anything the user can mend.
    """
    if request.compress not in ("zstd", "deflate"):
        raise ConfigError(f"--compress takes zstd or deflate, got {request.compress!r}")
    if request.aoi is not None and request.bbox is not None:
        raise ConfigError("got both --aoi and --bbox; give one of them")
    if request.workers is not None and request.scheduler is not None:
        raise ConfigError("got both --workers and --scheduler; give one of them")
    model = read_model_file(find_model(request.model)) if request.model else _fitting_builtin(request)
    scene = describe_scene(
        request.scene, model.card, bands=request.bands, nodata=request.nodata, resample=request.resample
    )
    area = None
    if request.aoi is not None:
        area = read_area(request.aoi, scene.grid)
    elif request.bbox is not None:
        area = area_of_box(request.bbox, scene.grid)
    return Job(request, model, scene, area, plan_windows(request, model, scene, area, request.window))


def plan_windows(
    request: MapRequest, model: ModelFile, scene: Scene, area: Area | None, window: int | None
) -> Plan:
    """The plan of a request in windows of a length; None: the card's.

    Raises:
        PlanError: window, trim or feather contradict each other or the card.
    """
    options = PlanOptions(window, request.trim, request.feather, request.batch)
    return make_plan(scene, model.card, options, area.part if area else None)


def _fitting_builtin(request: MapRequest) -> ModelFile:
    """The first built-in model that takes the scene as it is."""
    files = describe_files(request.scene)
    for info in files:
        if info.obstacle:
            raise SceneError(info.obstacle)
    reasons = []
    for model in read_builtins():
        why = fits(model.card, files, bands=request.bands)
        if why is None:
            logger.info("no --model given: %s fits the bands of the scene", model.card.name)
            return model
        reasons.append(f"  {model.card.name}: {why}")
    raise SceneError(
        "no built-in model fits the scene; give --model, or name its bands with --bands\n"
        + "\n".join(reasons)
    )


def warn_of_collar(job: Job) -> str | None:
    """A warning where nodata seems to be hidden as an untagged constant, else None."""
    if job.request.nodata is not None:
        return None
    value, share = constant_border(job.scene)
    if value is None or share <= _COLLAR_SHARE:
        return None
    return (
        f"{share:.0%} of the scene is {value:g} in every band and touches its border, and no nodata is "
        f"declared; if that is nodata, give --nodata {value:g}"
    )


def map_scene(request: MapRequest, watch: Watch | None = None) -> Product:
    """Map a scene into a product folder; goes on where an unfinished run of the same identity stopped.

    Raises:
        CitycoverError: anything the user can mend; nothing that was finished is lost.
        StoppedError: `watch.stop` was set.
    """
    begin = time.perf_counter()
    watch = watch or Watch()
    check_folder(request.out, overwrite=request.overwrite)
    job = prepare(request)
    if warning := warn_of_collar(job):
        logger.warning(warning)
    from citycover.running import run_job  # torch is imported here, after everything cheap has passed

    with (
        machine_errors(request.out),
        ProductFolder(request.out, overwrite=request.overwrite, restart=request.restart) as folder,
    ):
        return run_job(job, folder, watch, begin)


def split_bands(text: str | None) -> tuple[str, ...] | None:
    """`B4,B3,B2` as a tuple; None stays None."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def parse_bbox(text: str | None) -> tuple[float, ...] | None:
    """`west,south,east,north` as numbers.

    Raises:
        ConfigError: they are no numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--bbox takes west,south,east,north as numbers, got {text!r}") from None


def holes_by_file(holes: Sequence[Hole]) -> list[dict[str, Any]]:
    """Holes as plain values, for `run.json`."""
    return [{**asdict(h.window), "path": h.path, "reason": h.reason} for h in holes]
