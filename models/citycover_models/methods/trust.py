"""How far batch statistics of a target are trusted, settled without a label of it: by other light.

The target's statistics take out how its sensor sees, and what there is on the ground with it: they gain where
places are alike and harm where they are not. Between the two lie, for every normalisation,

    mean = (1 - s) mean_source + s mean_target      the same for the variance; s: the share that is trusted

(You et al. 2021, alpha-BN, https://arxiv.org/abs/2110.04065; Schneider et al. 2020,
https://arxiv.org/abs/2006.16971, with a share that is given). Which share is citycover's own question:

    chips of the target ──┬─ as they are ──────────▶ classes ─┐
                          └─ darker, and brighter ─▶ classes ─┴─▶ agreement beyond chance, of each share

Statistics that fit leave classes where they are in other light. Cohen's kappa, not plain agreement, because a
map of nearly one class agrees with itself and says nothing.

A training that looks several times adds up what it found, as a network that has learned its own labels of
the target agrees with itself by any statistics: what it said before counts as much.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from citycover_models.blocks.domain_norm import TARGET, blend_domains, set_domain
from citycover_models.data.batches import LabelledBatch
from citycover_models.data.labels import IGNORE

logger = logging.getLogger(__name__)

Steadiness = Mapping[float, float]
"""Agreement in other light by share."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Those that are tried."""

LIGHTS = (0.85, 1.15)
"""What numbers of a chip are multiplied by."""

CHIPS = 16
"""By how many it is settled: with four times as many other shares were found, and no better ones."""


def kappa(table: Tensor) -> float:
    """Cohen's kappa of a (class, class) table of counts: 1 all agree, 0 as by chance, also of one class.

    >>> kappa(torch.tensor([[4, 0], [0, 4]])), kappa(torch.tensor([[2, 2], [2, 2]]))
    (1.0, 0.0)
    >>> kappa(torch.tensor([[8, 0], [0, 0]]))
    0.0
    """
    shares = table.double() / table.sum().clamp(min=1)
    chance = float(shares.sum(0) @ shares.sum(1))
    return (float(shares.trace()) - chance) / (1 - chance) if chance < 1 else 0.0


def steadiness(network: nn.Module, chips: Sequence[LabelledBatch]) -> float:
    """Kappa between the classes of chips and those of the same chips in other light.

    Args:
        network: raw (n, band, y, x) -> scores (n, class, y, x).
        chips: pixels without a label, where the image is invalid, do not count.
    """
    total = torch.zeros(())
    with torch.no_grad():
        for batch in chips:
            valid, images = batch.labels != IGNORE, batch.images.float()
            scores = network(images)
            classes, own = scores.shape[1], scores.argmax(1)[valid]
            for light in LIGHTS:
                other = network(images * light).argmax(1)[valid]
                pairs = torch.bincount(own * classes + other, minlength=classes * classes)
                total = total + pairs.view(classes, classes).cpu()
    return kappa(total)


def look(
    network: nn.Module, chips: Iterable[LabelledBatch], seen: Callable[[nn.Module], nn.Module]
) -> Steadiness:
    """How steady the target's map is by each share of its statistics.

    Args:
        network: with statistics of both domains; stays as it is.
        chips: of the target, on the network's device; no more are read than `CHIPS`.
        seen: makes the network that maps out of one that looks at the target.
    """
    few: list[LabelledBatch] = []
    for batch in chips:
        few.append(batch)
        if sum(len(b.images) for b in few) >= CHIPS:
            break
    found = {}
    for share in SHARES:
        mixed = copy.deepcopy(network).eval()
        blend_domains(mixed, share)
        set_domain(mixed, TARGET)
        found[share] = steadiness(seen(mixed), few)
    return found


def best_share(found: Steadiness, before: Sequence[Steadiness] = ()) -> float:
    """The share by which the map is steadiest, over all that was found; of equal ones the smallest.

    Args:
        found: now.
        before: at earlier times of the same training.

    >>> best_share({0.0: 0.75, 0.5: 0.5, 1.0: 0.75})
    0.0
    >>> best_share({0.0: 0.75, 0.5: 0.5, 1.0: 0.75}, [{0.0: 0.25, 0.5: 0.25, 1.0: 0.5}])
    1.0
    """
    total = {share: value + sum(earlier[share] for earlier in before) for share, value in found.items()}
    best = max(sorted(total), key=lambda share: total[share])
    logger.info(
        "statistics of the target count for %g: agreement in other light by share %s, %d time(s) before",
        best, {share: round(value, 3) for share, value in found.items()}, len(before),
    )  # fmt: skip
    return best
