"""Labels of the place as a user names them: looked at as files first, then as evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from odc.geo.geobox import GeoBox

from citycover.evidence.catalogue import product_asked_for
from citycover.evidence.labels import PlaceLabels, check_meaning, understand_labels
from citycover.evidence.request import LabelRequest
from citycover.model.card import ModelCard
from citycover.scene.file import check_class_file
from citycover.scene.trust import Trust


def look_at_labels(request: LabelRequest, card: ModelCard, grid: GeoBox, trust: Trust) -> PlaceLabels:
    """Look at the labels of a place; see `understand_labels`.

    Args:
        request: which, and what they mean.
        card: of the network whose evidence they are put to.
        grid: of the map.
        trust: which files the label files may name in turn.

    Raises:
        ModelError: the network does not know what the rule needs.
        ConfigError: the labels cannot be read, name what they may not, lie elsewhere or say nothing.
        MachineError: labels that were asked for by name cannot be fetched.
    """
    beside = _look_at_files(request.files, trust)
    return replace(understand_labels(request, card, grid), beside=beside)


def check_label_request(request: LabelRequest, card: ModelCard | None, trust: Trust) -> None:
    """Refuse labels that are evidence nowhere: what is said of them is wrong, whatever the place.

    Args:
        request: which, and what they mean.
        card: of the network whose evidence they are put to; None: it depends on the scene.
        trust: which files the label files may name in turn.

    Raises:
        ModelError: the network does not know what the rule needs.
        ConfigError: they are not there, or mean nothing to the network.
    """
    if card is not None:
        check_meaning(request, card)
    _look_at_files(request.files, trust)


def _look_at_files(named: Sequence[Path | str], trust: Trust) -> tuple[str, ...]:
    """Files that those of the user name in turn."""
    own = [one for one in named if product_asked_for(one) is None]
    return tuple(file for one in own for file in check_class_file(one, "labels", trust))
