"""VCNet: ViT-CoMer and a cascaded decoder on one full-resolution encoder, taught by coarse labels.

The public record of VCNet (repository and README; 1 m land cover of Shanghai, "SHLand-1"), which grew from
L2HNet (`nets/l2hnet.py`) and Paraformer (`nets/paraformer.py`).

    window ─▶ normalise ─▶ L2HNet encoder ─┬─ /16 ─ 1x1 ─▶ tokens + positions ─┬─▶ ViT-CoMer ─▶ f1..f4
                                           ├─ /1 ──────────────────────────────┼──────▲          │
                                           ├─ /4 ─ 1x1 ────────────────────────┼───── fused with f1
                                           │                                   │                 ▼
                                           │                                   │          UPerHead, x4: ViT
                                           └─ /2, /4, /16 ─▶ CUP ◀─────────────┘
                                                              └─▶ 3x3, 256, x2 ─▶ 3x3, K: CNN

Notable choices:
- seven resolution-preserving blocks with kernels 1 and 3 only;
- a ViT of DeiT-tiny's size with factors on its residual paths; DeiT's weights load by name
  (`backbone.blocks.*`);
- the decoder of the CNN branch gets the tokens as they are embedded, not what the ViT makes of them;
- trained by `paraformer.plat_loss` (`aux_loss="dice"` is what VCNet's figure draws, "ce" what its code does);
  a map is made from the mean of both logits.

`faithful=True` keeps what the public code does and counts 98,887,088 parameters at width 64 and K = 5:
- a token is projected to *one* number, to which 192 channels of positions are added, so every channel sees
  the same scalar; without the flag a token has all its channels;
- the outer normalisation of `blocks/vit_comer.py`;
- modules that are built and never used (1,815,830 parameters get no gradient);
- output channel 0 stands for "no label" and is never a target; `forward` leaves it out.

citycover's choices: the pyramid takes the encoder's width instead of 64 alone; positions are resized to the
window in hand, so windows are any multiple of 32 instead of 224 alone; any number of bands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from citycover_models.blocks.conv import ConvBnRelu
from citycover_models.blocks.decoder_cup import DecoderBranch, DecoderCup
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.rp import RATIOS_VCNET
from citycover_models.blocks.sides import check_sides
from citycover_models.blocks.uper_head import UPerHead, resize_like
from citycover_models.blocks.vit import map_to_tokens, resize_positions, tokens_to_map
from citycover_models.blocks.vit_comer import SpatialPyramid, ViTCoMer
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics
from citycover_models.nets.l2hnet import EncoderWidths, L2HNetEncoder


def _encoder() -> EncoderWidths:
    return EncoderWidths(blocks=7, ratios=RATIOS_VCNET)


@dataclass(frozen=True, slots=True)
class VCNetWidths:
    """How wide and deep everything is; the defaults are the published network."""

    encoder: EncoderWidths = field(default_factory=_encoder)
    dim: int = 192
    """Channels of a token and of the pyramid."""
    depth: int = 12
    heads: int = 3
    deform_heads: int = 6
    grid: int = 14
    """Side of the grid that positions are learned on: 224 / 16."""
    base: int = 64
    """Channels of the pyramid's stem."""
    decoder: tuple[int, int, int] = (512, 512, 640)
    cnn_map: int = 256
    """Channels before the CNN's head."""
    uper: int = 512
    """Channels in the ViT's head."""


class PublishedButUnused(nn.Module):
    """What the public network builds and never calls: only for counts and for checkpoints."""

    def __init__(self, bands: int, widths: VCNetWidths, outputs: int, z: int) -> None:
        super().__init__()
        dim = widths.dim
        # FCN head on f3, loss weight 0.4 in the configuration.
        self.auxiliary_head = nn.Sequential(ConvBnRelu(dim, 256, 3, bias=True), nn.Conv2d(256, outputs, 1))
        # ViT-CoMer's own way in, for images instead of tokens.
        self.channel_conv = nn.Conv2d(bands, 3, 1)
        self.patch_embed = nn.Conv2d(3, dim, 16, stride=16)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + widths.grid**2, dim))
        self.spm = SpatialPyramid(bands, dim, widths.base)
        # Paraformer's decoder branch towards the CNN.
        self.decoder_branch = ConvBnRelu(z, 1)


class VCNet(Learnable):
    """Raw digital numbers -> logits on the same grid; sides of windows are multiples of 32.

    Args:
        num_classes: K without the void channel.
        statistics: mean and deviation of each band; their number is the number of bands.
        widths: of all parts.
        faithful: keep the quirks listed above, the void channel among them.
        dropout: of the embedding.
    """

    def __init__(
        self,
        num_classes: int = 4,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        widths: VCNetWidths = VCNetWidths(),
        faithful: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.multiple = 32
        self.first_class = int(faithful)
        self.grid = widths.grid
        bands, encoder, dim = len(statistics.mean), widths.encoder, widths.dim
        outputs = num_classes + self.first_class
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.encoder = L2HNetEncoder(bands, encoder)
        self.to_tokens = nn.Conv2d(encoder.deep, 1 if faithful else dim, 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, widths.grid**2, dim))
        self.dropout = nn.Dropout(dropout)
        self.backbone = ViTCoMer(
            encoder.width,
            dim=dim,
            depth=widths.depth,
            heads=widths.heads,
            deform_heads=widths.deform_heads,
            base=widths.base,
            outer_norm=faithful,
        )
        self.reduce_quarter = nn.Conv2d(encoder.deep, dim, 1)
        self.fuse_quarter = nn.Conv2d(2 * dim, dim, 1)
        self.head_vit = UPerHead([dim] * 4, outputs, widths.uper)
        self.decoder = DecoderCup(dim, encoder.half * encoder.blocks, encoder.deep, widths.decoder)
        self.branch_cnn = DecoderBranch(self.decoder.out_channels, widths.cnn_map)
        self.head_cnn = nn.Conv2d(widths.cnn_map, outputs, 3, padding=1)
        if faithful:
            self.unused = PublishedButUnused(bands, widths, outputs, self.decoder.out_channels)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @torch.jit.export
    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (n, b, y, x) -> logits of CNN and ViT, each (n, K or K + void, y, x): what training needs.

        Raises:
            ModelError: a side is no multiple of 32.
        """
        check_sides("VCNet", x.shape[2], x.shape[3], self.multiple)
        x = self.normalise(x)
        maps = self.encoder(x)  # /1 (64), /2 (896), /4 (1024), /16 (1024)
        height, width = maps[3].shape[2], maps[3].shape[3]
        tokens = map_to_tokens(self.to_tokens(maps[3]))  # (n, y/16 * x/16, 192, or 1 in faithful form)
        tokens = self.dropout(tokens + resize_positions(self.pos_embed, self.grid, height, width))

        levels = self.backbone(tokens, maps[0])  # f1..f4: /4, /8, /16, /32, each 192
        # Feature fusion module: the encoder's own map at /4 beside f1.
        levels[0] = self.fuse_quarter(torch.cat([self.reduce_quarter(maps[2]), levels[0]], dim=1))
        vit = resize_like(self.head_vit(levels), x)  # (n, K, y, x)

        z = self.decoder(tokens_to_map(tokens, height, width), maps)  # (n, 640 + 896, y/2, x/2)
        return self.head_cnn(self.branch_cnn(z)), vit

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits (n, num_classes, y, x), the mean of both branches.

        Raises:
            ModelError: a side is no multiple of 32.
        """
        cnn, vit = self.branches(x)
        return (0.5 * (cnn + vit))[:, self.first_class :]
