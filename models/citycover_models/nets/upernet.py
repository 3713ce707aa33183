"""UPerNet on a residual encoder: the baseline of remote-sensing pre-training studies.

Xiao et al. 2018, "Unified Perceptual Parsing for Scene Understanding", ECCV,
https://arxiv.org/abs/1807.10221, section 3.1; encoder of He et al. 2016 (`blocks/resnet.py`).

    window ─▶ normalise ─▶ ResNet: C2 /4, C3 /8, C4 /16, C5 /32 ─▶ UPerHead ─▶ logits /4 ─ x4 ─▶ /1

Notable choices:
- all four maps enter the head, the coarsest through pyramid pooling (`blocks/uper_head.py`);
- logits are enlarged four times, bilinear, corners not aligned;
- windows of any size from 32 on: maps of odd sides are fitted to each other inside the head.

The encoder's parameters (`encoder.*`) take ImageNet weights (torchvision) and those pre-trained on remote
sensing imagery in the same names ("IMP" and "RSP" of Wang et al. 2022, IEEE TGRS).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.resnet import ResNet, ResNetVariant
from citycover_models.blocks.sides import check_sides
from citycover_models.blocks.uper_head import UPerHead
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics

_STRIDE = 32


class UPerNet(Learnable):
    """Raw digital numbers -> logits on the same grid; windows of at least 32 x 32.

    Args:
        variant: encoder.
        num_classes: K.
        statistics: mean and deviation of each band; their number is the number of bands.
        channels: inside the head.
    """

    def __init__(
        self,
        variant: ResNetVariant = "resnet50",
        num_classes: int = 8,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        channels: int = 512,
    ) -> None:
        super().__init__()
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.encoder = ResNet(variant, len(statistics.mean))
        self.head = UPerHead(self.encoder.dims[1:], num_classes, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits (n, k, y, x)."""
        check_sides("UPerNet", x.shape[2], x.shape[3], self.multiple, 32)
        logits = self.head(self.encoder(self.normalise(x))[1:])  # (n, k, y/4, x/4)
        return F.interpolate(logits, size=[x.shape[2], x.shape[3]], mode="bilinear", align_corners=False)
