"""What the page is told before it asks for tiles: maps, layers, legends, places; as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from citycover.geometry.grid import crs_text, ground_sample_distance
from citycover.plan.layers import Layer
from citycover.version import __version__
from citycover.view.image import SceneImage
from citycover.view.look import can_compare
from citycover.view.maps import ShownMap


def describe(maps: Sequence[ShownMap], images: Sequence[SceneImage | None]) -> dict[str, Any]:
    """Everything, with what can be compared: `changes[a]` are the maps b whose legend joins that of a."""
    return {
        "version": __version__,
        "maps": [_map(shown, image) for shown, image in zip(maps, images, strict=True)],
        "changes": [[b for b, other in enumerate(maps) if can_compare(one, other)] for one in maps],
    }


def _map(shown: ShownMap, image: SceneImage | None) -> dict[str, Any]:
    legend, record = shown.source.legend, shown.source.record
    height, width = shown.source.grid.shape
    return {
        "name": shown.name,
        "time": shown.time,
        "made": "" if record is None else f"{record.card.name}, {record.standing}, {record.evidence}",
        "random": record is not None and record.standing == "random weights",
        "size": f"{width:,} x {height:,} px of {ground_sample_distance(shown.source.grid):.3g} m",
        "crs": crs_text(shown.source.grid),
        "legend": [{"id": c.id, "name": c.name, "color": c.color} for c in legend.classes],
        "layers": [_layer(layer, shown) for layer in shown.layers],
        "bounds": shown.bounds,
        "native": shown.native,
        "least": shown.least,
        "image": None if image is None else {"least": image.least},
        "edition": shown.edition,
    }


def _layer(layer: Layer, shown: ShownMap) -> dict[str, Any]:
    return {
        "name": layer.name,
        "title": layer.title,
        "bands": [{"id": k, "name": name} for k, name in shown.channels] if layer.per_class else [],
        "categorical": layer.categorical,
    }
