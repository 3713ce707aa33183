"""Preset: one named, ready-made choice of a network, as the registry lists it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from citycover.card import ModelCard


@dataclass(frozen=True, slots=True)
class Preset:
    """A network under a name: how it is built, what its card says, and where it comes from."""

    name: str
    """What the user types, `network-variant`: `vcnet-tiny`."""
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
