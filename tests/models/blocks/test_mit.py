"""Mix Transformer encoders: counts, names, shapes, and attention against a plain loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from citycover_models.blocks.drop_path import DropPath
from citycover_models.blocks.mit import EfficientSelfAttention, MitVariant, MixTransformer

PUBLISHED_MILLIONS: dict[MitVariant, float] = {
    "b0": 3.319,
    "b1": 13.151,
    "b2": 24.196,
    "b3": 44.072,
    "b4": 60.843,
    "b5": 81.443,
}


@pytest.mark.parametrize(("variant", "millions"), PUBLISHED_MILLIONS.items())
def test_parameter_counts_are_the_published_ones(variant: MitVariant, millions: float) -> None:
    with torch.device("meta"):
        encoder = MixTransformer(variant)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 3) == millions


def test_parameters_are_named_and_shaped_as_in_the_public_checkpoints() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in MixTransformer("b5").state_dict().items()}
    known = {
        "patch_embed1.proj.weight": (64, 3, 7, 7),
        "patch_embed3.norm.bias": (320,),
        "block1.0.norm1.weight": (64,),
        "block1.2.attn.q.bias": (64,),
        "block1.2.attn.kv.weight": (128, 64),
        "block1.2.attn.sr.weight": (64, 64, 8, 8),
        "block1.2.attn.norm.weight": (64,),
        "block2.5.attn.proj.weight": (128, 128),
        "block3.39.mlp.fc1.weight": (1280, 320),
        "block3.39.mlp.dwconv.dwconv.weight": (1280, 1, 3, 3),
        "block4.2.mlp.fc2.bias": (512,),
        "norm4.weight": (512,),
    }
    assert {name: shapes[name] for name in known} == known
    assert not any(name.startswith("block4") and (".sr." in name or "attn.norm" in name) for name in shapes)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (33, 50)])
def test_maps_lie_at_strides_4_to_32(size: tuple[int, int]) -> None:
    encoder = MixTransformer("b0", in_channels=4).eval()
    with torch.inference_mode():
        maps = encoder(torch.randn(2, 4, *size))
    strides = (4, 8, 16, 32)
    assert [tuple(m.shape) for m in maps] == [
        (2, dim, -(-size[0] // s), -(-size[1] // s))
        for dim, s in zip((32, 64, 160, 256), strides, strict=True)
    ]


def _attend_slowly(attention: EfficientSelfAttention, x: Tensor, height: int, width: int) -> Tensor:
    """One query at a time, one head at a time: softmax(q k / sqrt(d)) v."""
    n, length, dim = x.shape
    grid = x.transpose(1, 2).reshape(n, dim, height, width)
    source = attention.norm(attention.sr(grid).flatten(2).transpose(1, 2))
    q, (k, v) = attention.q(x), attention.kv(source).split(dim, dim=2)
    d = dim // attention.heads
    out = torch.zeros_like(x)
    for head in range(attention.heads):
        part = slice(head * d, (head + 1) * d)
        for i in range(length):
            weights = (q[:, i : i + 1, part] @ k[:, :, part].transpose(1, 2) / d**0.5).softmax(-1)
            out[:, i, part] = (weights @ v[:, :, part])[:, 0]
    return attention.proj(out)


def test_attention_equals_a_loop_over_queries() -> None:
    torch.manual_seed(0)
    attention = EfficientSelfAttention(dim=12, heads=3, reduction=2)
    x = torch.randn(2, 4 * 6, 12)
    with torch.inference_mode():
        torch.testing.assert_close(attention(x, 4, 6), _attend_slowly(attention, x, 4, 6))


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    dropped = drop(x).flatten(1)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert torch.equal(dropped.amin(1), dropped.amax(1))
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert drop.eval()(x) is x
    with pytest.raises(ValueError, match="got 1"):
        DropPath(1.0)
