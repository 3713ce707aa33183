"""Preset: one named, ready-made choice of a network, as the registry lists it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from citycover.errors import ModelError
from citycover.model.card import ModelCard
from citycover_models.imagery.aerial import AerialStatistics


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

    def build_for(self, num_classes: int, statistics: AerialStatistics) -> nn.Module:
        """The network for other classes and bands, with random weights.

        Args:
            num_classes: classes of the legend, without a void channel.
            statistics: of the bands in hand.

        Raises:
            ModelError: the network is not made for one group of aerial bands.
        """
        if not isinstance(self.build, partial):
            raise ModelError(_NOT_AERIAL.format(self.name))
        signature = inspect.signature(self.build.func)
        if not {"num_classes", "statistics"} <= set(signature.parameters):
            raise ModelError(_NOT_AERIAL.format(self.name))
        bound = signature.bind_partial(*self.build.args, **self.build.keywords)
        bound.arguments |= {"num_classes": num_classes, "statistics": statistics}
        network: nn.Module = self.build.func(*bound.args, **bound.kwargs)
        return network


_NOT_AERIAL = (
    "network {!r} cannot be built for other classes and bands; networks that learn from coarse labels are "
    "l2hnet, paraformer, vcnet, c2fnet, vhf-paranet, unet and upernet in all their sizes"
)
