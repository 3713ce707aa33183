"""Aerial and very-high-resolution imagery as the networks for it meet it: bands and their statistics.

Means and standard deviations are of raw numbers 0..255, from the public trainers of Paraformer and VCNet
(Chesapeake) and of systems descended from them (all others).
"""

from __future__ import annotations

from dataclasses import dataclass

from citycover.model.card import BandGroup

_NAMES = (("red", "R"), ("green", "G"), ("blue", "B"), ("nir", "N", "NIR"))


@dataclass(frozen=True, slots=True)
class AerialStatistics:
    """Mean and standard deviation of red, green, blue and, where there is a fourth, near infrared."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def group(self) -> BandGroup:
        """The band group of a card: invalid pixels are filled with the means."""
        return BandGroup(
            bands=_NAMES[: len(self.mean)],
            dtypes=("uint8", "float32"),
            value_range=(0, 255),
            fill=self.mean,
        )


CHESAPEAKE_RGBN = AerialStatistics((117.67, 130.39, 121.52, 162.92), (39.25, 37.82, 24.24, 60.03))
"""NAIP of the Chesapeake Bay, 1 m."""

POLAND_RGB = AerialStatistics((106.13, 110.64, 95.32), (45.93, 38.80, 33.04))
"""Aerial photographs of Poland, 0.25 to 0.5 m."""

NRW_RGB = AerialStatistics((108.79, 113.64, 106.78), (49.52, 43.63, 41.11))
"""Aerial photographs of North Rhine-Westphalia."""

DFC2021_RGBN_2013 = AerialStatistics((117.00, 130.75, 122.50, 159.30), (38.16, 36.68, 24.30, 66.22))
"""NAIP of Maryland in 2013, of the IEEE GRSS data fusion contest."""

DFC2021_RGBN_2017 = AerialStatistics((72.84, 86.83, 76.78, 130.82), (41.78, 34.66, 28.76, 58.95))
"""The same area in 2017."""

IMAGENET_RGB = AerialStatistics((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""ImageNet's photographs: what their encoders are normalised with, and LoveCS, LoveDA and DAFormer."""
