"""The registry: every network under the names of its presets."""

from __future__ import annotations

import difflib
from functools import cache

from citycover.errors import ModelError
from citycover_models.catalogue.preset import AerialPreset, FusionPreset, Preset

NETWORKS = (
    "spectral",
    "l2hnet",
    "paraformer",
    "vcnet",
    "daformer",
    "hrda",
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
    """All presets by name, network by network. Imports torch."""
    from citycover_models.catalogue import adapted, baselines, coarse, fusion, spectral

    tables = (spectral, coarse, adapted, fusion, baselines)
    known: list[Preset] = [preset for table in tables for preset in table.PRESETS]
    known.sort(key=lambda preset: NETWORKS.index(preset.network))  # stable: sizes keep their order
    return {preset.name: preset for preset in known}


def presets_of(network: str) -> dict[str, Preset]:
    """Presets of one module of `citycover_models.nets`."""
    return {name: preset for name, preset in presets().items() if preset.network == network}


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


def find_aerial(name: str) -> AerialPreset:
    """The preset of a name, which can be built for the classes and bands of a training.

    Raises:
        ModelError: there is none, or it is made for its own classes and bands alone.
    """
    preset = find_preset(name)
    if not isinstance(preset, AerialPreset):
        able = [p for p in presets().values() if isinstance(p, AerialPreset)]
        networks = dict.fromkeys(p.network.replace("_", "-") for p in able)
        raise ModelError(
            f"network {name!r} cannot be built for other classes and bands; networks that learn from coarse "
            f"labels are {', '.join(networks)} in all their sizes; `citycover models list` names them; the "
            "band-fusion ones learn from BigEarthNet: --layout bigearthnet --folder DIR"
        )
    return preset


def find_fusion(name: str) -> FusionPreset:
    """The preset of a name, which can be built for labels and statistics of patches.

    Raises:
        ModelError: there is none, or it does not take Sentinel-2's three groups of bands.
    """
    preset = find_preset(name)
    if not isinstance(preset, FusionPreset):
        raise ModelError(
            f"network {name!r} does not take Sentinel-2's bands of 10, 20 and 60 m; those that do begin with "
            "band-fusion-, see `citycover models list`"
        )
    return preset


def is_fusion(name: str) -> bool:
    """Whether a network takes Sentinel-2's three groups of bands, and learns from patches."""
    return isinstance(find_preset(name), FusionPreset)
