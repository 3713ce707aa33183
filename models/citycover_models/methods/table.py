"""Every method, as a recipe names it."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field
from torch import nn

from citycover_models.methods.beliefs import BlockConsistency, Em, ImplicitPosterior, Soft
from citycover_models.methods.coarse import C2F, CasDva, Nlat, Plat
from citycover_models.methods.daspm import DAFormerAdaptation
from citycover_models.methods.lovecs import CSN, AdaBN, LoveCS, SourceOnly
from citycover_models.methods.method import BaseMethod, CrossEntropy
from citycover_models.methods.scenes import BinaryCrossEntropy, Focal, Reference

Method = Annotated[
    CrossEntropy | Plat | CasDva | C2F | Nlat
    | Soft | BlockConsistency | Em | ImplicitPosterior
    | SourceOnly | AdaBN | CSN | LoveCS | DAFormerAdaptation
    | BinaryCrossEntropy | Focal | Reference,
    Field(discriminator="name"),
]  # fmt: skip

METHODS: dict[str, type[BaseMethod]] = {
    kind.model_fields["name"].default: kind for kind in get_args(get_args(Method)[0])
}
"""By name, in this order."""


def methods_for(network: nn.Module) -> list[str]:
    """Names of the methods that find in a network what they need."""
    return [name for name, kind in METHODS.items() if isinstance(network, kind.needs)]


def methods_that_adapt() -> list[str]:
    """Names of the methods that take a target domain."""
    return [name for name, kind in METHODS.items() if kind.adapts]
