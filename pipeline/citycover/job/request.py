"""What a map is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from citycover.errors import ConfigError
from citycover.model.precision import Precision
from citycover.scene.trust import Trust


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
    precision: Precision | Literal["auto"] = "auto"
    threads: int | None = None
    memory: float | None = None
    """GiB that a process of the run may hold."""
    workers: int | None = None
    """Processes on this machine, one a device; None: this process alone."""
    scheduler: str | None = None
    """Address of a dask.distributed scheduler whose workers see the same files."""
    compress: str = "zstd"
    block: tuple[int, int] | None = None
    """(y, x) most output pixels of a block; None: as many as keep memory small."""
    resample: bool = False
    overwrite: bool = False
    restart: bool = False
    allow_remote: bool = False
    """Files of the scene may name others across the network."""
    allow_paths: tuple[str, ...] = ()
    """Folders, beside their own, below which files of the scene may name others."""
    verify_seams: bool = False
    """Map some patches once more on a shifted grid, and say how much differs."""

    @property
    def trust(self) -> Trust:
        """Which files the files of the scene may name in turn."""
        return Trust(self.allow_remote, tuple(Path(folder) for folder in self.allow_paths))

    def facts(self) -> dict[str, Any]:
        """As plain values, for `run.json`."""
        return {
            k: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v
            for k, v in asdict(self).items()
        }


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
