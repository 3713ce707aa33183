"""Augmentation of a batch on its device: the eight symmetries of the square, and light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from citycover_models.data.batches import LabelledBatch


class Augment(BaseModel):
    """What is varied; all numbers are shares of a band's mean or deviation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symmetries: bool = True
    """Turn by quarters and mirror (D4); image and labels alike."""
    brightness: float = Field(default=0.0, ge=0, le=10)
    """Largest shift of all bands of a chip, in deviations."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Largest stretch of all bands of a chip about their means."""
    noise: float = Field(default=0.0, ge=0, le=10)
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

    def vary_groups(
        self,
        groups: Sequence[Tensor],
        maps: Tensor | None,
        statistics: Sequence[tuple[Sequence[float], Sequence[float]]],
        generator: torch.Generator,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Vary every scene on its own, alike in bands of all resolutions.

        Args:
            groups: (n, band, y, x) raw numbers each, of the same ground.
            maps: (n, y, x) classes of the pixels, or None.
            statistics: means and deviations of each group's bands.
            generator: on the CPU.
        """
        varied = list(groups)
        if self.symmetries:
            codes = torch.randint(8, (len(groups[0]),), generator=generator).tolist()
            varied = [_turned(group, codes) for group in varied]
            maps = None if maps is None else _turned(maps, codes)
        if self.brightness or self.contrast or self.noise:
            state = generator.get_state()
            for number, (group, rows) in enumerate(zip(varied, statistics, strict=True)):
                generator.set_state(state)  # the same light falls on all bands
                mean, std = (torch.tensor(row, device=group.device).view(1, -1, 1, 1) for row in rows)
                varied[number] = self._relight(group, mean, std, generator)
        return varied, maps

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
    return _turned(images, codes), _turned(labels, codes)


def _turned(x: Tensor, codes: Sequence[int]) -> Tensor:
    """(n, ..., y, x) with each of n turned by its own symmetry."""
    return torch.stack([_symmetry(one, code) for one, code in zip(x, codes, strict=True)])


def _symmetry(x: Tensor, code: int) -> Tensor:
    """One of the eight symmetries of the last two axes."""
    turned = torch.rot90(x, code % 4, (-2, -1))
    return turned.flip(-1) if code >= 4 else turned


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers in -1..1."""
    return 2 * torch.rand(shape, generator=generator) - 1
