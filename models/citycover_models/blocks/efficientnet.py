"""EfficientNet-B0 and -B5.

Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML,
https://arxiv.org/abs/1905.11946, table 1 and section 3.3.

Notable choices:
- one table of seven stages; B5 is B0 with 1.6 times the channels and 2.2 times the blocks;
- MBConv blocks: expand, depthwise, squeeze-and-excitation on a quarter of the block's *input* channels,
  project, residual where the shape allows it; Swish everywhere;
- "SAME" padding as TensorFlow has it, computed from the size at hand: a strided convolution turns n pixels
  into ceil(n / 2) whatever n is, and where an odd number of pixels is to be padded the right and the bottom
  side get the larger half;
- batch normalisation with momentum 0.01 and eps 1e-3; stochastic depth rises linearly to 0.2.

Parameters are named as in the public weights of the `efficientnet-pytorch` package (`_conv_stem.weight`,
`_blocks.0._depthwise_conv.weight`, `_blocks.0._se_reduce.bias`, `_conv_head.weight`, `_fc.weight`), which
were converted from TensorFlow and need this padding. The weights of torchvision (`features.0.0.weight`) were
learnt with symmetric padding and another eps: they are a different network and do not load here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from citycover_models.blocks.drop_path import DropPath

EfficientNetVariant = Literal["b0", "b5"]

_BN_MOMENTUM, _BN_EPS = 0.01, 1e-3

_SE_RATIO = 0.25

_DROP_CONNECT = 0.2


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of table 1: blocks of one kind; only the first of them has the stride."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


_STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expand=1, channels=16),
    Stage(repeats=2, kernel=3, stride=2, expand=6, channels=24),
    Stage(repeats=2, kernel=5, stride=2, expand=6, channels=40),
    Stage(repeats=3, kernel=3, stride=2, expand=6, channels=80),
    Stage(repeats=3, kernel=5, stride=1, expand=6, channels=112),
    Stage(repeats=4, kernel=5, stride=2, expand=6, channels=192),
    Stage(repeats=1, kernel=3, stride=1, expand=6, channels=320),
)

_STEM, _HEAD = 32, 1280


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a variant grows out of B0 (section 3.3)."""

    width: float
    depth: float
    dropout: float
    side: int
    """Of the images that it was tuned for, pixels."""

    def channels(self, base: int) -> int:
        """Scaled channels, rounded to a multiple of 8 that is not more than 10 % too small."""
        scaled = base * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def repeats(self, base: int) -> int:
        """Scaled number of blocks, rounded up."""
        return math.ceil(base * self.depth)


SCALINGS: dict[EfficientNetVariant, Scaling] = {
    "b0": Scaling(width=1.0, depth=1.0, dropout=0.2, side=224),
    "b5": Scaling(width=1.6, depth=2.2, dropout=0.4, side=456),
}


