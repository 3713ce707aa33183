"""Paraformer (L2HNet v2): a ViT beside a full-resolution CNN, both taught by coarse labels.

Li et al. 2024, "Learning without Exact Guidance: Updating Large-scale High-resolution Land Cover Maps from
Low-resolution Historical Labels", CVPR, https://arxiv.org/abs/2403.02746.

    window ─▶ normalise ─▶ L2HNet encoder ─┬─ /16 ─▶ tokens + positions ─▶ ViT ─┐
                                           ├─ /16, /4, /2 ───────────────▶ CUP ◀┘
                                           │                              Z │
                                           │          ┌─ 3x3, 1, x2 ◀───────┴──────▶ 3x3, 256, x2 ─┐
                                           └─ /1 ─────┴─ concat ─▶ 3x3, K: CNN      3x3, K: ViT ◀──┘

Notable choices:
- the CNN keeps full resolution (`nets/l2hnet.py`, 5 blocks); the ViT sees the whole window;
- the CNN's head sees one channel of the ViT's decoder beside its own features;
- each head is trained by itself (`plat_loss`): the CNN on the coarse labels, the ViT only where the CNN
  agrees with them; a map is made from the mean of both logits, softmax((a + b) / 2);
- as published, output channel 0 stands for "no label" and is never a target: `void_channel` keeps it for
  training and for counts, `forward` leaves it out.

citycover's choices: positions are resized to the window in hand, so windows are any multiple of 16 instead
of 224 alone; weights of the loss are options (the code weighs 0.5 and 0.5, the equation 1 and 1); where no
pixel agrees the ViT's loss is 0 instead of NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.cross_entropy import cross_entropy
from citycover_models.blocks.decoder_cup import DecoderBranch, DecoderCup
from citycover_models.blocks.learnable import Learnable
from citycover_models.blocks.normalise import Normalise
from citycover_models.blocks.sides import check_sides
from citycover_models.blocks.vit import ViTEncoder, map_to_tokens, resize_positions, tokens_to_map
from citycover_models.imagery.aerial import CHESAPEAKE_RGBN, AerialStatistics
from citycover_models.nets.l2hnet import EncoderWidths, L2HNetEncoder


@dataclass(frozen=True, slots=True)
class ParaformerWidths:
    """How wide and deep everything is; the defaults are the published network with ViT-B/16."""

    encoder: EncoderWidths = field(default_factory=EncoderWidths)
    dim: int = 768
    """Channels of a token."""
    depth: int = 12
    heads: int = 12
    grid: int = 14
    """Side of the grid that positions are learned on: 224 / 16."""
    decoder: tuple[int, int, int] = (512, 512, 640)
    vit_map: int = 256
    """Channels before the ViT's head."""


