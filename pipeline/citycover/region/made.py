"""What was made of a map, told by its content: what is no longer wanted goes, and nothing else.

A name says what it is, and under which ending: `refine`, `polygons.gpkg`, `areas.csv`. A file that somebody
has changed since, or put there, is not citycover's to take away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from citycover.files.failures import machine_errors
from citycover.files.identity import sha256_of
from citycover.files.remote import Place, RemotePath, tag_of
from citycover.product.upload import drop_remote
from citycover.region.bucket import AnyRegion
from citycover.region.config import Region
from citycover.region.earlier import drop_at_once, hidden_name

REFINED = "refine"


def name_of(region: Region, step: str) -> str:
    """Of what a step makes, as it is asked for now; empty: it is not asked for."""
    asked = {"polygons": region.polygons, "areas": region.areas}.get(step)
    if step == REFINED:
        return REFINED if region.refine is not None else ""
    return "" if asked is None else f"{step}.{asked.format}"


def step_of(name: str) -> str:
    """The step that makes what is called so."""
    return name.partition(".")[0]


def mark_of(folder: AnyRegion, scene: str, name: str) -> str:
    """What nothing of other content shares; empty: it is not there.

    Raises:
        MachineError: it cannot be read.
    """
    place = place_of_made(folder, scene, name)
    if name == REFINED:
        return folder.mark(place)
    if isinstance(place, RemotePath):
        return tag_of(str(place))
    with machine_errors(place):
        return sha256_of(place) if place.is_file() else ""


def take_away(folder: AnyRegion, scene: str, made: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Remove of what was made of a map that which is still as it was made; answers what is left to know of.

    Args:
        folder: of the region.
        scene: whose map it is.
        made: names, each with its mark when it was made.
        names: of those that go.

    Raises:
        MachineError: it cannot be removed.
    """
    left = dict(made)
    for name in names:
        place, mark = place_of_made(folder, scene, name), left.pop(name)
        if (mark and mark_of(folder, scene, name) == mark) or _is_going(place, name):
            _remove(place, name)
    return left


def _is_going(place: Place, name: str) -> bool:
    """Whether a run was ended while it removed the refined map."""
    return name == REFINED and isinstance(place, Path) and os.path.lexists(hidden_name(place))


def _remove(place: Place, name: str) -> None:
    if isinstance(place, RemotePath):
        if name == REFINED:
            drop_remote(place)
        else:
            place.remove()
        return
    with machine_errors(place):
        if name == REFINED:
            drop_at_once(place)
        else:
            place.unlink()


def place_of_made(folder: AnyRegion, scene: str, name: str) -> Place:
    """Where that lies which is made of the map of a scene and called so."""
    step, _, ending = name.partition(".")
    return folder.refined_of(scene) if name == REFINED else folder.made_of(step, scene, ending)
