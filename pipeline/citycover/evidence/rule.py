"""How far labels are believed beside the network.

The network's evidence is `P / prior` to the power of `strength`; the labels' is their smoothed one-hot, mixed
with their overall shares as far as they are noise. Clean labels bound what the network may say and are read
sharply; of noisy ones a wider surrounding is believed, and the network more.
"""

from __future__ import annotations

from dataclasses import dataclass

_CLEAN, _NOISY = 0.1, 0.2
"""Noise up to which labels count as clean, and from which on as noisy; in between lies a straight line."""

_UNKNOWN = 0.75
"""Power of what network and labels say together where the noise of the labels is not known."""

PARTS = 8
"""A strength is a whole number of these parts: such powers are made of square roots, which every device
rounds alike, while no two libraries agree on the last bit of another power."""

ENOUGH_CELLS = 1000
"""Labelled cells on which a measured noise must rest; with fewer the measure itself is noise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Strength of the network's evidence and width of the labels', from the noise of the labels.

    >>> Rule(0.05), Rule(0.05).strength, Rule(0.05).sigma
    (Rule(noise=0.05, measured=True), 0.5, 0.0)
    >>> round(Rule(0.3).strength, 2), round(Rule(0.3).sigma, 2), Rule(0.05).sharpness, Rule(0.3).sharpness
    (1.25, 0.7, 1.0, 1.375)
    """

    noise: float
    """Share of the labels that is wrong, 0 to 1; the labels are trusted by 1 - noise."""
    measured: bool = True
    """False: there are too few labels to know, and what is said of them is said with less confidence."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(f"the noise of labels is a share, 0 to 1, got {self.noise}")

    @property
    def doubt(self) -> float:
        """0: labels count as clean, 1: as noisy."""
        return min(1.0, max(0.0, (self.noise - _CLEAN) / (_NOISY - _CLEAN)))

    @property
    def strength(self) -> float:
        """Power of the network's evidence: neighbouring pixels say much the same, so below 1 at first."""
        return round((0.5 + 0.75 * self.doubt) * PARTS) / PARTS

    @property
    def sharpness(self) -> float:
        """Power of what both say together, which changes no class and makes confidence meant as it is said.

        Where labels are noisy, a label is right more often than its noise allows where the network says the
        same: without this, confidence was 5 to 10 % too low on practice cities and real places alike. Where
        nobody knows how noisy they are it was 6 to 14 % too high.
        """
        if not self.measured:
            return _UNKNOWN
        return round((1 + 0.375 * self.doubt) * PARTS) / PARTS

    @property
    def sigma(self) -> float:
        """Width in cells of the Gaussian that labels are smoothed by; 0: bilinear between cell centres."""
        return 0.35 + 0.35 * self.doubt if self.doubt > 0 else 0.0
