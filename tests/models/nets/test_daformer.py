"""DAFormer and DASPM: counts, names, sizes, the fine grid, losses, scripted and exported forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from citycover.errors import ModelError
from citycover_models.catalogue.registry import presets_of
from citycover_models.nets.daformer import (
    SUBPIXEL,
    DAFormer,
    DAFormerHead,
    abundances,
    daspm,
    feature_distance,
)

PRESETS = presets_of("daformer")


def _dn(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape).float()


@pytest.fixture(scope="module")
def network() -> DAFormer:
    torch.manual_seed(0)
    return DAFormer("b0").eval()


@pytest.fixture(scope="module")
def fine() -> DAFormer:
    torch.manual_seed(0)
    return daspm("b0").eval()


def test_the_head_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        head = DAFormerHead((64, 128, 320, 512), num_classes=19)
    assert sum(p.numel() for p in head.parameters()) == 3_712_275


def test_parameters_are_named_and_shaped_as_in_the_public_checkpoints() -> None:
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in DAFormer("b5", num_classes=19).state_dict().items()}
    known = {
        "backbone.block3.39.attn.q.weight": (320, 320),
        "decode_head.conv_seg.weight": (19, 256, 1, 1),
        "decode_head.embed_layers.3.proj.weight": (256, 512),
        "decode_head.fuse_layer.aspp_modules.0.conv.weight": (256, 1024, 1, 1),
        "decode_head.fuse_layer.aspp_modules.3.depthwise_conv.conv.weight": (1024, 1, 3, 3),
        "decode_head.fuse_layer.aspp_modules.3.depthwise_conv.bn.running_var": (1024,),
        "decode_head.fuse_layer.aspp_modules.3.pointwise_conv.conv.weight": (256, 1024, 1, 1),
        "decode_head.fuse_layer.bottleneck.conv.weight": (256, 1024, 3, 3),
        "decode_head.fuse_layer.bottleneck.bn.bias": (256,),
    }
    assert {name: shapes[name] for name in known} == known


@pytest.mark.parametrize("shape", [(1, 32, 32), (2, 32, 64), (1, 96, 64)])
def test_logits_lie_on_the_grid_of_the_input(network: DAFormer, shape: tuple[int, int, int]) -> None:
    n, y, x = shape
    with torch.inference_mode():
        assert network(_dn(n, 3, y, x)).shape == (n, 5, y, x)


def test_four_bands_are_taken_where_there_are_four_means() -> None:
    network = DAFormer("b0", num_classes=7, mean=(100,) * 4, std=(50,) * 4).eval()
    with torch.inference_mode():
        assert network(_dn(1, 4, 32, 32)).shape == (1, 7, 32, 32)


@pytest.mark.parametrize("size", [(32, 40), (16, 32), (100, 32)])
def test_other_sizes_are_refused_with_the_nearest(network: DAFormer, size: tuple[int, int]) -> None:
    nearest = {(32, 40): "32 x 32", (16, 32): "32 x 32", (100, 32): "96 x 32"}[size]
    with pytest.raises(ModelError, match=f"{size[0]} x {size[1]} px.*nearest that fits is {nearest}"):
        network(_dn(1, 3, *size))


def test_a_coarse_pixel_covers_exactly_five_by_five_fine_ones(fine: DAFormer) -> None:
    coarse = torch.rand(1, 3, 8, 6)
    grid = fine.to_fine_grid(coarse)
    assert grid.shape == (1, 3, 40, 30)
    # Bicubic interpolation goes through its samples: the middle of block (r, c) is pixel (r, c) itself, so
    # the block is 5r..5r+4 x 5c..5c+4, origin and all.
    torch.testing.assert_close(grid[:, :, 2::5, 2::5], coarse)


def test_sub_pixel_logits_are_five_times_finer(fine: DAFormer) -> None:
    with torch.inference_mode():
        assert fine(_dn(1, 3, 32, 32)).shape == (1, 5, 160, 160)


def test_the_offset_of_the_baseline_cancels(fine: DAFormer) -> None:
    shifted = daspm("b0", boa_offset=1000).eval()
    x = _dn(1, 3, 4, 4) * 10
    torch.testing.assert_close(shifted.normalise(x + 1000), fine.normalise(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["network", "fine"])
def test_scripted_equals_eager(name: str, request: pytest.FixtureRequest) -> None:
    net = request.getfixturevalue(name)
    scripted = torch.jit.script(net)
    with torch.inference_mode():
        for x in (_dn(1, 3, 32, 32), _dn(2, 3, 32, 64)):
            torch.testing.assert_close(scripted(x), net(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(torch.jit.Error, match="nearest that fits is 32 x 32"):
        scripted(_dn(1, 3, 32, 33))


def test_exported_equals_eager_at_other_sizes() -> None:
    network = DAFormer("b0").eval()
    for i in range(1, 5):  # one block a stage says as much as two, and is traced in half the time
        name = f"block{i}"
        setattr(network.backbone, name, getattr(network.backbone, name)[:1])
    shapes = ({0: torch.export.Dim("n", max=64), 2: 32 * torch.export.Dim("y", max=64)},)
    with torch.no_grad():
        program = torch.export.export(network, (_dn(2, 3, 96, 64),), dynamic_shapes=shapes)
        other = _dn(1, 3, 128, 64)
        torch.testing.assert_close(program.module()(other), network(other), rtol=1e-5, atol=1e-5)


def test_feature_distance_of_no_kept_position_is_zero_and_so_is_its_gradient() -> None:
    features = torch.randn(1, 4, 2, 2, requires_grad=True)
    loss = feature_distance(features, torch.zeros(1, 4, 2, 2), torch.full((1, 64, 64), 255), 3, things=[1])
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert not features.grad.any()


def test_feature_distance_counts_positions_where_a_thing_has_the_majority() -> None:
    features = torch.zeros(1, 4, 2, 2)
    features[0, :, 0, 0] = 1.0  # length 2
    features[0, :, 1, 1] = 9.0
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :32, :24] = 1  # exactly 0.75 of position (0, 0)
    labels[:, 32:, 32:55] = 1  # less than that of position (1, 1)
    zero = torch.zeros_like(features)
    assert feature_distance(features, zero, labels, 3, things=[1]).item() == 2.0
    assert feature_distance(features, zero, labels, 3).item() == (2.0 + 18.0) / 4


def test_positions_of_a_context_of_half_the_resolution_cover_twice_the_side() -> None:
    features = torch.zeros(1, 4, 1, 2)
    features[0, :, 0, 0] = 1.0  # length 2
    features[0, :, 0, 1] = 9.0
    labels = torch.zeros(1, 64, 128, dtype=torch.long)
    labels[:, :, :48] = 1  # three quarters of the first, none of the second
    assert feature_distance(features, torch.zeros_like(features), labels, 3, things=[1]).item() == 2.0


def test_abundances_are_the_block_means() -> None:
    logits = torch.randn(2, 5, 10, 15)
    own = abundances(logits.softmax(1), SUBPIXEL)
    torch.testing.assert_close(own[:, :, 1, 2], logits.softmax(1)[:, :, 5:10, 10:15].mean(dim=(2, 3)))
    torch.testing.assert_close(own.sum(1), torch.ones(2, 2, 3))


def test_presets_are_listed_with_cards_that_fit_them() -> None:
    sizes = ("b0", "b1", "b2", "b3", "b4", "b5")
    assert set(PRESETS) == {f"{kind}-{size}" for kind in ("daformer", "daspm") for size in sizes}
    for name, preset in PRESETS.items():
        assert (preset.name, preset.card().name) == (name, name)


@pytest.mark.parametrize("name", ["daformer-b0", "daspm-b0"])
def test_a_card_says_what_its_network_does(name: str) -> None:
    card = PRESETS[name].card()
    with torch.device("meta"):
        net = PRESETS[name].build()
        out = net.eval()(torch.empty(1, card.bands, card.window.size, card.window.size))
    assert isinstance(net, DAFormer)
    assert (card.window.multiple, card.output_scale) == (net.multiple, net.upscale)
    side = card.window.size * card.output_scale
    assert out.shape == (1, len(card.channels), side, side)
