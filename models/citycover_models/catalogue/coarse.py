"""Presets of the networks that learn fine maps from coarse labels."""

from __future__ import annotations

from functools import partial

from citycover.model.card import WindowRule
from citycover_models.blocks.rp import RATIOS_VCNET
from citycover_models.catalogue.aerial import Family
from citycover_models.imagery.aerial import POLAND_RGB
from citycover_models.nets.c2fnet import C2FNet, C2FNetWidths
from citycover_models.nets.l2hnet import EncoderWidths, L2HNet
from citycover_models.nets.paraformer import Paraformer, ParaformerWidths
from citycover_models.nets.vcnet import VCNet, VCNetWidths
from citycover_models.nets.vhf_paranet import VHFParaNet, VHFWidths

_RECORD_ONLY = (
    "Written afresh from a description of the public record, which has no code of the network and no licence."
)


def _l2hnet(blocks: int) -> Family:
    return Family(
        network="l2hnet",
        description="L2HNet: full resolution throughout, learns from coarse labels",
        legend="nlcd",
        window=WindowRule(size=512, maximum=4096),
        stride=1,
        trim=1 + 2 * blocks,  # half of the receptive field: what lies deeper inside never sees padding
        feather=2,
        receptive_field=3 + 4 * blocks,  # 3x3, then 5x5 in every block
        paper="Li et al. 2022, L2HNet, ISPRS J. Photogramm. Remote Sens. 192, "
        "doi:10.1016/j.isprsjprs.2022.08.008",
        licence_note="Written afresh from a description of the public record. L2HNet's successor Paraformer, "
        "which holds the network, is published under Apache-2.0; no weights are shipped.",
    )


# All others see their whole window, by attention or by pooling: neighbours also hand over by a feather.

_PARAFORMER = Family(
    network="paraformer",
    description="Paraformer: full-resolution CNN and ViT, learns from coarse labels",
    legend="nlcd",
    window=WindowRule(size=224, multiple=16, maximum=1024),  # trained on 224
    stride=16,
    trim=32,
    feather=32,
    paper="Li et al. 2024, Paraformer, CVPR, arXiv:2403.02746",
    licence_note="Paraformer's code is Apache-2.0; this is written afresh from a description of it. The "
    "ImageNet-21k weights of ViT-B/16 are Google's, Apache-2.0. No weights are shipped.",
)

_VCNET = Family(
    network="vcnet",
    description="VCNet: full-resolution CNN and ViT-CoMer, learns from coarse labels",
    legend="base4",
    window=WindowRule(size=224, multiple=32, maximum=1024),  # trained on 224
    stride=32,
    trim=32,
    feather=32,
    paper="VCNet, public record of its repository (1 m land cover of Shanghai); ViT-CoMer, arXiv:2403.07392",
    licence_note="VCNet's code states no licence: this is written afresh from a description of it, and no "
    "file or weight is taken. ViT-CoMer's code and DeiT's weights are Apache-2.0.",
)

_C2FNET = Family(
    network="c2fnet",
    description="C2FNet: full resolution with edges, learns from coarse labels",
    legend="skwanda8",
    native_gsd=0.6,
    window=WindowRule(size=256, multiple=16, maximum=1024),
    stride=16,
    trim=32,
    feather=32,
    paper="C2FNet, public repository (README); RP block: Li et al. 2022, L2HNet; loss: Oh et al. 2021, CVPR",
    licence_note=_RECORD_ONLY,
)

_VHF = Family(
    network="vhf_paranet",
    description="VHF-ParaNet: CNN and ViT side by side, learns from coarse labels",
    legend="skwanda8",
    native_gsd=0.6,
    window=WindowRule(size=256, multiple=16, maximum=1024),
    stride=16,
    trim=32,
    feather=32,
    activation="probabilities",
    paper="VHF-ParaNet, public repository (README); Han et al. 2023, agent attention, arXiv:2312.08874",
    licence_note=_RECORD_ONLY,
)

_PARAFORMER_WIDE = ParaformerWidths(EncoderWidths(width=128))

PARAFORMER_TINY = ParaformerWidths(
    encoder=EncoderWidths(width=16, blocks=2, half=16, deep=64),
    dim=48,
    depth=2,
    heads=3,
    decoder=(32, 32, 40),
    vit_map=32,
)

VCNET_TINY = VCNetWidths(
    encoder=EncoderWidths(width=16, blocks=2, ratios=RATIOS_VCNET, half=16, deep=64),
    dim=48,
    depth=4,
    deform_heads=3,
    base=16,
    decoder=(32, 32, 40),
    cnn_map=32,
    uper=48,
)

_C2FNET_TINY = C2FNetWidths(width=16, blocks=3, embedding=16)

_VHF_TINY = VHFWidths(width=16, blocks=3, dim=48, depth=4, heads=3)

_paraformer_tiny = partial(Paraformer, widths=PARAFORMER_TINY, void_channel=False)

PRESETS = (
    _l2hnet(5).preset("l2hnet-w64", partial(L2HNet, width=64)),
    _l2hnet(5).preset("l2hnet-w128", partial(L2HNet, width=128)),
    _l2hnet(5).preset("l2hnet-w64-rgb", partial(L2HNet, width=64), POLAND_RGB),
    _l2hnet(3).preset("l2hnet-tiny", partial(L2HNet, width=16, blocks=3)),
    _PARAFORMER.preset("paraformer-w64", Paraformer, published=142_714_253),
    _PARAFORMER.preset(
        "paraformer-w128", partial(Paraformer, widths=_PARAFORMER_WIDE), published=145_401_693
    ),
    _PARAFORMER.preset("paraformer-w64-rgb", Paraformer, POLAND_RGB),
    _PARAFORMER.preset("paraformer-tiny", _paraformer_tiny),
    _PARAFORMER.preset("paraformer-tiny-rgb", _paraformer_tiny, POLAND_RGB),
    _VCNET.preset("vcnet-faithful", partial(VCNet, faithful=True), published=98_887_088),
    _VCNET.preset("vcnet-default", VCNet),
    _VCNET.preset("vcnet-default-rgb", VCNet, POLAND_RGB),
    _VCNET.preset("vcnet-tiny", partial(VCNet, widths=VCNET_TINY)),
    _VCNET.preset("vcnet-tiny-rgb", partial(VCNet, widths=VCNET_TINY), POLAND_RGB),
    _C2FNET.preset("c2fnet", C2FNet),
    _C2FNET.preset("c2fnet-rgb", C2FNet, POLAND_RGB),
    _C2FNET.preset("c2fnet-tiny", partial(C2FNet, widths=_C2FNET_TINY)),
    _VHF.preset("vhf-paranet", VHFParaNet),
    _VHF.preset("vhf-paranet-rgb", VHFParaNet, POLAND_RGB),
    _VHF.preset("vhf-paranet-tiny", partial(VHFParaNet, widths=_VHF_TINY)),
)
