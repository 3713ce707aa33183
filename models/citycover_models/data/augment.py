"""Augmentation of a batch on its device: the eight symmetries of the square, and light."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from citycover_models.data.batches import LabelledBatch


class Augment(BaseModel):
    """What is varied; all numbers are shares of a band's mean or deviation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    symmetries: bool = True
    """Turn by quarters and mirror (D4); image and labels alike."""
    brightness: float = Field(default=0.0, ge=0)
    """Largest shift of all bands of a chip, in deviations."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Largest stretch of all bands of a chip about their means."""
    noise: float = Field(default=0.0, ge=0)
    """Deviation of noise of single pixels, in deviations of the band."""

    def __call__(
        self, batch: LabelledBatch, mean: Tensor, std: Tensor, generator: torch.Generator
    ) -> LabelledBatch:
        """Vary every chip on its own.

        Args:
            batch: raw numbers; they come out as float32 where light is varied.
            mean: (1, band, 1, 1).
            std: (1, band, 1, 1).
            generator: on the CPU, so that a seed means the same on every device.
        """
        images, labels = batch.images, batch.labels
        if self.symmetries:
            images, labels = _turn(images, labels, generator)
        if self.brightness or self.contrast or self.noise:
            images = self._relight(images.float(), mean, std, generator)
        return replace(batch, images=images, labels=labels)

    def _relight(self, images: Tensor, mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        shape = (len(images), 1, 1, 1)
        stretch = 1 + self.contrast * _uniform(shape, generator).to(images.device)
        shift = self.brightness * _uniform(shape, generator).to(images.device)
        images = mean + (images - mean) * stretch + shift * std
        if self.noise:
            grain = torch.randn(images.shape, generator=generator).to(images.device)
            images = images + self.noise * std * grain
        return images


def _turn(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    codes = torch.randint(8, (len(images),), generator=generator).tolist()
    turned = [
        (_symmetry(i, code), _symmetry(y, code)) for i, y, code in zip(images, labels, codes, strict=True)
    ]
    return torch.stack([i for i, _ in turned]), torch.stack([y for _, y in turned])


def _symmetry(x: Tensor, code: int) -> Tensor:
    """One of the eight symmetries of the last two axes."""
    turned = torch.rot90(x, code % 4, (-2, -1))
    return turned.flip(-1) if code >= 4 else turned


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers in -1..1."""
    return 2 * torch.rand(shape, generator=generator) - 1
