"""Presets of the fusion of Sentinel-2 bands: three moments of fusion, two backbones, scenes or pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import get_args

from torch import Tensor

from citycover.classes.legend import read_legend
from citycover.model.card import BandGroup, ModelCard, WindowRule
from citycover_models.blocks.band_encoders import B10, B20, B60, Backbone, Mode
from citycover_models.catalogue.preset import FusionPreset
from citycover_models.imagery.sentinel2 import (
    BIGEARTHNET_V1,
    BIGEARTHNET_V2,
    OFFSET_TAG,
    BandStatistics,
    card_bands,
)
from citycover_models.nets.band_fusion import CELL, NUM_CLASSES, DenseFusion, LateFusionWithout60, SceneFusion

_PAPER = "Siddamsetty et al. 2023, Inter-region transfer learning, ISPRS Annals X-1/W1-2023, 881-888"

_LICENCE = (
    "The repository behind the paper states no licence: this network was written from its description. "
    "BigEarthNet: CDLA-Permissive-1.0."
)


def _groups(statistics: BandStatistics) -> tuple[BandGroup, ...]:
    return tuple(
        BandGroup(
            name=name,
            bands=card_bands(bands),
            ratio=ratio,
            dtypes=("uint16", "int16", "float32"),
            value_range=(0, 20000),
            fill=statistics.of(bands)[0],
        )
        for name, bands, ratio in (("10m", B10, 1), ("20m", B20, 2), ("60m", B60, 6))
    )


def _scene_card(mode: Mode, backbone: Backbone) -> ModelCard:
    """Card of `SceneFusion`: the training patch of 120 px slides by half of itself, cells of 600 m."""
    return ModelCard(
        name=f"band-fusion-{mode}-{backbone}",
        description=f"{mode.capitalize()} fusion of 12 Sentinel-2 bands, {backbone}: 19 labels a 600 m cell",
        groups=_groups(BIGEARTHNET_V1),
        gsd=(8.0, 12.0),
        native_gsd=10.0,
        window=WindowRule(size=2 * CELL, fixed=True, multiple=CELL, maximum=2 * CELL),
        stride=CELL,
        trim=0,
        feather=CELL,
        output_scale=f"1/{CELL}",
        task="labels",
        legend=read_legend("bigearthnet19"),
        offset_tag=OFFSET_TAG,
        sources=(_PAPER,),
    )


def _without_60_card(backbone: Backbone) -> ModelCard:
    """Card of `LateFusionWithout60`: two groups of bands."""
    card = _scene_card("late", backbone)
    said = f"Late fusion of 10 Sentinel-2 bands, without 60 m, {backbone}: 19 labels a 600 m cell"
    return card.model_copy(update={"groups": card.groups[:2], "description": said})


def _dense_card(mode: Mode, backbone: Backbone) -> ModelCard:
    """Card of `DenseFusion`.

    Windows that are to see the same sampling lattice lie whole strides of the network and whole pixels of
    60 m apart: lcm(32, 6) = 96 px, or 192 px where the deepest map has stride 64 (late fusion, whose 20 m
    branch halves five times, and the intermediate ResNet twin).
    """
    deep = mode == "late" or (mode, backbone) == ("intermediate", "resnet18")
    stride, trim, feather, size = (192, 48, 144, 432) if deep else (96, 48, 48, 336)
    return ModelCard(
        name=f"band-fusion-{mode}-{backbone}-dense",
        description=f"{mode.capitalize()} fusion of 12 Sentinel-2 bands, {backbone}: 19 classes of 10 m",
        groups=_groups(BIGEARTHNET_V2),
        gsd=(8.0, 12.0),
        native_gsd=10.0,
        window=WindowRule(size=size, multiple=12, maximum=1536),
        stride=stride,
        trim=trim,
        feather=feather,
        legend=read_legend("bigearthnet19"),
        offset_tag=OFFSET_TAG,
        sources=(_PAPER,),
    )


def _scene(
    mode: Mode,
    backbone: Backbone,
    faithful: bool,
    num_classes: int = NUM_CLASSES,
    *,
    statistics: BandStatistics = BIGEARTHNET_V1,
    correlation: Tensor | None = None,
) -> SceneFusion:
    return SceneFusion(
        mode, backbone, num_classes, statistics=statistics, correlation=correlation, faithful=faithful
    )


def _dense(
    mode: Mode,
    backbone: Backbone,
    num_classes: int = NUM_CLASSES,
    *,
    statistics: BandStatistics = BIGEARTHNET_V2,
    correlation: Tensor | None = None,  # noqa: ARG001 - labels of one pixel exclude each other
) -> DenseFusion:
    return DenseFusion(mode, backbone, num_classes, statistics=statistics)


def _preset(
    name: str,
    build: Callable[..., SceneFusion | DenseFusion],
    card: Callable[[], ModelCard],
    published: int | None = None,
) -> FusionPreset:
    return FusionPreset(
        name=name,
        network="band_fusion",
        build=build,
        build_for=build,
        card=lambda: card().model_copy(update={"name": name}),
        paper=_PAPER,
        licence_note=_LICENCE,
        published_parameters=published,
    )


def _pair(mode: Mode, backbone: Backbone) -> tuple[FusionPreset, FusionPreset]:
    """The network for scenes, and its twin for pixels."""
    name = f"band-fusion-{mode}-{backbone}"
    return (
        _preset(name, partial(_scene, mode, backbone, False), partial(_scene_card, mode, backbone)),
        _preset(f"{name}-dense", partial(_dense, mode, backbone), partial(_dense_card, mode, backbone)),
    )


def _faithful(mode: Mode, backbone: Backbone, published: int) -> FusionPreset:
    """The network for scenes as the public code has it."""
    name = f"band-fusion-{mode}-{backbone}-faithful"
    return _preset(
        name, partial(_scene, mode, backbone, True), partial(_scene_card, mode, backbone), published
    )


def _without_60(backbone: Backbone) -> FusionPreset:
    """Late fusion of the bands of 10 and 20 m."""
    name = f"band-fusion-late-{backbone}-without-60m"
    return _preset(name, partial(LateFusionWithout60, backbone), partial(_without_60_card, backbone))


_KINDS = tuple(product(get_args(Mode), get_args(Backbone)))

PRESETS = (
    *(preset for mode, backbone in _KINDS for preset in _pair(mode, backbone)),
    _without_60("resnet18"),
    _without_60("efficientnet-b5"),
    # Published networks that differ from ours; the other ResNet twins are the published ones.
    _faithful("early", "efficientnet-b5", 29_282_152),
    _faithful("intermediate", "efficientnet-b5", 29_281_256),
    _faithful("late", "efficientnet-b5", 101_353_476),  # without two classifiers that it never uses
    _faithful("intermediate", "resnet18", 11_395_195),
)
