"""Cross-Sensor Normalisation (CSN): batch normalisation with statistics of their own for each sensor.

LoveCS, section on cross-sensor normalisation. For sensor (domain) d,

    y = gamma (x - mean_d) / sqrt(var_d + eps) + beta,        one gamma and beta for all domains.

While training, mean and variance are those of the batch, which holds one domain, and enter that domain's
running statistics alone; otherwise they are the running ones. Exported networks hold one domain as plain
batch normalisation (`fold_domain`): nothing is left to choose.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

SOURCE, TARGET = 0, 1
"""Domains: the sensor with labels, and the one without."""

_Module = TypeVar("_Module", bound=nn.Module)


class DomainBatchNorm2d(nn.Module):
    """BatchNorm2d with running statistics for each of several domains.

    Args:
        norm: its scale, shift and statistics become those of every domain.
        domains: how many.
        separate_affine: give each domain a scale and shift of its own.
    """

    def __init__(self, norm: nn.BatchNorm2d, domains: int = 2, *, separate_affine: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _ in range(domains))
        if not separate_affine:
            for other in self.norms[1:]:
                other.weight, other.bias = self.norms[0].weight, self.norms[0].bias
        self.domain = SOURCE

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) of one domain -> the same, normalised."""
        normalised: Tensor = self.norms[self.domain](x)
        return normalised


def with_domains(network: _Module, domains: int = 2, *, separate_affine: bool = False) -> _Module:
    """Put DomainBatchNorm2d in the place of every BatchNorm2d; weights loaded before are kept."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, DomainBatchNorm2d(child, domains, separate_affine=separate_affine))
        else:
            with_domains(child, domains, separate_affine=separate_affine)
    return network


def set_domain(network: nn.Module, domain: int) -> None:
    """Choose the domain of what comes next."""
    for module in network.modules():
        if isinstance(module, DomainBatchNorm2d):
            module.domain = domain


def copy_domain(network: nn.Module, source: int = SOURCE, target: int = TARGET) -> None:
    """Give one domain the statistics (and affine, if separate) of another: where self-training starts."""
    for module in network.modules():
        if isinstance(module, DomainBatchNorm2d):
            module.norms[target].load_state_dict(module.norms[source].state_dict())


def blend_domains(network: nn.Module, share: float, source: int = SOURCE, target: int = TARGET) -> None:
    """Mix the target's statistics with the source's; `share` of them stay the target's own."""
    for module in network.modules():
        if isinstance(module, DomainBatchNorm2d):
            own, other = module.norms[target], module.norms[source]
            assert isinstance(own, nn.BatchNorm2d) and isinstance(other, nn.BatchNorm2d)  # noqa: PT018
            assert own.running_mean is not None and own.running_var is not None  # noqa: PT018
            assert other.running_mean is not None and other.running_var is not None  # noqa: PT018
            own.running_mean.copy_(other.running_mean.lerp(own.running_mean, share))
            own.running_var.copy_(other.running_var.lerp(own.running_var, share))


def reset_domain(network: nn.Module, domain: int) -> None:
    """Forget the statistics of a domain; from now on they are the plain mean over what is seen of it."""
    for module in network.modules():
        if isinstance(module, DomainBatchNorm2d):
            norm = module.norms[domain]
            assert isinstance(norm, nn.BatchNorm2d), "domains are copies of one"
            norm.reset_running_stats()
            norm.momentum = None


def fold_domain(network: _Module, domain: int = TARGET) -> _Module:
    """A copy of the network for one domain, with plain batch normalisation."""
    folded = copy.deepcopy(network)
    _fold(folded, domain)
    return folded


def _fold(network: nn.Module, domain: int) -> None:
    for name, child in network.named_children():
        if isinstance(child, DomainBatchNorm2d):
            setattr(network, name, child.norms[domain])
        else:
            _fold(child, domain)
