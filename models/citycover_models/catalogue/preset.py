"""Preset: one named, ready-made choice of a network, as the registry lists it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from citycover.model.card import ModelCard
from citycover_models.blocks.learnable import Learnable
from citycover_models.imagery.aerial import AerialStatistics
from citycover_models.imagery.sentinel2 import BandStatistics
from citycover_models.nets.band_fusion import DenseFusion, SceneFusion


@dataclass(frozen=True, slots=True)
class Preset:
    """A network under a name: how it is built, what its card says, and where it comes from."""

    name: str
    """What the user types, `network-variant`: `vcnet-tiny`."""
    network: str
    """Module of `citycover_models.nets` that holds it."""
    build: Callable[[], nn.Module]
    """Makes the network with random weights, raw digital numbers in, logits out."""
    card: Callable[[], ModelCard]
    """Makes the card; `trim` and `feather` are first guesses until the export has measured them."""
    paper: str
    """Citation of the method, one line."""
    licence_note: str
    """What a user must know about the licence of the method, its code or its public weights."""
    published_parameters: int | None = None
    """Number of parameters that the public record gives for this very variant, where it gives one."""
    fold: Callable[[nn.Module], nn.Module] | None = None
    """Turns the trained network into the one that is exported; None: they are the same."""


class AerialBuild(Protocol):
    """Makes a network for one group of aerial bands, with random weights."""

    def __call__(self, num_classes: int, *, statistics: AerialStatistics) -> Learnable:
        """`num_classes` without a void channel; `statistics` of the bands in hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AerialPreset(Preset):
    """A preset that can be trained: its network is built for any classes and any aerial bands."""

    build_for: AerialBuild


class FusionBuild(Protocol):
    """Makes a network for Sentinel-2's three groups of bands, with random weights."""

    def __call__(
        self, num_classes: int, *, statistics: BandStatistics, correlation: Tensor | None
    ) -> SceneFusion | DenseFusion:
        """`correlation` is (k, k), of the labels in hand; of no use where a pixel has one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionPreset(Preset):
    """A preset that learns from patches of scenes: built for their labels, statistics and correlations."""

    build_for: FusionBuild
