"""What the presets of one network for aerial imagery have in common, and how one of them is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from citycover.classes.legend import read_legend
from citycover.model.card import ModelCard, WindowRule
from citycover_models.catalogue.preset import AerialBuild, AerialPreset
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A network for aerial imagery in all its sizes: one row of the catalogue; fields as in `ModelCard`."""

    network: str
    """Module of `citycover_models.nets`."""
    description: str
    legend: str
    """Name of a built-in legend; the network has an output for each of its classes."""
    window: WindowRule
    stride: int
    trim: int
    feather: int
    paper: str
    licence_note: str
    gsd: tuple[float, float] = (0.25, 2.0)
    native_gsd: float = 1.0
    receptive_field: int | None = None
    activation: Literal["logits", "probabilities"] = "logits"
    fold: Callable[[nn.Module], nn.Module] | None = None

    def preset(
        self,
        name: str,
        build_for: AerialBuild,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        *,
        published: int | None = None,
    ) -> AerialPreset:
        """One size of the network, for the legend and these bands unless a training asks for others."""
        return AerialPreset(
            name=name,
            network=self.network,
            build=partial(self._build, build_for, statistics),
            build_for=build_for,
            card=partial(self._card, name, statistics),
            paper=self.paper,
            licence_note=self.licence_note,
            published_parameters=published,
            fold=self.fold,
        )

    def _build(self, build_for: AerialBuild, statistics: AerialStatistics) -> nn.Module:
        return build_for(len(read_legend(self.legend).ids), statistics=statistics)

    def _card(self, name: str, statistics: AerialStatistics) -> ModelCard:
        return ModelCard(
            name=name,
            description=self.description,
            groups=(statistics.group,),
            gsd=self.gsd,
            native_gsd=self.native_gsd,
            window=self.window,
            stride=self.stride,
            trim=self.trim,
            feather=self.feather,
            receptive_field=self.receptive_field,
            activation=self.activation,
            legend=read_legend(self.legend),
            sources=(self.paper,),
        )
