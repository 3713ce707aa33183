"""Land cover from published spectral indices: the built-in models, which need no training.

Five classes (legend `landcover5`) by a soft decision tree. Each question compares an index with a threshold
through a sigmoid, so the probabilities of the leaves sum to one, and the logits are their logarithms:

    water? ── yes ─▶ water
      └ no ─ vegetation? ── yes ─ dense? ── yes ─▶ dense vegetation
               │                    └ no ─▶ sparse vegetation
               └ no ─ bare? ── yes ─▶ bare
                        └ no ─▶ built-up

Indices, nearly all of them ratios, so that gain (sun, exposure) cancels:

- NDVI = (N - R) / (N + R): Rouse et al. 1974, "Monitoring vegetation systems in the Great Plains with ERTS",
  NASA SP-351; Tucker 1979, Remote Sens. Environ. 8:127-150.
- NDWI = (G - N) / (G + N): McFeeters 1996, Int. J. Remote Sens. 17:1425-1432.
- Excess green ExG = 2g - r - b of the chromatic coordinates r, g, b = R, G, B / (R + G + B), for imagery
  without near infrared: Woebbecke et al. 1995, Trans. ASAE 38:259-269.
- Saturation SI = (R - B) / (R + B) and brightness BI = sqrt((R^2 + G^2 + B^2) / 3), the colour of soils:
  Mathieu et al. 1998, Remote Sens. Environ. 66:17-28. Soil is warm; asphalt and most roofs are grey.

Choices of ours, which no paper gives:

- Thresholds are constants, set by eye on NAIP, WorldView-3 and Sentinel-2 scenes. Nothing is estimated from
  the window, or windows would differ along their seams.
- Bands are smoothed (5 x 5 binomial) before the ratios. Roughness, the smoothed absolute difference between a
  brightness and its smoothed self, tells still water and fields from shadows, roofs and streets.
- Water must be dark in near infrared too: in 8-bit imagery fresh asphalt and shadow have an NDWI above zero.
- Sentinel-2 numbers carry +1000 since processing baseline 04.00, and nothing before it or where a provider
  took it out; the pixels alone do not tell which (a winter scene of 2017 has no number below 900 within 160 m
  of a third of its pixels). So nothing is subtracted, and the thresholds lie where both kinds of numbers pass
  them: the offset shrinks an NDVI of 0.8 to about 0.5 and leaves bare ground below 0.25.
- Bare and built-up overlap in four bands, and without near infrared so do water and shadow, leafless trees
  and soil. The cards say so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RADIUS = 4
"""Pixels that one output pixel sees to each side: two binomials of radius 2, one after the other."""

# 1e-4 below keeps ratios of black pixels and logarithms of certainties finite; TorchScript has no globals.


def normalized_difference(a: Tensor, b: Tensor) -> Tensor:
    """(a - b) / (a + b), -1..1; 0 where both are black."""
    return (a - b) / (a + b + 1e-4)


def excess_green(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Woebbecke's excess green of the chromatic coordinates, -1..2; 0 for grey."""
    return (2.0 * green - red - blue) / (red + green + blue + 1e-4)


def leaves(water: Tensor, vegetation: Tensor, dense: Tensor, bare: Tensor) -> Tensor:
    """Logits (n, 5, y, x) of the tree's leaves from the answers to its questions, (n, 1, y, x) each."""
    dry = 1.0 - water
    green = dry * vegetation
    ground = dry * (1.0 - vegetation)
    p = torch.cat([water, green * dense, green * (1.0 - dense), ground * bare, ground * (1.0 - bare)], dim=1)
    return torch.log(p + 1e-4)


