"""EfficientNet: counts, names, padding against its definition, endpoints."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from citycover_models.blocks.cbam import CBAM
from citycover_models.blocks.efficientnet import EfficientNet, EfficientNetVariant, SameConv2d


@pytest.mark.parametrize(("variant", "parameters"), [("b0", 5_288_548), ("b5", 30_389_784)])
def test_parameter_counts_are_the_published_ones(variant: EfficientNetVariant, parameters: int) -> None:
    with torch.device("meta"):
        net = EfficientNet(variant, num_classes=1000)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_parameters_are_named_and_shaped_as_in_the_public_weights() -> None:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in EfficientNet("b0", num_classes=1000).state_dict().items()}
    known = {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_bn0.running_var": (32,),
        "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
        "_blocks.0._se_reduce.weight": (8, 32, 1, 1),
        "_blocks.1._expand_conv.weight": (96, 16, 1, 1),
        "_blocks.1._bn0.weight": (96,),
        "_blocks.1._se_reduce.bias": (4,),
        "_blocks.15._project_conv.weight": (320, 1152, 1, 1),
        "_blocks.15._bn2.bias": (320,),
        "_conv_head.weight": (1280, 320, 1, 1),
        "_bn1.num_batches_tracked": (),
        "_fc.weight": (1000, 1280),
    }
    assert {name: shapes[name] for name in known} == known
    assert not any(name.startswith(("_blocks.0._expand", "_blocks.0._bn0")) for name in shapes)


def test_b5_has_the_published_endpoints_for_a_patch_of_120() -> None:
    with torch.device("meta"):
        endpoints = EfficientNet("b5", in_channels=12).eval()(torch.empty(1, 12, 120, 120))
    assert [tuple(e.shape[1:]) for e in endpoints] == [
        (24, 60, 60),
        (40, 30, 30),
        (64, 15, 15),
        (176, 8, 8),
        (512, 4, 4),
        (2048, 4, 4),
    ]


def test_endpoints_of_any_size_lie_at_their_strides() -> None:
    net = EfficientNet("b0", in_channels=4).eval()
    with torch.inference_mode():
        endpoints = net(torch.randn(2, 4, 63, 40))
        classes = net.classify(torch.randn(2, 4, 63, 40))
    assert [tuple(e.shape) for e in endpoints] == [
        (2, c, -(-63 // s), -(-40 // s)) for c, s in zip(net.channels, net.strides, strict=True)
    ]
    assert classes.shape == (2, 1280)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [8, 9])
def test_same_padding_is_what_tensorflow_defines(kernel: int, size: int) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel)
    x = torch.randn(1, 2, size, size)
    out = -(-size // 2)
    total = max((out - 1) * 2 + kernel - size, 0)
    before, after = total // 2, total - total // 2
    expected = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, stride=2)
    torch.testing.assert_close(conv(x), expected)
    assert conv(x).shape[-1] == out


def test_scripted_encoder_equals_the_eager_one() -> None:
    torch.manual_seed(0)
    net = EfficientNet("b0").eval()
    scripted = torch.jit.script(net)
    with torch.inference_mode():
        for x in (torch.randn(1, 3, 32, 45), torch.randn(2, 3, 64, 32)):
            torch.testing.assert_close(scripted(x), net(x), rtol=1e-5, atol=1e-5)


def test_cbam_gates_lie_between_none_and_all_of_the_input() -> None:
    torch.manual_seed(0)
    cbam = CBAM(32)
    x = torch.rand(2, 32, 5, 6)
    y = cbam(x)
    assert y.shape == x.shape
    assert bool(((y >= x) & (y <= 2 * x)).all())
    torch.testing.assert_close(CBAM(32, residual=False).requires_grad_(False)(x * 0), x * 0)


def test_static_padding_is_that_of_the_side_the_variant_was_tuned_for() -> None:
    """B5 was tuned for 456 px, where the last strided layer sees 29 px: odd. At 120 px it sees 8: even."""
    net = EfficientNet("b5", 4, static=True)
    strided = [m for m in net.modules() if isinstance(m, SameConv2d)]
    assert [m.parity for m in strided] == [0, 0, 0, 1, 1]
    last, x = strided[-1], torch.rand(1, strided[-1].in_channels, 8, 8)
    padded = F.pad(x, [2, 2, 2, 2])  # kernel 5: (2, 2) where the size at hand would give (1, 2)
    expected = F.conv2d(padded, last.weight, stride=2, groups=last.groups)
    torch.testing.assert_close(last(x), expected)
    at_hand = EfficientNet("b5", 4)
    assert all(m.parity == -1 for m in at_hand.modules() if isinstance(m, SameConv2d))


def test_static_padding_shrinks_20_m_patches_to_one_pixel_in_b0() -> None:
    with torch.device("meta"):
        static, at_hand = EfficientNet("b0", 6, static=True).eval(), EfficientNet("b0", 6).eval()
        x = torch.empty(1, 6, 60, 60)
        assert static(x)[5].shape[2:] == (1, 1) and at_hand(x)[5].shape[2:] == (2, 2)
