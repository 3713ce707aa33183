"""PatchSet: which patches a training learns from, is validated with and is tested on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from citycover.classes.legend import Legend
from citycover.errors import ConfigError
from citycover_models.data.bigearthnet import read_bigearthnet
from citycover_models.data.patches import Patch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PatchSet:
    """Patches with their roles."""

    legend: Legend
    train: tuple[Patch, ...]
    validation: tuple[Patch, ...]
    """Of the regions that are trained on; may be empty."""
    test: tuple[Patch, ...]
    """Of the regions to be tested on; never learned from or stopped by; may be empty."""
    version: str
    """`v1` or `v2`."""
    regions: tuple[str, ...]
    """That are trained on; empty: all."""
    test_regions: tuple[str, ...]
    shards: Path | None = None
    """Store of decoded patches, made where it is missing; None: patches are decoded as they are read."""

    @property
    def has_references(self) -> bool:
        """Whether every patch has a class for each pixel."""
        return all(patch.reference for patch in self.train)


def prepare_patches(
    folder: Path,
    *,
    to: str | None = None,
    regions: Sequence[str] = (),
    test_regions: Sequence[str] = (),
    share: float = 1.0,
    seed: int = 0,
    shards: Path | None = None,
) -> PatchSet:
    """Choose patches of a BigEarthNet folder.

    Args:
        folder: of v1 or v2.
        to: legend to learn; None: `bigearthnet19`.
        regions: to train on, and to validate with; empty: all.
        test_regions: to test on; empty: those that are trained on.
        share: of the training patches, drawn by `seed`: to learn from few.
        seed: of the draw.
        shards: see `PatchSet`.

    Raises:
        ConfigError: the folder, a region or a split does not hold what is needed.
    """
    found = read_bigearthnet(folder, to)
    known = sorted({patch.region for patch in found.patches})
    for region in (*regions, *test_regions):
        if region not in known:
            there = ", ".join(filter(None, known)) or "none"
            raise ConfigError(f"there is no region {region!r} in {folder}; there are: {there}")
    ours = [p for p in found.patches if not regions or p.region in regions]
    theirs = [p for p in found.patches if p.region in test_regions] if test_regions else ours
    train = _drawn([p for p in ours if p.split == "train"], share, seed)
    if not train:
        raise ConfigError(
            f"no patch of {', '.join(regions) or folder} is in the training split; add a region"
        )
    if not found.own_splits:
        logger.warning(
            "%s has no train.csv, val.csv and test.csv: squares of 12 km are drawn into splits instead",
            folder,
        )
    unlabelled = sum(not patch.labels for patch in train)
    if unlabelled == len(train):
        raise ConfigError(
            f"no training patch of {', '.join(regions) or folder} has a label of legend {found.legend.name}; "
            "needed is one at least; add a region, or fetch the labels again"
        )
    if unlabelled:
        logger.warning("%d training patches have no label of legend %s", unlabelled, found.legend.name)
    return PatchSet(
        legend=found.legend,
        train=train,
        validation=tuple(p for p in ours if p.split == "validation"),
        test=tuple(p for p in theirs if p.split == "test"),
        version=found.version,
        regions=tuple(regions),
        test_regions=tuple(test_regions) or tuple(regions),
        shards=shards,
    )


def _drawn(patches: Sequence[Patch], share: float, seed: int) -> tuple[Patch, ...]:
    """A share of the patches in their order, at least one."""
    if not 0 < share <= 1:
        raise ConfigError(f"--share {share} is no share; give a number above 0, up to 1")
    count = min(len(patches), math.ceil(share * len(patches)))
    drawn = np.random.default_rng([seed, 1]).permutation(len(patches))[:count]
    return tuple(patches[i] for i in sorted(drawn.tolist()))
