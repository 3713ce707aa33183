"""Mean and deviation of the bands of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citycover.errors import ConfigError
from citycover_models.data.batches import ATTEMPTS
from citycover_models.data.chips import ChipReader
from citycover_models.data.labels import IGNORE
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import SamplePlan
from citycover_models.imagery.aerial import AerialStatistics

_NOISE = 1e-6
"""Deviation in means that summing up leaves of numbers that are all the same."""

_LEAST = 1e-3
"""Deviation of a band that shows one number everywhere: it is divided by."""

_KIND = 4.0
"""Times the deviation of every band from which on numbers are of another kind."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What chips show, to all digits."""

    mean: NDArray[np.float64]
    """(band,)."""
    deviation: NDArray[np.float64]
    """(band,)."""

    @property
    def rounded(self) -> AerialStatistics:
        """As networks and cards hold them: to three decimals, or to a hundredth of a small deviation."""
        live = self.deviation > _NOISE * np.abs(self.mean)
        places = [
            max(3, 2 - math.floor(math.log10(d))) if d > 0 else 3 for d in np.where(live, self.deviation, 0)
        ]
        bands = list(zip(self.mean.tolist(), self.deviation.tolist(), places, live, strict=True))
        return AerialStatistics(
            tuple(round(mean, digits) for mean, _, digits, _ in bands),
            tuple(round(deviation, digits) if alive else _LEAST for _, deviation, digits, alive in bands),
        )


def are_of_other_kinds(one: AerialStatistics, other: AerialStatistics) -> bool:
    """Whether numbers mean light in units of their own: 16 bits beside 8, reflectance beside counts.

    Scenes of one kind differ in deviation by a factor of 2 or so.

    >>> eight, sixteen = AerialStatistics((90, 80), (30, 20)), AerialStatistics((3600, 3200), (1200, 900))
    >>> are_of_other_kinds(eight, sixteen), are_of_other_kinds(sixteen, eight)
    (True, True)
    >>> are_of_other_kinds(eight, AerialStatistics((200, 300), (50, 100)))
    False
    """
    shares = [there / here for here, there in zip(one.std, other.std, strict=True)]
    return min(shares) > _KIND or max(shares) < 1 / _KIND


def measure_statistics(pairs: Sequence[Pair], plan: SamplePlan, chips: int = 48) -> AerialStatistics:
    """What `measure_bands` finds, rounded."""
    return measure_bands(pairs, plan, chips).rounded


def measure_bands(pairs: Sequence[Pair], plan: SamplePlan, chips: int = 48) -> Measured:
    """Mean and standard deviation of each band over chips of the first epoch, without invalid pixels.

    Raises:
        ConfigError: no valid pixel of these chips has a label.
    """
    bands = len(pairs[0].scene.groups[0].bands)
    reader = ChipReader(pairs, [float("nan")] * bands)
    count, total, squares = 0, np.zeros(bands), np.zeros(bands)
    for attempt in range(ATTEMPTS):
        for index in range(min(chips, plan.chips_per_epoch)):
            pixels, channels = reader.read(plan.draw(0, index, attempt))
            values = pixels[channels != IGNORE].astype(np.float64)
            count += len(values)
            total += values.sum(0)
            squares += (values**2).sum(0)
        if count:
            break
    else:
        raise ConfigError(
            "no chip holds a valid pixel with a label: the images are nodata where they have labels; needed "
            "is imagery with pixels there; check --nodata, and the images with `citycover inspect`"
        )
    mean = total / count
    return Measured(mean, np.sqrt(np.maximum(squares / count - mean**2, 0)))