class Paraformer(Learnable):
    """Raw digital numbers -> logits on the same grid; sides of windows are multiples of 16.

    Args:
        num_classes: K without the void channel.
        statistics: mean and deviation of each band; their number is the number of bands.
        widths: of all parts.
        void_channel: both heads have a channel 0 for "no label", as published.
        dropout: of embedding and MLPs.
    """

    def __init__(
        self,
        num_classes: int = 16,
        *,
        statistics: AerialStatistics = CHESAPEAKE_RGBN,
        widths: ParaformerWidths = ParaformerWidths(),
        void_channel: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.multiple = 16
        self.first_class = int(void_channel)
        self.grid = widths.grid
        encoder, dim = widths.encoder, widths.dim
        outputs = num_classes + self.first_class
        self.normalise = Normalise(statistics.mean, statistics.std)
        self.encoder = L2HNetEncoder(len(statistics.mean), encoder)
        self.to_tokens = nn.Conv2d(encoder.deep, dim, 1)
        self.pos_embed = nn.Parameter(torch.zeros(1, widths.grid**2, dim))
        self.dropout = nn.Dropout(dropout)
        self.vit = ViTEncoder(dim, widths.depth, widths.heads, dropout=dropout)
        self.decoder = DecoderCup(dim, encoder.half * encoder.blocks, encoder.deep, widths.decoder)
        self.branch_cnn = DecoderBranch(self.decoder.out_channels, 1)
        self.branch_vit = DecoderBranch(self.decoder.out_channels, widths.vit_map)
        self.head_cnn = nn.Conv2d(encoder.width + 1, outputs, 3, padding=1)
        self.head_vit = nn.Conv2d(widths.vit_map, outputs, 3, padding=1)

    @torch.jit.export
    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (n, b, y, x) -> logits of CNN and ViT, each (n, K or K + void, y, x): what training needs.

        Raises:
            ModelError: a side is no multiple of 16.
        """
        check_sides("Paraformer", x.shape[2], x.shape[3], self.multiple)
        maps = self.encoder(self.normalise(x))  # /1, /2, /4, /16
        height, width = maps[3].shape[2], maps[3].shape[3]
        tokens = map_to_tokens(self.to_tokens(maps[3]))  # (n, y/16 * x/16, 768)
        tokens = self.dropout(tokens + resize_positions(self.pos_embed, self.grid, height, width))
        z = self.decoder(tokens_to_map(self.vit(tokens), height, width), maps)  # (n, 1280, y/2, x/2)
        cnn = self.head_cnn(torch.cat([self.branch_cnn(z), maps[0]], dim=1))  # (n, 1 + w, y, x) -> K
        return cnn, self.head_vit(self.branch_vit(z))

    def forward(self, x: Tensor) -> Tensor:
        """Raw (n, b, y, x) -> logits (n, num_classes, y, x), the mean of both branches.

        Raises:
            ModelError: a side is no multiple of 16.
        """
        cnn, vit = self.branches(x)
        return (0.5 * (cnn + vit))[:, self.first_class :]


def plat_loss(
    cnn: Tensor,
    vit: Tensor,
    labels: Tensor,
    *,
    ignore: int = 0,
    weights: tuple[float, float] = (0.5, 0.5),
    aux_loss: Literal["ce", "dice"] = "ce",
    keep_shares: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Pseudo-label-assisted training: the CNN's agreement with the coarse labels chooses what the ViT learns.

    L = a L_cnn + b L_vit, L_cnn = CE(cnn, Y), L_vit = CE(vit, M), and M = Y where argmax(cnn) = Y.
    Either term is 0, with zero gradients, where it has no pixel (the published code gives NaN).

    Args:
        cnn: (n, k, y, x) logits of the CNN.
        vit: (n, k, y, x) logits of the ViT.
        labels: (n, y, x) coarse labels as channel numbers.
        ignore: label of pixels without one; 0 for heads with a void channel, 255 for those without.
        weights: a and b; the published code has 0.5 and 0.5, the paper's equation 1 and 1.
        aux_loss: of the CNN's term; `dice` as a figure of VCNet draws it, see `dice_loss`.
        keep_shares: see `cross_entropy`; not published.
        class_weights: see `cross_entropy`; not published.
    """
    agreed = cnn.detach().argmax(dim=1) == labels  # mask cross-entropy: M
    l_vit = cross_entropy(
        vit, labels, agreed, ignore=ignore, keep_shares=keep_shares, class_weights=class_weights
    )
    if aux_loss == "dice":
        l_cnn = dice_loss(cnn, labels, ignore)
    else:
        l_cnn = cross_entropy(cnn, labels, ignore=ignore, class_weights=class_weights)
    return weights[0] * l_cnn + weights[1] * l_vit


def dice_loss(logits: Tensor, labels: Tensor, ignore: int) -> Tensor:
    """1 - (2 sum p y + 1) / (sum p + sum y + 1), over labelled pixels, mean over the classes among them.

    citycover's interpretation: VCNet's figure names the loss, and gives no formula.
    """
    k = logits.shape[1]
    valid = (labels != ignore).unsqueeze(1)  # (n, 1, y, x)
    one_hot = F.one_hot(labels.where(labels != ignore, 0).long(), k).permute(0, 3, 1, 2) * valid
    p = logits.softmax(dim=1) * valid
    area = one_hot.sum(dim=(0, 2, 3))  # (k,)
    overlap = (2.0 * (p * one_hot).sum(dim=(0, 2, 3)) + 1.0) / (p.sum(dim=(0, 2, 3)) + area + 1.0)
    present = area > 0
    return ((1.0 - overlap) * present).sum() / present.sum().clamp(min=1)
