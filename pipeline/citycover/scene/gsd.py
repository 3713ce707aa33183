"""Whether pixels have the size that a model was made for, and how the scene is read where they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from odc.geo.geobox import GeoBox

from citycover.geometry.grid import coarser_grid, ground_sample_distance, pixel_ground_size, resampled_grid
from citycover.model.card import ModelCard
from citycover.scene.scene import SceneGroup

_GSD_SLACK = 0.01
"""Relative: map projections stretch by up to this, and no network notices it."""

_SQUARE_SLACK = 0.05
"""Relative difference of the sides of a pixel that still counts as square: less than networks are trained to
bear. Pixels in degrees are never square on the ground and are judged by the limits of the GSD alone."""


def gsd_mismatch(grid: GeoBox, card: ModelCard) -> str | None:
    """Why pixels are too small, too large or too oblong for a model."""
    if card.gsd is None:
        return None
    low, high = card.gsd
    height, width = pixel_ground_size(grid)
    remedy = f"--resample reads it at {_native(card):g} m, or {card.instead}"
    if not (low * (1 - _GSD_SLACK) <= min(height, width) and max(height, width) <= high * (1 + _GSD_SLACK)):
        return (
            f"pixels of the scene are {width:.4g} x {height:.4g} m on the ground; "
            f"{card.called} needs {low:g} to {high:g} m; {remedy}"
        )
    oblong = abs(height / width - 1) > _SQUARE_SLACK
    if oblong and not (grid.crs is not None and grid.crs.geographic):
        return (
            f"pixels of the scene are {width:.4g} m wide and {height:.4g} m high; "
            f"{card.called} needs square ones; {remedy}"
        )
    return None


def _native(card: ModelCard) -> float:
    """The GSD that `--resample` reads at: the card's own, else the middle of its limits."""
    assert card.gsd is not None, "asked only where the card has limits"
    return card.native_gsd or math.sqrt(card.gsd[0] * card.gsd[1])


def resample_groups(groups: Sequence[SceneGroup], card: ModelCard) -> tuple[tuple[SceneGroup, ...], str]:
    """Lay all groups on a grid of the card's GSD and its multiples.

    Larger pixels are averages of all that they cover; smaller ones are interpolated.
    """
    fine_grid = groups[0].grid
    old = ground_sample_distance(fine_grid)
    target = _native(card)
    grid = resampled_grid(fine_grid, target)
    resized = []
    for group in groups:
        own = grid if group.ratio == 1 else coarser_grid(grid, group.ratio)
        scale = target / old
        block = (max(1, round(group.block[0] / scale)), max(1, round(group.block[1] / scale)))
        resized.append(replace(group, grid=own, lattice=group.grid, block=block))
    return tuple(resized), "average" if target > old else "bilinear"