class Question(nn.Module):
    """Probability that a value lies above the threshold; below it, if softness is negative."""

    def __init__(self, threshold: float, softness: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.softness = softness

    def forward(self, value: Tensor) -> Tensor:
        """Any shape, 0..1."""
        return torch.sigmoid((value - self.threshold) / self.softness)


class Smooth(nn.Module):
    """5 x 5 binomial filter of each band: two depthwise passes with zero padding."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.across: Tensor  # annotated here: TorchScript cannot resolve class-level annotations in strings
        self.down: Tensor
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
        self.register_buffer("across", taps.view(1, 1, 1, 5).repeat(bands, 1, 1, 1))
        self.register_buffer("down", taps.view(1, 1, 5, 1).repeat(bands, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, band, y, x) to the same shape."""
        x = F.conv2d(x, self.across, padding=[0, 2], groups=self.bands)
        return F.conv2d(x, self.down, padding=[2, 0], groups=self.bands)


class Surface(nn.Module):
    """What every tree looks at: smoothed bands, their brightness, and how rough the brightness is."""

    def __init__(self, bands: int, full: float) -> None:
        """`full` is the number that stands for a reflectance of 1."""
        super().__init__()
        self.full = full
        self.smooth = Smooth(bands)
        self.smooth_one = Smooth(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw numbers (n, band, y, x), visible bands first, to bands, brightness and roughness."""
        x = x.float().clamp(min=0.0) / self.full
        bands = self.smooth(x)
        bright = self._brightness(bands)
        rough = self.smooth_one((self._brightness(x) - bright).abs())
        return bands, bright, rough

    def _brightness(self, x: Tensor) -> Tensor:
        red, green, blue = x[:, 0:1], x[:, 1:2], x[:, 2:3]
        return torch.sqrt((red * red + green * green + blue * blue) / 3.0)


class SpectralNir(nn.Module):
    """The tree for red, green, blue and near infrared, in this order."""

    def __init__(self, full: float, questions: dict[str, Question], grain: float) -> None:
        """Set up.

        Args:
            full: number that stands for a reflectance of 1.
            questions: `wet` (NDWI), `dim` (near infrared), `vegetation` and `dense` (NDVI), `warm` (SI).
            grain: how much relative roughness counts against warm colour: fields are smooth.
        """
        super().__init__()
        self.surface = Surface(4, full)
        self.wet = questions["wet"]
        self.dim = questions["dim"]
        self.vegetation = questions["vegetation"]
        self.dense = questions["dense"]
        self.warm = questions["warm"]
        self.grain = grain

    def forward(self, x: Tensor) -> Tensor:
        """Raw numbers (n, 4, y, x) to logits (n, 5, y, x)."""
        bands, bright, rough = self.surface(x)
        red, green, blue, nir = bands[:, 0:1], bands[:, 1:2], bands[:, 2:3], bands[:, 3:4]
        ndvi = normalized_difference(nir, red)
        saturation = normalized_difference(red, blue)
        water = self.wet(normalized_difference(green, nir)) * self.dim(nir)
        bare = self.warm(saturation - self.grain * rough / (bright + 0.02))
        return leaves(water, self.vegetation(ndvi), self.dense(ndvi), bare)


class SpectralRgb(nn.Module):
    """The tree for red, green and blue, in this order; 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.surface = Surface(3, 255.0)
        self.black = Question(0.11, -0.015)  # brightness
        self.still = Question(0.015, -0.003)  # roughness
        self.vegetation = Question(0.10, 0.02)  # excess green
        self.shady = Question(0.25, -0.03)  # brightness: canopies shade themselves, lawns do not
        self.warm = Question(0.12, 0.03)  # saturation, less roughness
        self.grain = 0.2

    def forward(self, x: Tensor) -> Tensor:
        """Raw numbers (n, 3, y, x) to logits (n, 5, y, x)."""
        bands, bright, rough = self.surface(x)
        red, green, blue = bands[:, 0:1], bands[:, 1:2], bands[:, 2:3]
        water = self.black(bright) * self.still(rough)
        vegetation = self.vegetation(excess_green(red, green, blue))
        bare = self.warm(normalized_difference(red, blue) - self.grain * rough / (bright + 0.02))
        return leaves(water, vegetation, self.shady(bright), bare)


def build_rgbn() -> SpectralNir:
    """8-bit aerial imagery, stretched by its provider: NDVI is smaller than of reflectances."""
    questions = {
        "wet": Question(0.15, 0.04),
        "dim": Question(0.23, -0.02),
        "vegetation": Question(0.13, 0.03),
        "dense": Question(0.35, 0.04),
        "warm": Question(0.07, 0.03),
    }
    return SpectralNir(255.0, questions, grain=0.5)


def build_s2() -> SpectralNir:
    """Sentinel-2 digital numbers, with the offset of baseline 04.00 or without; haze makes soils bluer."""
    questions = {
        "wet": Question(0.0, 0.02),
        "dim": Question(0.15, -0.015),
        "vegetation": Question(0.25, 0.03),
        "dense": Question(0.42, 0.04),
        "warm": Question(-0.13, 0.03),
    }
    return SpectralNir(10000.0, questions, grain=1.5)


def build_rgb() -> SpectralRgb:
    """8-bit true-colour imagery."""
    return SpectralRgb()
