"""Mean and deviation of the bands of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from citycover.errors import ConfigError
from citycover_models.data.batches import ATTEMPTS
from citycover_models.data.chips import ChipReader
from citycover_models.data.labels import IGNORE
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import SamplePlan
from citycover_models.imagery.aerial import AerialStatistics


def measure_statistics(pairs: Sequence[Pair], plan: SamplePlan, chips: int = 48) -> AerialStatistics:
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
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return AerialStatistics(
        tuple(round(float(m), 3) for m in mean), tuple(max(round(float(d), 3), 1e-3) for d in deviation)
    )
