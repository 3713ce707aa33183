"""Labels opened beside an output grid."""

from __future__ import annotations

import torch
from odc.geo.geobox import GeoBox

from citycover.evidence.change import ChangeField
from citycover.evidence.field import LabelField
from citycover.evidence.labels import LabelEvidence


def open_field(labels: LabelEvidence | None, grid: GeoBox, device: torch.device) -> LabelField | None:
    """The field of labels on an output grid, which looks for change if they are to be doubted; or None."""
    if labels is None:
        return None
    return (ChangeField if labels.change else LabelField)(labels, grid, device)
