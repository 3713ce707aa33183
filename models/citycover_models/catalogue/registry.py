"""The registry: every network under the names of its presets."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module

from citycover.errors import ModelError
from citycover_models.catalogue.preset import Preset

NETWORKS = (
    "spectral",
    "l2hnet",
    "paraformer",
    "vcnet",
    "daformer",
    "band_fusion",
    "c2fnet",
    "vhf_paranet",
    "semantic_fpn",
    "unet",
    "upernet",
)
"""Modules of `citycover_models.nets`, one paper each, in the order in which they are listed."""


@cache
def presets() -> dict[str, Preset]:
    """All presets by name. Imports torch."""
    return {name: preset for network in NETWORKS for name, preset in presets_of(network).items()}


def presets_of(network: str) -> dict[str, Preset]:
    """Presets of one module of `citycover_models.nets`."""
    found: dict[str, Preset] = import_module(f"citycover_models.nets.{network}").PRESETS
    return found


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        ModelError: there is none; the message names the nearest.
    """
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or sorted(known)[:3]
        raise ModelError(
            f"there is no network {name!r}; the nearest are {', '.join(near)}; "
            "`citycover models list` names them all"
        )
    return known[name]
