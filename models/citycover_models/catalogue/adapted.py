"""Presets of the networks that are trained on one domain and map another: LoveCS, DAFormer, DASPM."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from citycover.classes.legend import read_legend
from citycover.model.card import BandGroup, ModelCard, WindowRule
from citycover_models.blocks.domain_norm import TARGET, fold_domain
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.mit import MIT_WIDTHS, MitVariant
from citycover_models.catalogue.aerial import Family
from citycover_models.catalogue.preset import AerialPreset
from citycover_models.imagery.aerial import IMAGENET_RGB, AerialStatistics
from citycover_models.imagery.sentinel2 import BIGEARTHNET_V1, OFFSET_TAG, card_bands
from citycover_models.nets.daformer import RGB_BANDS, SUBPIXEL, DAFormer, daspm
from citycover_models.nets.hrda import HRDA
from citycover_models.nets.semantic_fpn import SemanticFPN

_SEMANTIC_FPN = Family(
    network="semantic_fpn",
    description="Semantic FPN with cross-sensor normalisation (LoveCS)",
    legend="loveda4",
    gsd=(0.2, 2.0),
    window=WindowRule(size=512, multiple=32, maximum=2048),
    stride=32,
    trim=64,
    feather=32,
    paper="Wang et al. 2022, LoveCS, ISPRS J. Photogramm. Remote Sens.; Kirillov et al. 2019, "
    "arXiv:1901.02446",
    licence_note="Written afresh from a description of the public record; LoveCS's code has no licence, "
    "LoveDA is for academic use.",
    fold=partial(fold_domain, domain=TARGET),
)

_PAPER = "Hoyer et al. 2022, DAFormer, CVPR, arXiv:2111.14887"

_PAPER_DASPM = f"DASPM, IEEE JSTARS (public record), on {_PAPER}"

_PAPER_HRDA = "Hoyer et al. 2022, HRDA, ECCV, arXiv:2204.13132"

_LICENCE = (
    "DAFormer's code is Apache-2.0. The public MiT/SegFormer weights are NVIDIA's and for non-commercial use "
    "only, and so are checkpoints made from them. DASPM states no licence."
)


def _daformer_card(variant: MitVariant) -> ModelCard:
    """Card of DAFormer on 8-bit RGB, any GSD."""
    return ModelCard(
        name=f"daformer-{variant}",
        description=f"DAFormer with MiT-{variant.upper()}: RGB to five classes on the input's grid",
        groups=(
            BandGroup(
                bands=(("red",), ("green",), ("blue",)),
                dtypes=("uint8",),
                value_range=(0, 255),
                fill=IMAGENET_RGB.mean,
            ),
        ),
        # Attention sees the whole window, so neighbours also hand over by a feather.
        window=WindowRule(size=512, multiple=32, maximum=2048),
        stride=32,
        trim=32,
        feather=32,
        legend=read_legend("daspm5"),
        sources=(_PAPER,),
    )


def _daspm_card(variant: MitVariant) -> ModelCard:
    """Card of DASPM: 10 m Sentinel-2 RGB in, 2 m classes out.

    The record trains on 64 px (320 on the fine grid) and tests on whole images. 128 px, which the encoder
    takes as readily, push 1.8 instead of 4 pixels through the network for each pixel of the output.
    """
    return ModelCard(
        name=f"daspm-{variant}",
        description=f"DASPM with MiT-{variant.upper()}: Sentinel-2 RGB of 10 m to five classes of 2 m",
        groups=(
            BandGroup(
                bands=card_bands(RGB_BANDS),
                dtypes=("uint16", "int16", "float32"),
                value_range=(0, 20000),
                fill=BIGEARTHNET_V1.of(RGB_BANDS)[0],
            ),
        ),
        gsd=(8.0, 12.0),
        native_gsd=10.0,
        window=WindowRule(size=128, multiple=32, maximum=512),
        stride=32,
        trim=0,
        feather=32,
        output_scale=SUBPIXEL,
        legend=read_legend("daspm5"),
        offset_tag=OFFSET_TAG,
        sources=(_PAPER_DASPM,),
    )


def _build_for(
    network: type[DAFormer],
    variant: MitVariant,
    upscale: int,
    num_classes: int,
    *,
    statistics: AerialStatistics,
) -> Learnable:
    return network(variant, num_classes, upscale=upscale, mean=statistics.mean, std=statistics.std)


def _daformer(v: MitVariant) -> AerialPreset:
    return AerialPreset(
        name=f"daformer-{v}",
        network="daformer",
        build=partial(DAFormer, v),
        build_for=partial(_build_for, DAFormer, v, 1),
        card=partial(_daformer_card, v),
        paper=_PAPER,
        licence_note=_LICENCE,
    )


def _daspm(v: MitVariant) -> AerialPreset:
    return AerialPreset(
        name=f"daspm-{v}",
        network="daformer",
        build=partial(daspm, v),
        build_for=partial(_build_for, DAFormer, v, SUBPIXEL),
        card=partial(_daspm_card, v),
        paper=_PAPER_DASPM,
        licence_note=_LICENCE,
    )


def _hrda_card(variant: MitVariant) -> ModelCard:
    """Card of HRDA on 8-bit RGB: DAFormer's, with the paper's context of 1024 px.

    The network takes multiples of 64, too; but of 64 px the deepest map is one pixel, which an exported
    program would take for a constant.
    """
    return _daformer_card(variant).model_copy(
        update={
            "name": f"hrda-{variant}",
            "description": f"HRDA with MiT-{variant.upper()}: context and details of RGB to five classes",
            "window": WindowRule(size=1024, multiple=128, maximum=2048),
            "stride": 64,
            "trim": 64,
            "feather": 64,
            "sources": (_PAPER_HRDA,),
        }
    )


def _daspm_hrda_card(variant: MitVariant) -> ModelCard:
    """Card of DASPM with HRDA's network: a context of 1280 px of 2 m, details of 640."""
    return _daspm_card(variant).model_copy(
        update={
            "name": f"daspm-hrda-{variant}",
            "description": f"DASPM on HRDA with MiT-{variant.upper()}: RGB of 10 m to five classes of 2 m",
            "window": WindowRule(size=256, multiple=128, maximum=512),
            "stride": 64,
            "feather": 64,
            "sources": (_PAPER_DASPM, _PAPER_HRDA),
        }
    )


