"""What labels that nothing was learned from say of the network as it maps: a target's, or a finer truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from citycover.evaluate.confusion import Confusion, count_pairs
from citycover.geometry.window import Window
from citycover_models.data.chips import ChipReader, as_planes
from citycover_models.data.labels import as_ranks
from citycover_models.data.pairs import Pair
from citycover_models.data.sampling import Chip

_CHIPS = 64
"""Chips at most that are looked at, evenly over all images."""


def judge(
    network: nn.Module,
    pairs: Sequence[Pair],
    fill: Sequence[float],
    chip: int,
    classes: int,
    name: str = "target",
) -> dict[str, float]:
    """MIoU and accuracy; {} where there are no labels.

    Where the network is finer than its input, the class in the middle of each pixel is looked at: the labels
    are seen on the image's grid. A finer truth is compared with by `citycover evaluate`.

    Args:
        network: as it maps.
        pairs: images with labels.
        fill: of invalid pixels.
        chip: side of what is looked at, in pixels.
        classes: of the legend.
        name: how the figures begin: `target_miou`, `truth_miou`.
    """
    if not pairs:
        return {}
    total, reader = Confusion.empty(classes), ChipReader(pairs, fill)
    tiles = list(_tiles(pairs, chip))
    for tile in tiles[:: -(-len(tiles) // _CHIPS) or 1]:
        pixels, channels = reader.read(tile)
        predicted = _predict(network, as_planes(pixels)[None], chip)
        total += count_pairs(as_ranks(channels), predicted.numpy(), classes)
    if not total.compared:
        return {}
    return {f"{name}_miou": total.miou, f"{name}_accuracy": total.overall_accuracy}


def _tiles(pairs: Sequence[Pair], side: int) -> Iterator[Chip]:
    for number, pair in enumerate(pairs):
        for row in range(0, pair.shape[0], side):
            for col in range(0, pair.shape[1], side):
                yield Chip(number, Window(row, col, side, side))


def _predict(network: nn.Module, images: Tensor, side: int) -> Tensor:
    """(y, x) best classes at the middles of the input's pixels."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        scores: Tensor = network(images.to(device)).cpu()
    finer = scores.shape[-1] // side
    return scores[0].argmax(0)[finer // 2 :: finer, finer // 2 :: finer].to(torch.int16)