class SameConv2d(nn.Conv2d):
    """A bias-free convolution of stride 2 with TensorFlow's SAME padding: n -> ceil(n / 2).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: side.
        groups: of channels.
        built_for: pad as for this many pixels, whatever comes ("static" padding); None: as for what comes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, groups: int = 1, built_for: int | None = None
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=2, groups=groups, bias=False)
        self.parity = -1 if built_for is None else built_for % 2
        """1: pad as for an odd number of pixels; 0: as for an even one; -1: as for what comes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Conv2d gives it
        """(n, c, y, x) -> (n, c', ceil(y / 2), ceil(x / 2))."""
        kernel_y, kernel_x = self.kernel_size
        # ceil(n / 2) outputs see 2 (ceil(n / 2) - 1) + k pixels: k - 2 more than n if n is even, else k - 1.
        down = kernel_y - 2 + (input.shape[2] % 2 if self.parity < 0 else self.parity)
        right = kernel_x - 2 + (input.shape[3] % 2 if self.parity < 0 else self.parity)
        x = F.pad(input, [right // 2, right - right // 2, down // 2, down - down // 2])
        return F.conv2d(x, self.weight, None, self.stride, 0, self.dilation, self.groups)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BN_EPS, momentum=_BN_MOMENTUM)


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation."""

    def __init__(
        self,
        in_channels: int,
        stage: Stage,
        stride: int,
        out_channels: int,
        drop: float,
        built_for: int | None = None,
    ) -> None:
        super().__init__()
        hidden = in_channels * stage.expand
        squeezed = max(1, int(in_channels * _SE_RATIO))
        self.expands = stage.expand != 1
        self.strided = stride == 2
        self.residual = stride == 1 and in_channels == out_channels
        # Identity holds no parameters: blocks without expansion lack these keys in the public weights.
        self._expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False) if self.expands else nn.Identity()
        self._bn0 = _batch_norm(hidden) if self.expands else nn.Identity()
        self._depthwise_conv = (
            SameConv2d(hidden, hidden, stage.kernel, groups=hidden, built_for=built_for)
            if self.strided
            else nn.Conv2d(hidden, hidden, stage.kernel, padding=stage.kernel // 2, groups=hidden, bias=False)
        )
        self._bn1 = _batch_norm(hidden)
        self._se_reduce = nn.Conv2d(hidden, squeezed, 1)
        self._se_expand = nn.Conv2d(squeezed, hidden, 1)
        self._project_conv = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self._bn2 = _batch_norm(out_channels)
        self._drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, c', ceil(y / stride), ceil(x / stride))."""
        inputs = x
        if self.expands:
            x = F.silu(self._bn0(self._expand_conv(x)))
        x = F.silu(self._bn1(self._depthwise_conv(x)))
        gate = x.mean(dim=(2, 3), keepdim=True)  # (n, hidden, 1, 1)
        gate = self._se_expand(F.silu(self._se_reduce(gate)))
        x = self._bn2(self._project_conv(gate.sigmoid() * x))
        if self.residual:
            x = inputs + self._drop(x)
        return x


class EfficientNet(nn.Module):
    """Image -> six endpoints r1..r6, at strides 2, 4, 8, 16, 32 and 32.

    r1 to r4 are what stands before the next halving, r5 the last block, r6 the 1x1 head above it. Any size
    is taken. With `num_classes` there is the classifier of the public weights too; see `classify`.
    """

    strides = (2, 4, 8, 16, 32, 32)

    def __init__(
        self,
        variant: EfficientNetVariant,
        in_channels: int = 3,
        num_classes: int = 0,
        *,
        static: bool = False,
    ) -> None:
        """Set up.

        Args:
            variant: which size.
            in_channels: bands.
            num_classes: 0: no classifier.
            static: pad as for the side that the variant was tuned for, as the `efficientnet-pytorch` package
                does; False: as for the size at hand.
        """
        super().__init__()
        scaling = SCALINGS[variant]
        stem, head = scaling.channels(_STEM), scaling.channels(_HEAD)
        sizes: list[int | None] = static_sizes(scaling.side) if static else [None] * 5
        self._conv_stem = SameConv2d(in_channels, stem, 3, built_for=sizes[0])
        self._bn0 = _batch_norm(stem)
        blocks, last = _make_blocks(scaling, stem, sizes[1:])
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(last, head, 1, bias=False)
        self._bn1 = _batch_norm(head)
        self._dropout = nn.Dropout(scaling.dropout)
        self._fc = nn.Linear(head, num_classes) if num_classes else nn.Identity()
        ends = [scaling.channels(s.channels) for s in _STAGES]
        self.channels = (ends[0], ends[1], ends[2], ends[4], ends[6], head)
        """Channels of r1..r6."""
        self.dropout = scaling.dropout
        """Dropout before the classifier that belongs to this variant."""
        self.apply(_init_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, c, y, x) -> r1..r6, each (n, channels[i], ceil(y / strides[i]), ceil(x / strides[i]))."""
        x = F.silu(self._bn0(self._conv_stem(x)))  # (n, stem, y/2, x/2)
        endpoints: list[Tensor] = []
        for block in self._blocks:
            if block.strided:
                endpoints.append(x)
            x = block(x)
        endpoints.append(x)
        endpoints.append(F.silu(self._bn1(self._conv_head(x))))  # (n, head, y/32, x/32)
        return endpoints

    def classify(self, x: Tensor) -> Tensor:
        """(n, c, y, x) -> (n, num_classes) logits, or the pooled features where there is no classifier."""
        return self._fc(self._dropout(self.forward(x)[5].mean(dim=(2, 3))))


def static_sizes(side: int) -> list[int | None]:
    """Sides of what the five strided convolutions see of an image of `side` pixels.

    >>> static_sizes(456)
    [456, 228, 114, 57, 29]
    """
    sizes: list[int | None] = []
    for _ in range(5):
        sizes.append(side)
        side = -(-side // 2)
    return sizes


def _make_blocks(scaling: Scaling, stem: int, sizes: list[int | None]) -> tuple[list[MBConv], int]:
    """All blocks of all stages, and the channels of the last one."""
    total = sum(scaling.repeats(s.repeats) for s in _STAGES)
    blocks: list[MBConv] = []
    channels, strided = stem, iter(sizes)
    for stage in _STAGES:
        out = scaling.channels(stage.channels)
        size = next(strided) if stage.stride == 2 else None
        for i in range(scaling.repeats(stage.repeats)):
            drop = _DROP_CONNECT * len(blocks) / total
            blocks.append(MBConv(channels, stage, stage.stride if i == 0 else 1, out, drop, size))
            channels = out
    return blocks, channels


def _init_weights(module: nn.Module) -> None:
    """Normal by fan-out for convolutions, uniform by fan-out for the classifier, zero biases."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1.0 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
