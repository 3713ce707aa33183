"""A network of the catalogue with weights becomes a model file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from citycover.model.archive import Format
from citycover.model.card import UNTRAINED
from citycover_models.catalogue.registry import find_preset
from citycover_models.export.margins import Margins, measurable, measure_margins
from citycover_models.export.proof import safe_precision
from citycover_models.export.write import ExportReport, export_pt2, export_torchscript
from citycover_models.weights.weights import LoadReport, load_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PresetExport:
    """What an export of a preset did, beside what it proved."""

    report: ExportReport
    loaded: LoadReport | None
    """None: random weights."""
    margins: Margins | None
    """None: those of the preset's card were kept, as asked, or because the probe could not tell."""


def export_preset(
    name: str,
    path: str | Path,
    *,
    weights: str | Path | None = None,
    form: Format | None = None,
    measure: bool = True,
) -> PresetExport:
    """Write the model file of a network of the registry.

    Folds what a method keeps apart for training only, tries reduced precision (the card says fp32 where more
    than near-ties flip), measures trim and feather, and proves the written form equal to the network.

    Args:
        name: preset.
        path: file to write.
        weights: see `weights.read_weights`; None: random ones.
        form: `torchscript` or `pt2`; None: by the ending of `path`.
        measure: False keeps trim and feather of the preset's card.

    Raises:
        ModelError: there is no such network, the weights do not fit, or the export changes the network.
    """
    preset = find_preset(name)
    network, card = preset.build().eval(), preset.card()
    loaded = load_weights(network, weights) if weights is not None else None
    if next(network.parameters(), None) is not None:
        card = card.model_copy(update={"training": _training(network, weights, loaded)})
    if preset.fold is not None:
        network = preset.fold(network)
    logger.info("%s: trying bf16", name)
    card = card.model_copy(update={"precision": safe_precision(network, card)})
    margins = None
    if measure and measurable(card):
        logger.info("%s: measuring trim and feather", name)
        with torch.inference_mode():
            margins = measure_margins(network, card)
        card = margins.on(card) if margins else card
    form = form or ("pt2" if Path(path).suffix == ".pt2" else "torchscript")
    logger.info("%s: writing %s as %s, and comparing it with the network", name, path, form)
    if card.untrained and loaded is not None:
        logger.warning(
            "%s; its map means nothing: train it first, `train` leaves a model.pt that maps", card.training
        )
    report = (export_pt2 if form == "pt2" else export_torchscript)(network, card, path)
    return PresetExport(report, loaded, margins)


def _training(network: nn.Module, weights: str | Path | None, loaded: LoadReport | None) -> str:
    """What a card says of the weights: of a network with a random head the map means nothing."""
    if weights is None or loaded is None:
        return UNTRAINED
    said = f"weights of {Path(weights).name}: {loaded}"
    names = [name for name, _ in network.named_parameters()]
    if left := sorted({*names} & {*loaded.missing}):
        listed = ", ".join(left[:4]) + (" and others" if len(left) > 4 else "")
        return f"{UNTRAINED} in {len(left)} of {len(names)} tensors ({listed}); {said}"
    return said
