"""Augmentation: images and labels stay together, light alone changes images alone."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from citycover_models.data.augment import Augment
from citycover_models.data.batches import LabelledBatch

MEAN, STD = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
seeds = st.integers(0, 2**32 - 1)


def batch_of(seed: int, count: int, side: int) -> LabelledBatch:
    """Images whose first band is the label and whose second is its square."""
    labels = torch.randint(0, 9, (count, side, side), generator=torch.Generator().manual_seed(seed))
    return LabelledBatch(torch.stack([labels, labels**2], 1).float(), labels)


@given(seeds, st.integers(1, 4), st.integers(1, 9))
def test_labels_turn_with_their_pixels(seed: int, count: int, side: int) -> None:
    batch = batch_of(seed, count, side)
    turned = Augment()(batch, MEAN, STD, torch.Generator().manual_seed(seed))
    assert torch.equal(turned.images[:, 0], turned.labels.float())
    assert torch.equal(turned.images[:, 1], turned.labels.float() ** 2)
    for before, after in zip(batch.labels, turned.labels, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)


@given(seeds, st.floats(0, 1), st.floats(0, 0.9))
def test_light_is_one_stretch_and_one_shift_of_a_chip(seed: int, brightness: float, contrast: float) -> None:
    batch = batch_of(seed, 3, 6)
    augment = Augment(symmetries=False, brightness=brightness, contrast=contrast)
    lit = augment(batch, MEAN, STD, torch.Generator().manual_seed(seed))
    assert torch.equal(lit.labels, batch.labels)
    for before, after in zip(batch.images, lit.images, strict=True):
        low, high = before.min(), before.max()
        stretch = (after.max() - after.min()) / (high - low)
        assert 1 - contrast - 1e-4 <= stretch <= 1 + contrast + 1e-4
        torch.testing.assert_close(after, after.min() + (before - low) * stretch, rtol=1e-4, atol=1e-3)


@given(seeds)
def test_a_seed_means_the_same_chips(seed: int) -> None:
    augment = Augment(brightness=0.3, contrast=0.2, noise=0.1)
    one, two = (augment(batch_of(7, 2, 5), MEAN, STD, torch.Generator().manual_seed(seed)) for _ in "ab")
    assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)