def _hrda(v: MitVariant) -> AerialPreset:
    return replace(
        _daformer(v),
        name=f"hrda-{v}",
        network="hrda",
        build=partial(HRDA, v),
        build_for=partial(_build_for, HRDA, v, 1),
        card=partial(_hrda_card, v),
        paper=_PAPER_HRDA,
    )


def _daspm_hrda(v: MitVariant) -> AerialPreset:
    return replace(
        _daspm(v),
        name=f"daspm-hrda-{v}",
        network="hrda",
        build=partial(daspm, v, network=HRDA),
        build_for=partial(_build_for, HRDA, v, SUBPIXEL),
        card=partial(_daspm_hrda_card, v),
    )


_HRDA_SIZES: tuple[MitVariant, ...] = ("b0", "b5")

PRESETS = (
    *map(_daformer, MIT_WIDTHS),
    *map(_daspm, MIT_WIDTHS),
    *map(_hrda, _HRDA_SIZES),
    *map(_daspm_hrda, _HRDA_SIZES),
    *(
        _SEMANTIC_FPN.preset(name, build, IMAGENET_RGB)
        for name, build in (
            ("semantic-fpn-resnet18", partial(SemanticFPN, "resnet18")),
            ("semantic-fpn-resnet50", partial(SemanticFPN, "resnet50")),
            ("semantic-fpn-resnet50-dense", partial(SemanticFPN, "resnet50", decoder="dense_multiscale")),
        )
    ),
)
