"""Presets of the plain baselines: U-Net and UPerNet on residual encoders."""

from __future__ import annotations

from functools import partial

from citycover.model.card import WindowRule
from citycover_models.catalogue.aerial import Family
from citycover_models.imagery.aerial import POLAND_RGB
from citycover_models.nets.unet import UNet
from citycover_models.nets.upernet import UPerNet

_UNET = Family(
    network="unet",
    description="U-Net on a residual encoder",
    legend="skwanda8",
    window=WindowRule(size=512, multiple=32, maximum=4096),
    stride=32,
    trim=64,
    feather=32,
    paper="Ronneberger et al. 2015, U-Net, MICCAI, arXiv:1505.04597; He et al. 2016, ResNet, CVPR",
    licence_note="Written afresh from the papers; public ImageNet weights have licences of their own.",
)

_UPERNET = Family(
    network="upernet",
    description="UPerNet on a residual encoder",
    legend="skwanda8",
    window=WindowRule(size=512, multiple=32, maximum=2048),
    stride=32,
    trim=64,
    feather=64,  # pyramid pooling sees the whole window, so neighbours also hand over by a feather
    paper="Xiao et al. 2018, UPerNet, ECCV, arXiv:1807.10221; He et al. 2016, ResNet, CVPR",
    licence_note="Written afresh from the papers; public encoder weights have licences of their own.",
)

PRESETS = (
    _UNET.preset("unet-resnet18", partial(UNet, "resnet18")),
    _UNET.preset("unet-resnet50", partial(UNet, "resnet50")),
    _UNET.preset("unet-resnet18-rgb", partial(UNet, "resnet18"), POLAND_RGB),
    _UPERNET.preset("upernet-resnet18", partial(UPerNet, "resnet18")),
    _UPERNET.preset("upernet-resnet50", partial(UPerNet, "resnet50")),
    _UPERNET.preset("upernet-resnet50-rgb", partial(UPerNet, "resnet50"), POLAND_RGB),
)
