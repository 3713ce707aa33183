"""Labels of the place as a user names them: looked at as files first, then as evidence."""

from __future__ import annotations

from dataclasses import replace

from odc.geo.geobox import GeoBox

from citycover.evidence.catalogue import product_asked_for
from citycover.evidence.labels import PlaceLabels, understand_labels
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
    own = [named for named in request.files if product_asked_for(named) is None]
    beside = [file for named in own for file in check_class_file(named, "labels", trust)]
    return replace(understand_labels(request, card, grid), beside=tuple(beside))
