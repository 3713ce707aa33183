"""What a map is asked for, in groups: of many scenes that are mapped alike, only the imagery differs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from citycover.errors import ConfigError
from citycover.evidence.request import LabelRequest
from citycover.files.remote import Place, RemotePath, place_of
from citycover.geometry.tiles import Tile
from citycover.machine.cores import most_processes, most_threads
from citycover.machine.names import check_device_name
from citycover.model.form import FORMS, Form
from citycover.model.precision import PRECISIONS, Precision
from citycover.scene.laying import Laying
from citycover.scene.masking import Masking
from citycover.scene.measure import Measure
from citycover.scene.trust import Trust

COMPRESSIONS = ("zstd", "deflate")

FORMATS = ("cog", "zarr")

_SCHEDULER = re.compile(r"(?:(?:tcp|tls|ucx|wss?)://)?(?:\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):[0-9]{1,5}")
"""As distributed understands it, with its port."""


@dataclass(frozen=True, slots=True)
class Imagery:
    """Files of one scene, and what of them the network sees."""

    files: tuple[str, ...]
    """Raster files, or folders of them; bands are chosen by name unless `bands` says otherwise."""
    bands: tuple[str, ...] | None = None
    """Names, or numbers over all files of a place from 1, in the order of the network; None: by name."""
    nodata: float | None = None
    """Digital number of invalid pixels; None: as the files say."""
    resample: bool = False
    """Read at the model's ground sample distance where the files' own is outside its limits."""
    trust: Trust = field(default_factory=Trust)
    """Which files the files may name in turn."""
    laying: Laying = field(default_factory=Laying)
    """How sheets are laid out, where the files lie at several places."""
    measure: Measure | None = None
    """What numbers of the files mean; None: as they say, where the model has a unit."""
    masking: Masking = field(default_factory=Masking)
    """Which masks of clouds count."""

    def __post_init__(self) -> None:
        """One file may be given as itself, and files as paths."""
        given: object = self.files
        files = (given,) if isinstance(given, (str, Path)) else self.files
        object.__setattr__(self, "files", tuple(map(str, files)))


@dataclass(frozen=True, slots=True)
class Where:
    """The part that is mapped: all of the scene, what lies inside polygons, or a box."""

    aoi: Path | None = None
    """File of polygons."""
    bbox: tuple[float, ...] | None = None
    """West, south, east, north: degrees, or in the scene's CRS where they are no degrees."""
    tile: Tile | None = None
    """A square of a fixed grid on the lattice that `Laying.grid` names, mapped as a part of a whole that goes
    on around it: pixels are those of the whole, nodata where no file is. `aoi` may leave out parts of it."""

    def __post_init__(self) -> None:
        """Raise ConfigError where there are two parts, or a box is none anywhere."""
        if self.bbox is not None and not (
            len(self.bbox) == 4 and all(map(math.isfinite, self.bbox)) and self.bbox[1] < self.bbox[3]
        ):  # west may be larger than east, across 180 degrees: what is what the scene's CRS decides
            raise ConfigError(
                "--bbox takes west,south,east,north with west < east and south < north, "
                f"got {list(self.bbox)}"
            )
        if self.aoi is not None:
            object.__setattr__(self, "aoi", Path(self.aoi))
        if self.aoi is not None and self.bbox is not None:
            raise ConfigError("got both --aoi and --bbox; give one of them")
        if self.bbox is not None and self.tile is not None:
            raise ConfigError("a tile takes polygons (aoi), got a bbox; give the box as a file of polygons")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a map is computed; None leaves the choice to citycover. Lengths are pixels of the finest band."""

    window: int | None = None
    """Longest side of a window."""
    trim: int | None = None
    feather: int | None = None
    block: tuple[int, int] | None = None
    """(y, x) most output pixels of a block; None: as many as keep memory small."""
    batch: int | None = None
    """Windows that go through the network together."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    precision: Precision | Literal["auto"] = "auto"
    """auto: the fastest that flips near-ties only, as far as finding out costs little."""
    form: Form | Literal["auto"] = "auto"
    """What runs the network; auto: torch, or what is known to be faster here and flips near-ties only."""
    threads: int | None = None
    """To compute and to decode with, in a process."""
    memory: float | None = None
    """GiB that a process of the run may hold."""
    workers: int | None = None
    """Processes on this machine, one a device; None: this process alone."""
    scheduler: str | None = None
    """Address of a dask.distributed scheduler whose workers see the same files."""
    work: str | None = None
    """`s3://bucket/prefix` that blocks are kept below until the product is published, so that workers
    elsewhere can write them, and another machine go on; None: with the product, or among the caches."""

    def __post_init__(self) -> None:
        """Raise ConfigError where no run can have such options."""
        for name in ("window", "batch", "threads", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")
        for name in ("trim", "feather"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"--{name} takes pixels, 0 or more, got {value}")
        check_device_name(self.device)
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise ConfigError(f"--memory takes GiB, more than 0, got {self.memory:g}")
        if self.precision not in ("auto", *PRECISIONS):
            raise ConfigError(f"--precision takes auto, {', '.join(PRECISIONS)}; got {self.precision!r}")
        if self.form not in ("auto", *FORMS):
            raise ConfigError(f"--form takes auto, {', '.join(FORMS)}; got {self.form!r}")
        if self.workers is not None and self.scheduler is not None:
            raise ConfigError("got both --workers and --scheduler; give one of them")
        if self.work is not None and not isinstance(_prefix_at(self.work), RemotePath):
            raise ConfigError(f"--work takes a prefix of a bucket, s3://BUCKET/PREFIX; got {self.work!r}")
        if self.scheduler is not None and not _SCHEDULER.fullmatch(self.scheduler):
            raise ConfigError(
                f"--scheduler takes the address of a Dask scheduler, tcp://HOST:8786 (or tls, ucx, ws, wss); "
                f"got {self.scheduler!r}"
            )

    def check_here(self) -> None:
        """Refuse what this machine cannot bear; of a file that was written elsewhere, only once it is used.

        Raises:
            ConfigError: too many threads or processes are asked for.
        """
        if self.threads is not None and self.threads > (most := most_threads()):
            raise ConfigError(
                f"got --threads {self.threads}; this machine takes 1 to {most}; give one a core"
            )
        if self.workers is not None and self.workers > (most := most_processes()):
            raise ConfigError(
                f"got --workers {self.workers}; this machine takes 1 to {most}; give one a core, or a GPU"
            )


@dataclass(frozen=True, slots=True)
class ProductOptions:
    """How the product is written."""

    compress: str = "zstd"
    """Codec of the COGs: zstd, or deflate for old readers."""
    formats: tuple[str, ...] = ("cog",)
    """cog, and zarr for one `landcover.zarr` of all layers beside the COGs."""
    overwrite: bool = False
    """Replace a finished product."""
    restart: bool = False
    """Drop an unfinished run instead of going on with it."""
    verify_seams: bool = False
    """Map some patches once more on a shifted grid, and say how much differs."""

    def __post_init__(self) -> None:
        """Raise ConfigError where no product is written so."""
        if self.compress not in COMPRESSIONS:
            raise ConfigError(f"--compress takes {', '.join(COMPRESSIONS)}; got {self.compress!r}")
        if "cog" not in self.formats or not set(self.formats) <= set(FORMATS):
            raise ConfigError(f"--format takes cog, or cog,zarr; got {','.join(self.formats)!r}")


@dataclass(frozen=True, slots=True)
class MapRequest:
    """A map of one scene into a product folder.

    Examples:
        >>> MapRequest(Imagery(("city.tif",)), Path("product"), engine=EngineOptions(device="cpu")).where.bbox
    """

    imagery: Imagery
    out: Path | RemotePath
    """Folder of the product, or `s3://bucket/prefix`; may be given as text."""
    model: str | tuple[str, ...] | None = None
    """Model file or name of a built-in one; several, with their weights (`a.pt=2`), are averaged; None: the
    built-in that fits the bands."""
    where: Where = field(default_factory=Where)
    engine: EngineOptions = field(default_factory=EngineOptions)
    product: ProductOptions = field(default_factory=ProductOptions)
    labels: LabelRequest | None = None
    """Labels of the place that are evidence beside the network; None: it maps alone."""
    require_hash: str | None = None
    """sha256 that the model file must have, or its first 8 digits or more; None: any."""
    layers: tuple[str, ...] = ()
    """Layers beside the usual ones: probabilities, entropy, second, margin, disagreement."""
    tta: str = "none"
    """How windows are turned, to be mapped once more and averaged: none, flips (4 times) or d4 (8 times)."""

    def __post_init__(self) -> None:
        """The place may be given as text, and one model in a row.

        Raises:
            ConfigError: `out` is no place, or blocks would be kept within the product.
        """
        object.__setattr__(self, "out", place_of(self.out))
        if self.model is not None and not isinstance(self.model, str):
            names = tuple(map(str, self.model))
            object.__setattr__(self, "model", names[0] if len(names) == 1 else names or None)
        work = self.engine.work
        if work is not None and f"{place_of(work)}/".startswith(f"{self.out}/"):
            raise ConfigError(
                f"--work {work} lies in --out {self.out}, which holds the files of the product and nothing "
                "else; give a prefix beside it"
            )

    def facts(self) -> dict[str, Any]:
        """As plain values, for `run.json`."""
        return {name: _plain(value) for name, value in asdict(self).items()} | {"out": str(self.out)}


def _prefix_at(work: str) -> Place | None:
    """What blocks are to be kept below; None: it is no place."""
    try:
        return place_of(work)
    except ConfigError:  # it speaks of products
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
