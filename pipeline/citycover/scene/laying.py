"""How several sheets, and several dates, become one scene, as it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from citycover.errors import ConfigError
from citycover.model.kernel import KERNELS, Kernel

Overlap = Literal["first", "newest", "nearest-centre", "feather"]
"""What counts where sheets overlap: the first that is valid, in the order given or by date; the one whose
centre is nearest; or all, weighed by the distance to their edges."""

OVERLAPS: tuple[Overlap, ...] = ("first", "newest", "nearest-centre", "feather")

Composite = Literal["latest", "median", "best", "mean-probability"]
"""What becomes of several dates, pixel by pixel, of those that are valid there: the latest; the median of
each band; the one whose bands lie nearest to these medians (the medoid); or each is mapped, and probabilities
are averaged."""

COMPOSITES: tuple[Composite, ...] = ("latest", "median", "best", "mean-probability")


@dataclass(frozen=True, slots=True)
class Laying:
    """How sheets are laid out; None leaves it to citycover."""

    overlap: Overlap | None = None
    """What counts where sheets overlap; None: the first, but sheets of the same place are refused."""
    grid: str | None = None
    """A raster whose lattice is taken, `EPSG:32633` or `EPSG:32633/10`; None: that of most sheets."""
    resampling: Kernel | None = None
    """How sheets of another lattice are read; None: averaged where they are finer, else bilinear."""
    composite: Composite | None = None
    """What becomes of several dates (days in UTC); None: all sheets are of one date, or `overlap` decides."""

    def __post_init__(self) -> None:
        """Raise ConfigError where sheets cannot be laid out so."""
        if self.overlap is not None and self.overlap not in OVERLAPS:
            raise ConfigError(f"--overlap takes {', '.join(OVERLAPS)}; got {self.overlap!r}")
        if self.resampling is not None and self.resampling not in KERNELS:
            raise ConfigError(f"--resampling takes {', '.join(KERNELS)}; got {self.resampling!r}")
        if self.composite is not None and self.composite not in COMPOSITES:
            raise ConfigError(f"--composite takes {', '.join(COMPOSITES)}; got {self.composite!r}")
