"""How much of a map depends on where its windows happen to lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seams:
    """How much of the map depends on where its windows lie."""

    at_seams: float | None
    """Share of pixels near a handover whose class differs; None: there was none to compare."""
    interior: float | None
    """The same for all other pixels."""
    pixels: int
    """Pixels compared: valid in both."""
